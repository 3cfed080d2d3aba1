"""Great Expectations judges frames by rules, and writes its Data Docs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dssm_core.aliases import JSON, Ints
from dssm_core.data.rules import DAYS, IN_TABLE, Rule
from dssm_core.data.verdicts import Verdict
from dssm_core.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = 5
SECTIONS = ("expectations", "validations", "profiling")  # of Data Docs
VIEW = {"module_name": "dssm_core.data.data_docs", "class_name": "EscapedView"}


class Judge:
    """A Great Expectations context that writes its Data Docs into one folder.

    limit: the share of rows beyond which the broken rows of a rule are not listed, because the log
    is refused anyway.
    """

    def __init__(self, docs: Path, limit: float) -> None:
        self.limit = limit
        os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the package is imported
        import great_expectations as gx  # takes seconds, so it is imported only here

        # This module sets its own level when it is imported, and logs a temporary folder.
        logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)
        self.gx: Any = gx
        self.context: Any = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = {"globally": False}
        self.context.delete_data_docs_site("local_site")
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
        site = {
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": store,
            "site_section_builders": {name: {"view": VIEW} for name in SECTIONS},
        }
        self.context.add_data_docs_site("data_docs", site)
        self.source: Any = self.context.data_sources.add_pandas("log")

    def judge(
        self,
        table: str,
        frames: Iterable[pd.DataFrame],
        rules: Sequence[Rule],
        key: str,
        rows: int,
    ) -> list[Verdict]:
        """Run the rules of one table as a checkpoint on each of its frames, one after the other,
        and sum up the answers. key: the column that identifies a row of a frame. rows: number of
        rows of all frames.
        """
        most = self.limit * rows
        asset = self.source.add_dataframe_asset(table)
        batches = asset.add_batch_definition_whole_dataframe("window")
        checkpoint = self._checkpoint(table, batches, rules, key)
        tallies = [Tally(rule) for rule in rules]
        for frame in frames:
            (result,) = checkpoint.run(batch_parameters={"dataframe": frame}).run_results.values()
            answers = {
                (answer.expectation_config.type, answer.expectation_config.kwargs["column"]): answer
                for answer in result.results
            }
            for tally in tallies:
                answer = answers[self._name(tally.rule)]
                _add(tally, table, answer, frame, key)
                if tally.rule.quarantines and 0 < answer.result.get("unexpected_count", 0) <= most:
                    batch = batches.get_batch({"dataframe": frame})
                    tally.rows.append(self._rows(tally.rule, batch, key))
        return [tally.verdict(table, DAYS if key == DAYS else "rows", most) for tally in tallies]

    def _checkpoint(self, table: str, batches: Any, rules: Sequence[Rule], key: str) -> Any:
        """The checkpoint of a table's suite."""
        gx = self.gx
        expectations = [self._expectation(rule) for rule in rules]
        suite = self.context.suites.add(gx.ExpectationSuite(name=table, expectations=expectations))
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(name=table, data=batches, suite=suite)
        )
        checkpoint = gx.Checkpoint(
            name=table,
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
            result_format={
                "result_format": "SUMMARY",
                "unexpected_index_column_names": [key],
                "partial_unexpected_count": EXAMPLES,
            },
        )
        return self.context.checkpoints.add(checkpoint)

    def _expectation(self, rule: Rule) -> Any:
        expectation = getattr(self.gx.expectations, rule.kind)
        text = escape(rule.text, quote=False)  # it names columns, and is HTML in Data Docs
        return expectation(column=rule.column, description=text, **rule.settings)

    def _name(self, rule: Rule) -> tuple[str, str]:
        return getattr(self.gx.expectations, rule.kind).expectation_type, rule.column

    def _rows(self, rule: Rule, batch: Any, key: str) -> Ints:
        """The rows that break a rule. They are queried only when there are any, because listing
        them is slow.
        """
        complete = {
            "result_format": "COMPLETE",
            "unexpected_index_column_names": [key],
            "partial_unexpected_count": 0,
        }
        answer = batch.validate(self._expectation(rule), result_format=complete)
        return np.array([index[key] for index in answer.result["unexpected_index_list"]], np.int64)


@dataclass
class Tally:
    """What the frames of a table say of one rule. examples: (row, text) of values that break it."""

    rule: Rule
    passed: bool = True
    broken: int = 0
    judged: int = 0
    examples: list[tuple[Any, str | None]] = field(default_factory=list)
    rows: list[Ints] = field(default_factory=list)

    def verdict(self, table: str, unit: str, most: float) -> Verdict:
        """The sum of the frames. most: the number of rows beyond which they are not listed."""
        first = sorted(self.examples, key=lambda example: example[0])[:EXAMPLES]
        rows = self.rows if self.broken <= most else []
        return Verdict(
            table=table,
            unit=unit,
            rule=self.rule,
            passed=self.passed,
            broken=self.broken,
            judged=self.judged,
            examples=tuple(dict.fromkeys(text for _, text in first if text is not None)),
            rows=np.concatenate([np.empty(0, np.int64), *rows]),
        )


def _add(tally: Tally, table: str, answer: Any, frame: pd.DataFrame, key: str) -> None:
    """Add the answer about a frame to the tally of its rule."""
    if answer.exception_info.get("raised_exception"):
        raise DataError(
            f"{table}: the rule {tally.rule.text!r} cannot be judged:"
            f" {answer.exception_info['exception_message']}; correct the rule, or leave"
            " it out"
        )
    result = answer.result
    tally.passed &= bool(answer.success)
    tally.broken += int(result.get("unexpected_count") or 0)
    tally.judged += int(result.get("element_count") or 0)
    tally.examples += _examples(result, key, tally.rule.column, frame)


def _examples(
    result: JSON, key: str, column: str, frame: pd.DataFrame
) -> list[tuple[Any, str | None]]:
    """A few values that break a rule, with their rows: with their day if the rule is about days,
    the ids themselves if it is about ids without a row in their table.
    """
    indexes = result.get("partial_unexpected_index_list") or []
    rows = [index[key] for index in indexes]
    if key == DAYS:
        return [(index[DAYS], f"{index[DAYS]}: {_short(index[column])}") for index in indexes]
    if column.startswith(IN_TABLE):
        found = frame[frame[key].isin(rows)]
        rows = found[key].tolist()
        values = found[column.removeprefix(IN_TABLE)].tolist()
    else:
        values = result.get("partial_unexpected_list") or []
    texts = [
        repr(_plain(value)) if value is not None and value == value else None for value in values
    ]
    return list(zip(rows, texts, strict=True))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
