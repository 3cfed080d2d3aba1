"""Today's champion on the queries of this run: its own bundle answers them, as it is served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from dssm_core.aliases import JSON, Doubles, Ints
from dssm_core.config import Config
from dssm_core.data import drift
from dssm_core.data.splits.days import Days
from dssm_core.errors import DssmError
from dssm_core.evaluation import rolling
from dssm_core.evaluation.answers import ask, bundle_search
from dssm_core.evaluation.measure import Curve, measure, measure_slice
from dssm_core.evaluation.queries import EvaluationData
from dssm_core.evaluation.query_rows import RequestRows
from dssm_core.gate.rules import Champion
from dssm_core.registry import versions
from dssm_core.registry.integrity import ChangedVersion
from dssm_core.retrieval.bundle import Bundle, open_bundle
from dssm_core.runs.files import scratch
from dssm_core.runs.gate_report import ChampionReport
from dssm_core.runs.run import Run


@dataclass(frozen=True)
class MeasuredChampion:
    """The champion as the rules compare it and as the report shows it.

    curve: recall by list length on the warm queries; recalls: the gate's recall of each query [Q]
    that the gate judges. Both are None where it could not be measured.
    """

    compared: Champion
    report: ChampionReport
    curve: Curve | None = None
    recalls: Doubles | None = None


def measure_champion(run: Run, data: EvaluationData) -> MeasuredChampion | None:
    """Measure the champion's own bundle on this run's queries; None where there is no champion.

    A bundle that cannot be run is an outcome, not an error, and so is one that was trained on
    these queries.
    """
    with scratch(run.root) as folder:
        try:
            found = versions.fetch_champion(run, Path(folder))
        except ChangedVersion as error:
            return _unmeasured(error.version, str(error), run.config.gate.metric)
        if found is None:
            return None
        try:
            bundle = open_bundle(found.folder)
            if note := overlap_note(bundle.config, run.config):
                return _not_comparable(run, data, bundle, found, note)
            return _measure(run, data, bundle, found)
        except (DssmError, RuntimeError) as error:  # RuntimeError: weights of another shape (torch)
            note = (
                f"its bundle cannot be run: {error}; promote a version that this code can run, "
                "or remove the alias champion"
            )
            return _unmeasured(found.version, note, run.config.gate.metric)


def _measure(
    run: Run, data: EvaluationData, bundle: Bundle, found: versions.FetchedVersion
) -> MeasuredChampion:
    config = run.config
    gate = config.gate
    lists = ask_bundle(bundle, data, config)
    by_population = {
        name: measure(lists, queries, config)
        for name, queries in (("warm", data.warm), ("all", data.all))
    }
    warm = by_population["warm"]
    recalls = by_population[gate.population].recalls
    parts = {name: measure_slice(lists, part, config) for name, part in data.parts.items()}
    fields: JSON = {
        "version": found.version,
        "all": by_population["all"].scores,
        "parts": parts,
        "drift": drift_since(run, data, bundle, found.drift),
    }
    if gate.protocol == "rolling":
        rolled = rolling.roll(run, data, bundle, beside=False)
        fields["rolling"] = rolled.scores("served", "warm", config)
        fields["rolling_all"] = rolled.scores("served", "all", config)
        recalls = rolled.recalls("served", gate.population, gate.k)
    report = ChampionReport.model_validate(fields | warm.scores)
    recall = report.of(gate.protocol, gate.population).value(gate.metric)
    compared = Champion(found.version, recall)
    drawn = by_population["warm" if len(data.warm.codes) else "all"]
    return MeasuredChampion(compared, report, drawn.curve, recalls)


def _not_comparable(
    run: Run, data: EvaluationData, bundle: Bundle, found: versions.FetchedVersion, note: str
) -> MeasuredChampion:
    """A champion whose figures on these queries would be no fair comparison."""
    fields: JSON = {
        "version": found.version,
        "not_comparable": note,
        "drift": drift_since(run, data, bundle, found.drift),
        run.config.gate.metric: None,
    }
    compared = Champion(found.version, None, note, comparable=False)
    return MeasuredChampion(compared, ChampionReport.model_validate(fields))


def _unmeasured(version: str, note: str, metric: str) -> MeasuredChampion:
    fields: JSON = {"version": version, "parts": {}, "drift": {}, metric: None}
    return MeasuredChampion(Champion(version, None, note), ChampionReport.model_validate(fields))


def ask_bundle(bundle: Bundle, data: EvaluationData, config: Config) -> Ints:
    """The lists [Q, K] of a bundle for all queries of a run; it gets what is known of each query as
    its own config asks. config: of the run.
    """
    context = [feature.column for feature in bundle.config.features.columns.context]
    requests = RequestRows.of(data.all, data.items, context)
    rules = bundle.rules(data.cutoff_ms if config.split.by_time else None)
    return ask(bundle_search(bundle, requests, rules), data.all, max(config.evaluation.ks))


def drift_since(
    run: Run, data: EvaluationData, bundle: Bundle, trained: drift.Drift | None
) -> JSON:
    """How this run's days differ from those that the champion was trained on.

    See drift.compare_windows.

    unknown_items: share of this run's clicks whose item the champion's index lacks.
    """
    clicks = data.train.counts() + data.test_counts  # [N]
    unknown = bundle.items.encode(data.items.index) == 0
    ours = drift.load(run.step("validate_data"))
    compared = drift.compare_windows(ours, trained) if ours and trained else {}
    return compared | {"unknown_items": float(clicks[unknown].sum() / max(clicks.sum(), 1))}


def overlap_note(champion: Config, challenger: Config) -> str:
    """Why the champion's training set may contain this run's test rows: its figure would be too
    high. Empty if it does not.
    """
    theirs = champion.split
    ours = challenger.split
    if isinstance(theirs, Days) and isinstance(ours, Days):
        if theirs.test_day <= ours.test_day:
            return ""
        return (
            f"it was trained up to {_day_before(theirs.test_day)}, which includes this test day, "
            f"{ours.test_day}: its figure would be too high"
        )
    if theirs == ours:
        return ""
    return (
        f"it was trained on the split {theirs.title}, which may include test rows of {ours.title}: "
        "its figure might be too high"
    )


def _day_before(day: date) -> str:
    return date.fromordinal(day.toordinal() - 1).isoformat()
