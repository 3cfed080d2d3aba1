"""Great Expectations judges frames by rules, and writes its Data Docs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
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
        self, table: str, frame: pd.DataFrame, rules: Sequence[Rule], key: str
    ) -> list[Verdict]:
        """Run the rules of one table as a checkpoint. key: the column that identifies a row of the
        frame.
        """
        asset = self.source.add_dataframe_asset(table)
        batches = asset.add_batch_definition_whole_dataframe("window")
        result = self._run(table, batches, frame, rules, key)
        batch = batches.get_batch({"dataframe": frame})
        answers = {
            (answer.expectation_config.type, answer.expectation_config.kwargs["column"]): answer
            for answer in result.results
        }
        return [
            self._verdict(table, rule, answers[self._name(rule)], batch, frame, key)
            for rule in rules
        ]

    def _run(
        self, table: str, batches: Any, frame: pd.DataFrame, rules: Sequence[Rule], key: str
    ) -> Any:
        """The validation result of a table's suite."""
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
        run = self.context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
        (result,) = run.run_results.values()
        return result

    def _expectation(self, rule: Rule) -> Any:
        expectation = getattr(self.gx.expectations, rule.kind)
        text = escape(rule.text, quote=False)  # it names columns, and is HTML in Data Docs
        return expectation(column=rule.column, description=text, **rule.settings)

    def _name(self, rule: Rule) -> tuple[str, str]:
        return getattr(self.gx.expectations, rule.kind).expectation_type, rule.column

    def _verdict(
        self, table: str, rule: Rule, answer: Any, batch: Any, frame: pd.DataFrame, key: str
    ) -> Verdict:
        if answer.exception_info.get("raised_exception"):
            raise DataError(
                f"{table}: the rule {rule.text!r} cannot be judged:"
                f" {answer.exception_info['exception_message']}"
            )
        result = answer.result
        broken = int(result.get("unexpected_count") or 0)
        judged = int(result.get("element_count") or 0)
        listed = rule.quarantines and 0 < broken <= self.limit * judged
        return Verdict(
            table=table,
            unit=DAYS if key == DAYS else "rows",
            rule=rule,
            passed=bool(answer.success),
            broken=broken,
            judged=judged,
            examples=_examples(result, key, rule.column, frame),
            rows=self._rows(rule, batch, key) if listed else np.empty(0, np.int64),
        )

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


def _examples(result: JSON, key: str, column: str, frame: pd.DataFrame) -> tuple[str, ...]:
    """A few values that break a rule: with their day if it is about days, the ids themselves if it
    is about ids without a row in their table.
    """
    indexes = result.get("partial_unexpected_index_list") or []
    if key == DAYS:
        return tuple(f"{index[DAYS]}: {_short(index[column])}" for index in indexes)
    if column.startswith(IN_TABLE):
        rows = frame[key].isin([index[key] for index in indexes])
        values = frame.loc[rows, column.removeprefix(IN_TABLE)].tolist()
    else:
        values = result.get("partial_unexpected_list") or []
    texts = [repr(_plain(value)) for value in values if value is not None and value == value]
    return tuple(dict.fromkeys(texts))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
