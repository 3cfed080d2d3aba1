"""What a run of a config would find before it trains: its first steps, in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.columns import ITEM, ITEMS, REASON, USER
from dssm_core.config import Config
from dssm_core.data import drift
from dssm_core.data.database import connect
from dssm_core.data.sql import parquet
from dssm_core.data.validate import DOCS
from dssm_core.errors import DataError
from dssm_core.evaluation.answers import ask, list_search
from dssm_core.evaluation.evaluate import ceiling
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.measure import gate_recalls, mean
from dssm_core.evaluation.queries import EvaluationData, Slice, make_evaluation_data
from dssm_core.features.dataset import bucket_times, load_prepared, selection_log
from dssm_core.features.ids import Ids
from dssm_core.inspection.user_sample import Sample, take_sample
from dssm_core.retrieval.catalogue import make_catalogue, read_items
from dssm_core.runs.gate_report import BEST_LIST
from dssm_core.runs.layout import ITEM_IDS_FILE, QUARANTINE_FILE, USER_IDS_FILE, table_file
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import KEPT, execute
from dssm_core.training.batches import Examples, examples
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.notes import no_events, notes

STEPS = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
CHEAP = ("hot", "recent_hot")  # the baselines that take seconds
MOST_REASONS = 10
MOSTLY_COLD = 0.5  # share of test positives of new users, or items, from which a warning is given


@dataclass(frozen=True)
class Findings:
    """What a run would find.

    rows: read = train + test + outside + quarantined. days: (ISO date, rows) of the window; empty
    for a split without days. quarantined: rows by reason. events: positives that train, left_out:
    those that do not, by reason. warm, all: queries. cold_users, cold_items: shares of the test
    positives. recalls: gate.metric of baselines and of the ceiling on warm queries. sample: of the
    users, None: all of them.
    """

    sample: Sample | None
    rows: Mapping[str, int]
    days: list[tuple[str, int]]
    quarantined: Mapping[str, int]
    users: int
    items: int
    events: int
    left_out: Mapping[str, int]
    warm: int
    all: int
    cold_users: float
    cold_items: float
    recalls: Mapping[str, float | None]
    warnings: list[str]


def check(config: Config, folder: Path, before: Callable[[str], None]) -> Findings:
    """Run the steps before training in an empty folder, and report what they find.

    before: called with the name of each step. Raises what the run would raise.
    """
    config, sample = take_sample(config, folder)
    run = create_run(config, folder / "runs", "check")
    for name in STEPS:
        before(name)
        _execute(run, name)
    held = _training_events(run)
    data = _queries(run)
    split = run.need("split_by_time")
    sizes = run.need("sample_negatives").rows
    measured = drift.load(run.step("validate_data"))
    return Findings(
        sample=sample,
        rows=split.rows,
        days=list(zip(measured.days, measured.rows, strict=True)) if measured else [],
        quarantined=_reasons(run),
        users=sizes["users"],
        items=sizes["items"],
        events=held.count,
        left_out={reason: count for reason, count in held.left_out.items() if count},
        warm=len(data.warm.codes),
        all=len(data.all.codes),
        cold_users=split.info["cold_user_share"],
        cold_items=split.info["cold_item_share"],
        recalls=_recalls(config, data),
        warnings=list(_warnings(run, held, data, split.info)),
    )


def _execute(run: Run, name: str) -> None:
    """Execute a step. An error names no file of the temporary folder."""
    try:
        execute(run, name)
    except DataError as error:
        lines = [line for line in str(error).splitlines() if not line.startswith((KEPT, DOCS))]
        raise DataError("\n".join(lines)) from error


def _training_events(run: Run) -> Examples:
    """The training events of the last phase. DataError if a phase of the training has none."""
    config = run.config
    prepared = load_prepared(run.step("sample_negatives"))
    times = bucket_times(config, prepared.log)
    logs = {"select": selection_log(config, prepared.log), "refit": prepared.log}
    held = {phase: examples(config, log, prepared.users, times) for phase, log in logs.items()}
    for phase, found in held.items():
        if not found.count:
            raise no_events(phase, found.left_out)
    HeldOutQueries(config, prepared.log)
    return held["refit" if config.train.refit else "select"]


def _queries(run: Run) -> EvaluationData:
    """The queries of the test set, as the gate asks them of the catalogue of the training set."""
    coded = run.step("sample_negatives")
    users = Ids.load(coded / USER_IDS_FILE)
    items = Ids.load(coded / ITEM_IDS_FILE)
    file = run.step("validate_data") / table_file(ITEMS)
    exported = run.step("export_embeddings")
    exported.mkdir()
    rows = read_items(file, run.config)
    if rows is not None:
        make_catalogue(rows, items, run.config).save(exported)
    return make_evaluation_data(run, users, items)


def _recalls(config: Config, data: EvaluationData) -> dict[str, float | None]:
    """Recall@gate.k of the cheap baselines on the queries that the gate judges, and of the ceiling
    on warm queries.
    """
    cheap = tuple(each for each in config.evaluation.baselines if each.kind in CHEAP)
    evaluation = config.evaluation.model_copy(update={"baselines": cheap})
    chosen = config.model_copy(update={"evaluation": evaluation})
    k = config.gate.k
    recalls = {}
    for name, fitted in fit_baselines(chosen, data.train, data.cutoff_ms).items():
        lists = ask(list_search(fitted, data.all.histories), data.all, k)
        recalls[name] = mean(gate_recalls(lists, _judged(config, data), k))
    return recalls | {BEST_LIST: ceiling(data, k)}


def _judged(config: Config, data: EvaluationData) -> Slice:
    """The queries that the gate judges."""
    return data.warm if config.gate.population == "warm" else data.all


def _sessions(config: Config) -> Iterator[str]:
    """What a config lacks for a log whose test set has new users only, a sentence each."""
    new = "no user of the test set is in the training set, as where users are sessions"
    if config.gate.population == "warm":
        yield f"{new}: set gate.population to all, otherwise no model passes"
    if not config.features.first_context:
        yield (
            f"{new}: they are asked without a context. Name columns in features.columns.context and"
            " set features.first_context to true"
        )


def _reasons(run: Run) -> dict[str, int]:
    """Number of quarantined interactions by reason, the most frequent first."""
    steps = ("validate_data", "split_by_time")
    files = [run.step(name) / QUARANTINE_FILE for name in steps]
    reason = f"regexp_replace({REASON}, '^clicked -?[0-9]+ ms', 'clicked')"
    with connect(run.root / "reasons", run.config.resources) as con:
        query = f"SELECT {reason}, count(*) FROM {parquet(*files)} GROUP BY 1 ORDER BY 2 DESC, 1"
        return dict(con.execute(f"{query} LIMIT {MOST_REASONS}").fetchall())


def _warnings(run: Run, held: Examples, data: EvaluationData, split: JSON) -> Iterator[str]:
    """What may make the model worse than it could be, a sentence each."""
    config = run.config
    yield from run.need("validate_data").info["drift"]
    sources = run.need("sample_negatives").info.get("drawn_from", {})
    yield from notes(config.train, 0, held.count, held.left_out, sources)
    asked = _judged(config, data)
    if len(data.all.codes) and not data.all.codes.any():
        yield from _sessions(config)
    elif len(asked.codes) < config.gate.min_queries:
        yield (
            f"{len(asked.codes):,} queries are fewer than gate.min_queries"
            f" {config.gate.min_queries}: no model passes. Choose another test day or more of them"
        )
    for key, share in ((USER, split["cold_user_share"]), (ITEM, split["cold_item_share"])):
        if share > MOSTLY_COLD and not (key == USER and config.features.first_context):
            yield (
                f"{share:.0%} of the test positives have a {key} that is not in the training set:"
                " give more split.train_days, or features that describe new ones"
            )
