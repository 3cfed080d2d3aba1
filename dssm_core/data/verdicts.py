"""What Great Expectations found: which rows to quarantine, and why a log is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dssm_core.aliases import Ints
from dssm_core.columns import INTERACTIONS
from dssm_core.data.rules import Rule
from dssm_core.data.sources.canonical import RAW

WINDOW_RULE = ("ExpectColumnSumToBeBetween", "rows")
DAY_RULE = ("ExpectColumnValuesToBeBetween", "rows")
PRESENT_RULE = "ExpectColumnValuesToNotBeNull"


@dataclass(frozen=True)
class Verdict:
    """The result of one rule: `broken` of `judged` values break it.

    table: the judged table, for people. unit: what is judged, rows or days. examples: a few values
    that break the rule, with their day if the rule is about days. rows: numbers of the rows to
    quarantine, [n].
    """

    table: str
    unit: str
    rule: Rule
    passed: bool
    broken: int
    judged: int
    examples: tuple[str, ...]
    rows: Ints

    @property
    def sentence(self) -> str:
        """The rule, how many values break it, and what to do."""
        examples = f" (for example {', '.join(self.examples)})" if self.examples else ""
        extent = (
            f", but this fails for {self.broken} of {self.judged} {self.unit}"
            if self.judged and self.broken
            else ""
        )
        return f"{self.table}: {self.rule.text}{extent}{examples}; {self.rule.fix}"


def broken_rows(verdicts: Sequence[Verdict]) -> tuple[Ints, Ints]:
    """The number of each interaction to quarantine, ascending, and the position of the first
    verdict that it is in. → 2 x [n]
    """
    counts = [len(verdict.rows) for verdict in verdicts]
    rows = np.concatenate([np.empty(0, np.int64), *(verdict.rows for verdict in verdicts)])
    distinct, first = np.unique(rows, return_index=True)
    return distinct, np.repeat(np.arange(len(counts)), counts)[first]


def judged_rows(verdicts: Sequence[Verdict]) -> int:
    """The number of interactions that were judged."""
    return max((verdict.judged for verdict in verdicts if verdict.table == INTERACTIONS), default=0)


def quarantine_share(verdicts: Sequence[Verdict]) -> float:
    """The share of the judged interactions that break a quarantining rule, at least.

    A rule that too many rows break does not list its rows, so it counts by its number.
    """
    largest = max((verdict.broken for verdict in verdicts if verdict.rule.quarantines), default=0)
    return max(len(broken_rows(verdicts)[0]), largest) / max(judged_rows(verdicts), 1)


def refusals(verdicts: Sequence[Verdict], share: float, limit: float) -> list[Verdict]:
    """The failed verdicts that refuse the log: those of rules that quarantine only if more than
    `limit` of the rows would be quarantined.
    """
    return [
        verdict
        for verdict in verdicts
        if not verdict.passed
        and not verdict.rule.warns
        and (not verdict.rule.quarantines or share > limit)
    ]


def without_repeats(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts without those that only repeat another one: short days of an empty window, and
    missing values that are the cells which could not be parsed.
    """
    failed = {(verdict.rule.kind, verdict.rule.column): verdict for verdict in verdicts}
    repeats = []
    if WINDOW_RULE in failed:
        repeats.append(failed.get(DAY_RULE))
    for verdict in verdicts:
        missing = failed.get((PRESENT_RULE, verdict.rule.column.removeprefix(RAW)))
        if missing and verdict.rule.column.startswith(RAW) and missing.broken == verdict.broken:
            repeats.append(missing)
    return [verdict for verdict in verdicts if not any(verdict is repeat for repeat in repeats)]
