"""The rules of the gate on measured numbers, and the sentence that each gives.

Nothing is read or computed here, and importing this module loads none of the heavy libraries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dssm_core.runs.gate_report import (
    POPULATIONS,
    Answers,
    Difference,
    GateMetrics,
    GateReport,
    QueryCounts,
    Scores,
    UserSample,
)

if TYPE_CHECKING:
    from dssm_core.config import Gate


NEW_USERS = (
    "no query is of a user and an item in the training set: if users are sessions, each query is a"
    " session"
)
NO_QUERIES = "not measured, because there are no queries"


@dataclass(frozen=True)
class Champion:
    """Today's champion on the same queries.

    recall: the number that the gate compares, None where it was not measured; note: why not.
    comparable: False if it was not measured because the comparison would not be fair.
    """

    version: str
    recall: float | None
    note: str = ""
    comparable: bool = True


@dataclass(frozen=True)
class Check:
    """The outcome of one rule, and its sentence."""

    passed: bool
    reason: str


def decide(metrics: GateMetrics, gate: Gate, champion: Champion | None = None) -> list[Check]:
    """Apply every rule, in the order in which people read them.

    A number that was not measured (None, NaN) never passes.
    """
    answers, label = judged(metrics, gate)
    served = number(answers.served, gate.metric)
    exact = number(answers.exact, gate.metric)
    checks = [queries_check(metrics.queries, metrics.sample, gate)] if metrics.queries else []
    checks.append(at_least(label, served, gate.floor, f"the floor of {gate.floor:.3f}"))
    best = answers.best_baseline(gate.metric)
    if best is not None:
        recall = number(answers.baselines[best], gate.metric)
        against = metrics.against_baseline
        checks.append(baseline_check(label, served, best, recall, against, gate.confidence))
    checks.append(index_check(label, served, exact, gate.min_index_ratio))
    if champion is not None:
        against = metrics.against_champion
        checks.append(champion_check(label, served, champion, against, gate))
    return checks


def promotion_reason(metrics: GateMetrics, gate: Gate) -> str | None:
    """Why a version may become champion without a review: `gate.promote_margin` above the champion,
    or, without a champion, above the best baseline. With `gate.confidence` the lower bound of the
    difference must be that large.

    None where the margin is smaller, is not configured, or cannot be measured: a person decides.
    """
    if gate.promote_margin is None:
        return None
    answers, label = judged(metrics, gate)
    best = answers.best_baseline(gate.metric)
    if metrics.champion is not None:
        rival = f"champion version {metrics.champion.version}"
        scores = metrics.champion.of(gate.protocol, gate.population)
        difference = metrics.against_champion
    elif best is not None:
        rival = f"the best baseline, {best}"
        scores = answers.baselines[best]
        difference = metrics.against_baseline
    else:
        return None
    served = number(answers.served, gate.metric)
    margin = served - number(scores, gate.metric)
    above = f"{margin:.3f} above {rival}"
    if gate.confidence is not None:
        margin = difference.low if difference else math.nan
        above += f" with a lower bound of {margin:.3f}"
    if not margin >= gate.promote_margin:
        return None
    return (
        f"served {label} is {served:.3f}, {above}; gate.promote_margin is {gate.promote_margin:.3f}"
    )


def verdict_line(report: GateReport, gate: Gate) -> str:
    """The verdict in one line: what is served and its gains, or the first rule that is not met."""
    if not report.passed:
        rules = zip(report.reasons, report.met, strict=False)
        failed = next((reason for reason, met in rules if not met), report.reasons[0])
        return f"gate: did not pass: {failed}"
    answers, label = judged(report.metrics, gate)
    gains = (report.metrics.against_champion, report.metrics.against_baseline)
    over = [f"{gain.mean:+.3f} over {gain.rival}" for gain in gains if gain]
    served = f"gate: passed, {label} {number(answers.served, gate.metric):.3f}"
    return ", ".join([served, *over])


def judged(metrics: GateMetrics, gate: Gate) -> tuple[Answers, str]:
    """The scores that the gate's protocol and population judge, and what to call their number."""
    answers = metrics.answers(gate.protocol, gate.population)
    assert answers is not None  # gate.protocol needs evaluation.rolling; both populations are there
    label = gate.metric if gate.population == "warm" else f"all-traffic {gate.metric}"
    return answers, label if gate.protocol == "daily" else f"rolling {label}"


def queries_check(counts: QueryCounts, sample: UserSample | None, gate: Gate) -> Check:
    """Queries of the gate's population >= gate.min_queries: fewer say too little of a model.

    sample: the users that were asked, None: all.
    """
    queries = counts.warm if gate.population == "warm" else counts.all
    what = f"{queries:,} queries of {POPULATIONS[gate.population]}"
    if sample is not None:
        what += f" ({sample})"
    required = f"the required {gate.min_queries:,} (gate.min_queries)"
    none = f"; {NEW_USERS}" if counts.all and not counts.warm else ""
    if queries < gate.min_queries:
        advice = ", set gate.population to all" if none and gate.population == "warm" else ""
        return Check(False, f"not enough to judge: {what}, fewer than {required}{none}{advice}")
    return Check(True, f"{what}, at least {required}{none}")


def at_least(label: str, served: float, bound: float, what: str) -> Check:
    """served >= bound; what: the bound in words."""
    if math.isnan(served):
        return not_measured(label, what)
    passed = served >= bound
    return Check(passed, f"served {label} is {served:.3f}, {_compared(passed)} {what}")


def baseline_check(
    label: str,
    served: float,
    best: str,
    recall: float,
    difference: Difference | None,
    confidence: float | None,
) -> Check:
    """served >= the best baseline; with `confidence`, the lower bound of the difference >= 0."""
    what = f"the best baseline, {best}"
    if math.isnan(recall):
        return Check(False, f"served {label} could not be compared: {what}, was not measured")
    if confidence is not None:
        return bound_check(label, served, f"{what}, with {recall:.3f}", difference, 0.0)
    check = at_least(label, served, recall, f"{what}, with {recall:.3f}")
    return Check(check.passed, check.reason + interval_text(difference))


def index_check(label: str, served: float, exact: float, ratio: float) -> Check:
    """served / exact >= ratio. An exact recall of 0 leaves nothing to compare and does not pass."""
    if math.isnan(served) or math.isnan(exact):
        return not_measured(label, "exact search")
    if exact == 0:
        why = f"exact search finds nothing, its {label} is 0"
        return Check(False, f"the index could not be compared with exact search: {why}")
    passed = served / exact >= ratio
    return Check(
        passed,
        f"the index keeps {served / exact:.3f} of the {label} of exact search "
        f"({served:.3f} of {exact:.3f}), {_compared(passed)} the required {ratio:.3f}",
    )


def champion_check(
    label: str, served: float, champion: Champion, difference: Difference | None, gate: Gate
) -> Check:
    """served >= champion - tolerance; with `gate.confidence`, the lower bound of the difference >=
    -tolerance. A champion that could not be measured fails the check; one that is not comparable
    does not.
    """
    name = f"champion version {champion.version}"
    if not champion.comparable:
        return Check(True, f"{name} is not comparable, and is not compared: {champion.note}")
    if champion.recall is None:
        return Check(False, f"{name} could not be compared: {champion.note or NO_QUERIES}")
    if math.isnan(served):
        return not_measured(label, name)
    tolerance = gate.champion_tolerance
    what = f"{name} with {champion.recall:.3f} on the same queries"
    if gate.confidence is not None:
        check = bound_check(label, served, what, difference, 0.0 - tolerance)
        return Check(check.passed, f"{check.reason} (tolerance {tolerance:.3f})")
    passed = served >= champion.recall - tolerance
    return Check(
        passed,
        f"served {label} is {served:.3f}, {'no worse' if passed else 'worse'} than {what} "
        f"(tolerance {tolerance:.3f}){interval_text(difference)}",
    )


def bound_check(
    label: str, served: float, what: str, difference: Difference | None, bound: float
) -> Check:
    """The lower bound of a difference >= bound; what: the rival with its recall, in words."""
    if difference is None or math.isnan(served):
        return not_measured(label, what)
    passed = difference.low >= bound
    return Check(
        passed,
        f"served {label} is {served:.3f}, against {what}{interval_text(difference)}: "
        f"its lower bound is {_compared(passed)} {bound:.3f}",
    )


def not_measured(label: str, what: str) -> Check:
    """The check of a number that the evaluation could not measure."""
    return Check(False, f"served {label} could not be compared with {what}: {NO_QUERIES}")


def interval_text(difference: Difference | None) -> str:
    """What is served minus a rival, with its interval, in words; empty if it was not measured."""
    if difference is None:
        return ""
    return (
        f"; gain {difference.mean:+.3f}, paired {100 * difference.confidence:g} % interval "
        f"{difference.low:+.3f} to {difference.high:+.3f}"
    )


def number(scores: Scores, metric: str) -> float:
    """The figure called `metric`; NaN where it was not measured."""
    value = scores.value(metric)
    return math.nan if value is None else float(value)


def _compared(passed: bool) -> str:
    return "at least" if passed else "below"
