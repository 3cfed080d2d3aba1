"""The rules of the gate on measured numbers, and the sentence that each gives.

Nothing is read or computed here, and importing this module loads none of the heavy libraries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dssm_core.runs.gate_report import Answers, GateMetrics, Scores

if TYPE_CHECKING:
    from dssm_core.config import Gate


@dataclass(frozen=True)
class Champion:
    """Today's champion on the same queries.

    recall: the number that the gate compares, None where it could not be measured; note: why not,
    or what to know of the number.
    """

    version: str
    recall: float | None
    note: str = ""


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
    checks = [at_least(label, served, gate.floor, f"the floor of {gate.floor:.3f}")]
    best = answers.best_baseline(gate.metric)
    if best is not None:
        recall = number(answers.baselines[best], gate.metric)
        checks.append(
            at_least(label, served, recall, f"the best baseline, {best}, with {recall:.3f}")
        )
    checks.append(index_check(label, served, exact, gate.min_index_ratio))
    if champion is not None:
        checks.append(champion_check(label, served, champion, gate.champion_tolerance))
    return checks


def promotion_reason(metrics: GateMetrics, gate: Gate) -> str | None:
    """Why a version may become champion without a review: `gate.promote_margin` above the champion,
    or, without a champion, above the best baseline.

    None where the margin is smaller, is not configured, or cannot be measured: a person decides.
    """
    if gate.promote_margin is None:
        return None
    answers, label = judged(metrics, gate)
    if metrics.champion is not None:
        champion = metrics.champion
        rival = f"champion version {champion.version}"
        scores = champion.rolling if gate.protocol == "rolling" else champion.scores
    else:
        best = answers.best_baseline(gate.metric)
        if best is None:
            return None
        rival = f"the best baseline, {best}"
        scores = answers.baselines[best]
    served = number(answers.served, gate.metric)
    margin = served - number(scores, gate.metric)
    if not margin >= gate.promote_margin:
        return None
    return (
        f"served {label} is {served:.3f}, {margin:.3f} above {rival}; "
        f"gate.promote_margin is {gate.promote_margin:.3f}"
    )


def judged(metrics: GateMetrics, gate: Gate) -> tuple[Answers, str]:
    """The scores that the gate's protocol judges, and what to call its number."""
    if gate.protocol == "daily":
        return metrics, gate.metric
    assert metrics.rolling is not None  # gate.protocol needs evaluation.rolling
    return metrics.rolling.warm, f"rolling {gate.metric}"


def at_least(label: str, served: float, bound: float, what: str) -> Check:
    """served >= bound; what: the bound in words."""
    if math.isnan(served) or math.isnan(bound):
        return Check(False, f"served {label} could not be compared with {what}: not measured")
    passed = served >= bound
    return Check(passed, f"served {label} is {served:.3f}, {_compared(passed)} {what}")


def index_check(label: str, served: float, exact: float, ratio: float) -> Check:
    """served / exact >= ratio. An exact recall of 0 leaves nothing to compare and does not pass."""
    kept = served / exact if exact > 0 else math.nan
    if math.isnan(kept):
        return Check(False, f"the index could not be compared with exact search: no {label}")
    passed = kept >= ratio
    return Check(
        passed,
        f"the index keeps {kept:.3f} of the {label} of exact search ({served:.3f} of {exact:.3f}), "
        f"{_compared(passed)} the required {ratio:.3f}",
    )


def champion_check(label: str, served: float, champion: Champion, tolerance: float) -> Check:
    """served >= champion - tolerance. A champion that could not be measured fails the check."""
    if champion.recall is None:
        why = champion.note or "not measured"
        return Check(False, f"champion version {champion.version} could not be compared: {why}")
    passed = served >= champion.recall - tolerance
    note = f"; {champion.note}" if champion.note else ""
    return Check(
        passed,
        f"served {label} is {served:.3f}, {'no worse' if passed else 'worse'} than champion "
        f"version {champion.version} with {champion.recall:.3f} on the same queries "
        f"(tolerance {tolerance:.3f}){note}",
    )


def number(scores: Scores, metric: str) -> float:
    """The figure called `metric`; NaN where it was not measured."""
    value = scores.value(metric)
    return math.nan if value is None else float(value)


def _compared(passed: bool) -> str:
    return "at least" if passed else "below"
