"""The gate: what the served index must reach before a model may be registered, and the sentences
that say why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.config import Config, Gate
from dssm_core.data import drift
from dssm_core.data.splits.days import Days
from dssm_core.errors import DssmError
from dssm_core.evaluation import evaluate, queries, rolling
from dssm_core.registry import versions
from dssm_core.retrieval.bundle import Bundle, open_bundle
from dssm_core.runs.files import scratch, write_atomically
from dssm_core.runs.layout import CURVES_FILE, GATE_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run

# Called with the run, the step's folder, the test window, the recall curves and the verdict.
Publish = Callable[[Run, Path, queries.Window, Mapping[str, evaluate.Curve], JSON], None]


@dataclass(frozen=True)
class Champion:
    """Today's champion on the same queries. recall: what the gate judges, None where it could not
    be measured; note: what to know of it.

    scores: of the warm queries as evaluate has them; parts: of the parts of the test rows; drift:
    of this run's window from the champion's;
    rolling: refreshed as gate.protocol asks.
    """

    version: str
    recall: float | None
    note: str = ""
    scores: JSON = field(default_factory=dict)
    parts: JSON = field(default_factory=dict)
    drift: JSON = field(default_factory=dict)
    rolling: JSON = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One rule's outcome and its sentence."""

    passed: bool
    reason: str


def judge(run: Run, work: Path, publish: Publish) -> Outcome:
    """Step function. Evaluates, compares, and writes gate.json and curves.json; a refusal is an
    outcome, not an error.

    publish: called once both are written, to show the verdict to people. info: passed, reasons,
    metrics (see evaluate).
    """
    window, key = queries.read_window(run), metric(run.config.gate)
    measured = evaluate.evaluate(run, window)
    champion, theirs = measure_champion(run, window)
    curves = measured.curves | theirs
    metrics = measured.metrics | ({"champion": _told(champion, key)} if champion else {})
    checks = decide(metrics, run.config.gate, champion)
    info: JSON = {
        "passed": all(check.passed for check in checks),
        "reasons": [check.reason for check in checks],
        "metrics": metrics,
    }
    _write(work, info, curves)
    publish(run, work, window, curves, info)
    return Outcome(rows=metrics["queries"], info=info)


def _write(work: Path, info: JSON, curves: Mapping[str, evaluate.Curve]) -> None:
    write_atomically(work / GATE_FILE, json.dumps(info, indent=2, allow_nan=False).encode())
    plain = {
        name: {"mean": curve.mean.round(6).tolist(), "error": curve.error.round(6).tolist()}
        for name, curve in curves.items()
    }
    write_atomically(work / CURVES_FILE, json.dumps(plain).encode())


def _told(champion: Champion, key: str) -> JSON:
    told = {
        **champion.scores,
        key: champion.scores.get(key),
        "version": champion.version,
        "parts": champion.parts,
        "drift": champion.drift,
    }
    return told | ({"rolling": champion.rolling} if champion.rolling else {})


def decide(metrics: Mapping[str, Any], gate: Gate, champion: Champion | None = None) -> list[Check]:
    """Every rule on measured numbers, in the order people read them. What was not measured (None,
    NaN) never passes.
    """
    key, (metrics, said) = metric(gate), judged(metrics, gate)
    served, exact = number(metrics["served"][key]), number(metrics["exact"][key])
    checks = [at_least(said, served, gate.floor, f"the floor {gate.floor:.3f}")]
    baselines = {name: number(scores[key]) for name, scores in metrics["baselines"].items()}
    if baselines:
        best = max(
            baselines, key=lambda name: -1.0 if math.isnan(baselines[name]) else baselines[name]
        )
        checks.append(
            at_least(
                said,
                served,
                baselines[best],
                f"the best baseline, {best}, at {baselines[best]:.3f}",
            )
        )
    checks.append(index_check(said, served, exact, gate.min_index_ratio))
    if champion is not None:
        checks.append(champion_check(said, served, champion, gate.champion_tolerance))
    return checks


def stands_out(metrics: Mapping[str, Any], gate: Gate) -> str | None:
    """Why a version may become champion without a person: `gate.promote_margin` above the champion,
    or above the best baseline.

    None where the margin is smaller, is not asked for, or cannot be measured: then a person
    decides.
    """
    key, (scores, said) = metric(gate), judged(metrics, gate)
    rivals = scores["baselines"]
    if champion := metrics.get("champion"):
        rivals = {
            f"champion version {champion['version']}": champion.get("rolling", {})
            if gate.protocol == "rolling"
            else champion
        }
    if gate.promote_margin is None or not rivals:
        return None
    served, best = (
        number(scores["served"][key]),
        max(rivals, key=lambda name: number(rivals[name].get(key))),
    )
    margin = served - number(rivals[best].get(key))
    if not margin >= gate.promote_margin:
        return None
    return f"served {said} {served:.3f} is {margin:.3f} above {best}, at least gate.promote_margin {gate.promote_margin:.3f}"


def judged(metrics: Mapping[str, Any], gate: Gate) -> tuple[Mapping[str, Any], str]:
    """The scores of each answerer that the gate's protocol speaks of, and what to call its number."""
    return (
        (metrics["rolling"]["warm"], f"rolling {metric(gate)}")
        if gate.protocol == "rolling"
        else (metrics, metric(gate))
    )


def metric(gate: Gate) -> str:
    """The number that is judged."""
    return f"recall@{gate.k}"


def at_least(key: str, served: float, wanted: float, what: str) -> Check:
    """served >= wanted, in a sentence."""
    passed = served >= wanted
    return Check(
        passed, f"served {key} {served:.3f} is {'at least' if passed else 'not at least'} {what}"
    )


def index_check(key: str, served: float, exact: float, wanted: float) -> Check:
    """served / exact >= wanted; an exact recall of 0 leaves nothing to compare and does not pass."""
    ratio = served / exact if exact > 0 else math.nan
    passed = ratio >= wanted
    compared = f"{ratio:.3f} of exact search's {key} ({served:.3f} of {exact:.3f})"
    return Check(
        passed, f"the served index keeps {compared}, {'at least' if passed else 'not'} {wanted:.3f}"
    )


def champion_check(key: str, served: float, champion: Champion, tolerance: float) -> Check:
    """served >= champion - tolerance; a champion that could not be measured does not let anyone
    pass.
    """
    note = f" ({champion.note})" if champion.note else ""
    if champion.recall is None:
        return Check(False, f"champion version {champion.version} could not be compared{note}")
    passed = served >= champion.recall - tolerance
    word = "is no worse than" if passed else "is worse than"
    what = f"champion version {champion.version} on the same queries, {champion.recall:.3f} less the tolerance {tolerance:.3f}"
    return Check(passed, f"served {key} {served:.3f} {word} {what}{note}")


def measure_champion(
    run: Run, window: queries.Window
) -> tuple[Champion | None, dict[str, evaluate.Curve]]:
    """The champion's own bundle on this run's warm queries, and its curve; (None, {}) where there
    is no champion.
    """
    with scratch(run.root) as folder:
        found = versions.fetch_champion(run, Path(folder))
        if found is None:
            return None, {}
        try:
            bundle = open_bundle(found.folder)
            measured = ask(bundle, run, window, window.warm, run.config)
            brief = {
                name: evaluate.brief(
                    ask(bundle, run, window, part, evaluate.light(run.config)),
                    part,
                    metric(run.config.gate),
                )
                for name, part in window.parts.items()
            }
            rolled = (
                rolling.refreshed(run, window, found.folder)
                if run.config.gate.protocol == "rolling"
                else {}
            )
        except (
            DssmError,
            RuntimeError,
        ) as error:  # RuntimeError: torch's, for weights of another shape
            advice = "promote a version that this code can run, or remove the alias champion"
            return Champion(found.version, None, f"its bundle cannot be run: {error}; {advice}"), {}
        recall, note = (
            (rolled or measured.scores)[metric(run.config.gate)],
            overlap(bundle.config, run.config),
        )
        champion = Champion(
            found.version,
            recall,
            note,
            measured.scores,
            brief,
            since(run, window, bundle, found.drift),
            rolled,
        )
        return champion, {f"champion v{found.version}": measured.curve}


def since(run: Run, window: queries.Window, bundle: Bundle, theirs: drift.Drift | None) -> JSON:
    """How this run's window differs from the one that the champion was trained on (see
    drift.compare_windows), as far as both are known.

    unknown_items: share of the window's clicks whose item the champion's index does not have.
    """
    clicks = window.train.counts() + window.test_counts  # [N]
    unknown = bundle.items.encode(window.items.index) == 0
    ours = drift.load(run.step("validate_data"))
    compared = drift.compare_windows(ours, theirs) if ours and theirs else {}
    return compared | {"unknown_items": float(clicks[unknown].sum() / max(clicks.sum(), 1))}


def ask(
    bundle: Bundle, run: Run, window: queries.Window, asked: queries.Slice, config: Config
) -> evaluate.Measured:
    """Tell a bundle what is known of each query, and measure its answers as `config` says."""
    features = bundle.config.features
    context = tuple(feature.column for feature in features.columns.context)
    frame = queries.users_frame(run, asked, features.history.length, context)
    return evaluate.measure(evaluate.bundle_search(bundle, frame, window.items), asked, config)


def overlap(champion: Config, challenger: Config) -> str:
    """A note where the champion may have been trained on what this run tests on: its figure is then
    flattered.
    """
    theirs, ours = champion.split, challenger.split
    if isinstance(theirs, Days) and isinstance(ours, Days):
        if theirs.test_day <= ours.test_day:
            return ""
        return f"it was trained up to {_before(theirs.test_day)} and so has seen this test day, {ours.test_day}: its figure is flattered"
    if theirs == ours:
        return ""
    return f"it was trained on the split {theirs.title} and may have seen what {ours.title} tests: its figure may be flattered"


def number(value: float | None) -> float:
    """NaN for what was not measured."""
    return math.nan if value is None else float(value)


def _before(day: date) -> str:
    return date.fromordinal(day.toordinal() - 1).isoformat()
