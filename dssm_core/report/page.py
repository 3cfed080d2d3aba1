"""One HTML page that tells a run by itself: what ran, the verdict, and what the model, its data and
its index are like.

No script, no font and no picture is loaded from anywhere. What was not computed, or cannot be
shown, is said where it would stand: a picture that fails costs the page nothing else, and never the
verdict.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dssm_core.aliases import JSON
from dssm_core.data import drift
from dssm_core.data.splits.days import Days
from dssm_core.errors import ArtifactError
from dssm_core.evaluation.queries import Window, read_window
from dssm_core.evaluation.slices import TITLES
from dssm_core.report import diagnostics as probes
from dssm_core.report import plots
from dssm_core.retrieval.indexes import measure
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import CURVES_FILE, GATE_FILE, ITEM_EMBEDDINGS_FILE
from dssm_core.runs.run import Run
from dssm_core.runs.table import STEPS
from dssm_core.tracking.runs import flatten

log = logging.getLogger(__name__)
TEMPLATE = "report.html"  # beside this file

NEIGHBOURS, LOOKED_AT, EXAMPLES, SHOWN = (
    5,
    6,
    6,
    10,
)  # of an item; items; users; items of a history and of a list
SERVED = "the index as served"


class Absent(Exception):
    """There is nothing that a section could show, and why."""


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, or a list of (text, marked). numbers: all but the first column are
    numbers; folded: closed until clicked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    numbers: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG in base64, and what it shows."""

    png: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the page. says: paragraphs; absent: why there is nothing to see."""

    title: str
    says: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    absent: str = ""


@dataclass(frozen=True)
class Look:
    """What the sections read: the run, the gate's folder, and what is costly to read twice."""

    run: Run
    gate: Path
    known: Window | None = None

    @cached_property
    def verdict(self) -> JSON:
        """The gate's own words; empty where it has not judged."""
        file = self.gate / GATE_FILE
        found: JSON = json.loads(file.read_bytes()) if file.is_file() else {}
        return found

    @property
    def metrics(self) -> JSON:
        """What the gate measured."""
        if not self.verdict:
            raise Absent("the gate has not judged this run yet")
        found: JSON = self.verdict["metrics"]
        return found

    @property
    def key(self) -> str:
        """The number that is judged."""
        return f"recall@{self.run.config.gate.k}"

    @cached_property
    def window(self) -> Window:
        """The run's split in codes."""
        return self.known or read_window(self.run)

    @cached_property
    def asked(self) -> probes.Asked:
        """Some warm queries with their vectors."""
        if not len(self.window.warm.codes):
            raise Absent("no test user was seen in train")
        return probes.ask(self.run, self.window.warm)


def write(run: Run, gate: Path, file: Path, window: Window | None = None) -> Path:
    """Write a run's report to `file` and return it.

    gate: the folder of gate.json and curves.json, if there are any; window: the test window, if it
    has been read already.
    """
    started = time.perf_counter()
    look = Look(run, gate, window)
    sections = [_made(title, make, look) for title, make in SECTIONS.items()]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(TEMPLATE)
    text = page.render(
        title=f"{run.config.name}, {run.config.split.title}",
        subtitle=_subtitle(run),
        sections=sections,
        **_head(look),
    )
    write_atomically(file, text.encode())
    log.info(
        "report: %s, %.1f MB in %.1f s",
        file,
        len(text) / 1e6,
        time.perf_counter() - started,
    )
    return file


def _made(title: str, make: Callable[[Look], Section], look: Look) -> Section:
    try:
        return make(look)
    except (Absent, ArtifactError) as error:
        return Section(title, absent=f"Nothing to show: {error}.")
    except Exception as error:  # whatever it is, the rest of the page is worth more
        log.warning("report: %s could not be made: %s", title, error)
        return Section(title, absent=f"This part could not be made: {error}")


def _subtitle(run: Run) -> str:
    config, split = run.config, run.config.split
    days = (
        f"tested on {split.days[split.train_days]}, trained on the {split.train_days} days before"
        if isinstance(split, Days)
        else split.title
    )
    parts = f"towers {config.tower.kind}, loss {config.loss.kind}, sampler {config.sampler.kind}, index {config.index.kind}"
    return f"Model {config.model_name}, {days} · {parts} · seed {config.seed} · run {run.id}"


def _head(look: Look) -> JSON:
    """The verdict and the few numbers above everything else."""
    if not look.verdict:
        return {
            "verdict": {"kind": "", "says": "The gate has not judged this run yet.", "reasons": []},
            "cards": [],
        }
    passed = look.verdict["passed"]
    says = (
        "The gate passed: the model may be registered."
        if passed
        else "The gate refused: nothing is registered, the champion stays."
    )
    metrics, key = look.metrics, look.key
    best = max(
        ((scores.get(key) or 0.0, name) for name, scores in metrics["baselines"].items()),
        default=None,
    )
    theirs = metrics.get("champion", {})
    cards = [(f"{key}, {SERVED}", _share(metrics["served"].get(key)))]
    cards += [(f"best baseline: {best[1]}", _share(best[0]))] if best else []
    cards += (
        [(f"champion, version {theirs['version']}", _share(theirs.get(key)))]
        if theirs
        else [("champion", "none yet")]
    )
    cards += [
        (f"{part} rows", f"{count:,}")
        for part, count in _rows(look.run, "split_by_time").items()
        if part in ("train", "test")
    ]
    cards += [
        ("items in the index", f"{count:,}")
        for count in [_rows(look.run, "export_embeddings").get("items")]
        if count
    ]
    return {
        "verdict": {
            "kind": "passed" if passed else "refused",
            "says": says,
            "reasons": look.verdict["reasons"],
        },
        "cards": cards,
    }


def _rows(run: Run, step: str) -> dict[str, int]:
    manifest = run.manifest(step)
    return manifest.rows if manifest else {}


# --- the sections, in the order of the page -------------------------------------------------------------------------


def flow(look: Look) -> Section:
    """The steps with their rows, and the sum that loses none."""
    done = {name: look.run.manifest(name) for name in STEPS}
    rows = []
    for name, manifest in done.items():
        counted = (
            manifest.rows
            if manifest
            else look.metrics["queries"]
            if name == "recall_gate" and look.verdict
            else {}
        )
        counts = ", ".join(f"{count:,} {what}" for what, count in counted.items()) or "–"
        when = (
            ""
            if manifest is None
            else f"from {manifest.reused_from}"
            if manifest.reused_from
            else f"{manifest.seconds:.1f}\u00a0s"
        )
        rows.append((name, STEPS[name].title, counts, when))
    says = [
        "Each step of the run, in order. What has no time yet was not finished when this page was written."
    ]
    if split := done["split_by_time"]:
        parts = ("train", "test", "outside", "quarantined")
        says.append(
            f"{split.rows['read']:,} rows read = "
            + " + ".join(f"{split.rows[part]:,} {part}" for part in parts if part in split.rows)
        )
    return Section("The flow", says, tables=[Table(("step", "what it does", "rows", "took"), rows)])


def data_checks(look: Look) -> Section:
    """The rules, what broke them, and how the days differ."""
    info = look.run.need("validate_data").info
    broken = [*info["broken_rules"], *info.get("drift", [])]
    says = [
        f"Great Expectations judged {info['rules']} rules over {info['judged']:,} rows; {info['quarantine_share']:.2%} were set aside."
        " All rules and rows stand in the Data Docs beside this page (data_docs/index.html).",
        "Every rule held." if not broken else "What did not hold, or is worth a look:",
    ]
    says += broken
    found = drift.load(look.run.step("validate_data"))
    if found is None:
        why = (
            "it ran before there was such a thing"
            if isinstance(look.run.config.split, Days)
            else "the split has no days"
        )
        return Section("The data", [*says, f"Drift from day to day was not measured: {why}."])
    drawn = _png(plots.days, found.days, found.rows, _main_lines(found))
    tables = [
        Table(
            ("day", "rows", *found.changes),
            _by_day(found),
            "Distances of every day",
            numbers=True,
            folded=True,
        )
    ]
    caption = (
        "Each day of the window against the days before it. Volume: rows, as a share of their mean. New items: the share of rows whose item"
        " the day before did not have, from its mean. Columns: Jensen-Shannon divergence in bits; the six that moved most."
    )
    return Section("The data", says, [Picture(drawn, caption)], tables)


def _main_lines(found: drift.Drift) -> dict[str, list[float | None]]:
    """Volume, new items and the columns that moved most."""

    def largest(name: str) -> float:
        return max((value for value in found.changes[name] if value is not None), default=0.0)

    columns = sorted(
        (name for name in found.changes if name.startswith(drift.FEATURES)),
        key=largest,
        reverse=True,
    )[:6]
    return {
        name.partition(".")[2] or name.replace("_", " "): found.changes[name]
        for name in (drift.VOLUME, drift.NEW_ITEMS, *columns)
    }


def _by_day(found: drift.Drift) -> list[list[str]]:
    changes = [[_share(value) for value in found.changes[name]] for name in found.changes]
    return [
        [day, f"{rows:,}", *each]
        for day, rows, *each in zip(found.days, found.rows, *changes, strict=True)
    ]


def champions_window(look: Look) -> Section:
    """How the window differs from the one that the champion was trained on."""
    title = "Against the champion's window"
    theirs = look.metrics.get("champion")
    if not theirs:
        raise Absent("there is no champion yet")
    rows = drift.describe_change(theirs.get("drift", {}))
    if not rows:
        raise Absent(
            f"of champion version {theirs['version']} nothing was kept to compare this window with"
        )
    says = [
        f"What has changed since champion version {theirs['version']} was trained. A champion that does not know what people click today"
        " loses to a newer model for no merit of the newer one; a column that has moved far may mean another log, not other people."
    ]
    return Section(title, says, tables=[Table(("what", "now"), rows, numbers=True)])


def training(look: Look) -> Section:
    """Loss and validation by step."""
    info, history = (
        look.run.need("train_towers").info,
        probes.history_of(look.run.step("train_towers")),
    )
    if not history:
        raise Absent("training left no history")
    names = {
        "best_epoch": "epochs",
        "parameters": "parameters",
        "temperature": "temperature",
        "device": "device",
    }
    says = [
        ", ".join(
            f"{text}: {info[name]:,}" if isinstance(info[name], int) else f"{text}: {info[name]}"
            for name, text in names.items()
            if name in info
        )
    ]
    caption = "Loss and validation by step. The number of epochs is chosen on the last train days, then both towers are trained anew on all."
    return Section("Training", says, [Picture(_png(plots.loss_curve, history), caption)])


def recall_curves(look: Look) -> Section:
    """Recall by list length for all who answered."""
    metrics, key = look.metrics, look.key
    caption = (
        f"Share of a user's test items among the first k that are shown; mean over {metrics['queries']['warm']:,} users who, like the"
        " items, were seen in train. Bands: 95 % intervals of the mean."
    )
    ks = [name for name in metrics["served"] if name.startswith("recall@") and name[-1].isdigit()]
    ks += [
        name
        for name in (f"ndcg@{look.run.config.gate.k}", f"coverage@{look.run.config.gate.k}")
        if name in metrics["served"]
    ]
    who = {SERVED: metrics["served"], "exact search": metrics["exact"], **metrics["baselines"]}
    if theirs := metrics.get("champion"):
        who[f"champion, version {theirs['version']}"] = theirs
    rows = [
        (name, *(_share(scores.get(k)) for k in ks), _interval(scores, key))
        for name, scores in who.items()
    ]
    everyone = metrics.get("all", {}).get("served", {})
    rows.append(
        (
            f"{SERVED}, new users and items too",
            *(_share(everyone.get(k)) for k in ks),
            _interval(everyone, key),
        )
    )
    rows.append(
        (
            "ceiling: the test's own most clicked, for all",
            *(_share(metrics.get("ceiling", {}).get(k)) for k in ks),
            "",
        )
    )
    says = [] if theirs else ["There is no champion yet to compare with."]
    return Section(
        "Recall",
        says,
        [Picture(drawn, caption) for drawn in _curves(look)],
        [Table(("", *ks, f"95 % interval of {key}"), rows, numbers=True)],
    )


def _curves(look: Look) -> list[str]:
    """The picture of all curves; none of a run that was judged before they were kept."""
    file = look.gate / CURVES_FILE
    if not file.is_file():
        return []
    curves = {
        name: (np.array(each["mean"]), np.array(each["error"]))
        for name, each in json.loads(file.read_bytes()).items()
    }
    return [_png(partial(plots.recall_curve, mark_k=look.run.config.gate.k), curves)]


def slices(look: Look) -> Section:
    """Parts of users and items that the mean hides."""
    ours, theirs, key = (
        look.metrics.get("parts", {}),
        look.metrics.get("champion", {}).get("parts", {}),
        look.key,
    )
    if not ours:
        raise Absent("no part of the test rows was told apart")
    names = ["this run", *(["champion"] if theirs else [])]
    rows = [
        (
            f"{TITLES.get(name, name)} ({scores['queries']:,})",
            [_dot(found.get(name, {}), key) for found in (ours, theirs)][: len(names)],
        )
        for name, scores in {**_whole(look), **ours}.items()
    ]
    rows[0] = (
        rows[0][0],
        [_dot(look.metrics.get(name, {}), key) for name in ("served", "champion")][: len(names)],
    )
    caption = f"{key} of the served index with its 95 % interval; in brackets how many ask. Users are grouped by what train knows of them."
    return Section("Slices", pictures=[Picture(_png(plots.intervals, rows, names, key), caption)])


def _whole(look: Look) -> JSON:
    return {"seen users and items": {"queries": look.metrics["queries"]["warm"]}}


def _dot(scores: Mapping[str, Any], key: str) -> tuple[float, float, float] | None:
    value, low, high = (scores.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    return (
        None
        if value is None or low is None or high is None
        else (value, min(low, value), max(high, value))
    )


def sampling(look: Look) -> Section:
    """Whether negatives are drawn as often as the log-Q correction believes."""
    look.run.need("sample_negatives")
    found = probes.calibration(look.run)
    if found is None:
        raise Absent("the loss compares with every item, nothing is drawn")
    says = [
        f"Sampler {look.run.config.sampler.kind}, as of the last refresh: {found.inside:.1%} of the items were drawn as often as chance"
        " allows (two standard deviations; about 95 % is sound). Total variation between planned and drawn:"
        f" {found.distance:.3f}; chance alone gives {found.chance:.3f}.",
        "A softmax over sampled candidates takes off the logarithm of the planned probability: were it another one, popular items would be"
        " ranked too high or too low everywhere.",
    ]
    drawn = _png(plots.calibration, found.planned, found.drawn, found.draws)
    return Section(
        "Calibration of sampling probabilities",
        says,
        [Picture(drawn, "An item a dot; on the line: drawn as planned.")],
    )


def score_distributions(look: Look) -> Section:
    """How far what people clicked scores above what they did not."""
    k = look.run.config.gate.k
    found, share = probes.scores(look.asked, look.window.warm, k, look.run.config.seed)
    says = [
        f"{share:.1%} of the clicked items score at least as high as what stands at place {k} of their user's list."
    ]
    caption = f"{look.run.config.model.similarity} of user and item, {len(look.asked.rows):,} users of the test."
    return Section(
        "Scores",
        says,
        [Picture(_png(plots.histograms, found, look.run.config.model.similarity), caption)],
    )


def index_tradeoff(look: Look) -> Section:
    """What the index loses against exact search, and what more or less effort would cost."""
    found, info = probes.timings(look.run), look.run.need("build_index").info
    tried = [
        (
            f"{trial['kind']} {trial['settings']}",
            f"{trial['recall']:.4f}",
            f"{1000 / trial['queries_per_s']:.4f}",
        )
        for trial in info.get("tried", [])
    ]
    rows = [
        (
            f"{each.label}{' (served)' if each.served else ''}",
            f"{each.recall:.4f}",
            f"{each.ms:.4f}",
        )
        for each in found
    ]
    head = ("index", "share of exact search's items", "ms a query")
    tables = [Table(head, rows, "Measured for this page", numbers=True)]
    tables += (
        [Table(head, tried, "Measured when the index was chosen (auto)", numbers=True)]
        if tried
        else []
    )
    exact = (
        "Exact search loses nothing; the line is what inverted lists over the same vectors would do."
        if found[0].label == "faiss_flat"
        else ""
    )
    says = [
        f"{probes.TIMED} users at most ask for {measure.K} items each, all at once, the best of three times.",
        exact,
    ]
    points = [(each.label, each.recall, each.ms, each.served) for each in found]
    return Section(
        "Index: recall against latency",
        [each for each in says if each],
        [Picture(_png(plots.tradeoff, points), "Up and left is better.")],
        tables,
    )


def embedding_map(look: Look) -> Section:
    """Items on the plane of their first two principal components."""
    look.run.need("export_embeddings")
    found = probes.item_map(look.run)
    drawn = _png(plots.plane, found.places, found.colours, found.name)
    caption = f"{len(found.places):,} items by two principal components, {found.shown:.0%} of the variance; coloured by {found.name}."
    return Section(
        "Map of the items",
        [
            "Items that suit the same users lie together; colours that mix are told apart by something else."
        ],
        [Picture(drawn, caption)],
    )


def nearest(look: Look) -> Section:
    """The items nearest to a few others."""
    look.run.need("export_embeddings")
    vectors, (ids, columns) = (
        np.load(look.run.step("export_embeddings") / ITEM_EMBEDDINGS_FILE, mmap_mode="r"),
        probes.described(look.run),
    )
    counts = look.window.train.counts()
    chosen = probes.spread(counts, LOOKED_AT)
    near, how = probes.neighbours(vectors, chosen, NEIGHBOURS)
    name = partial(_item, ids, columns)
    rows = [
        (
            f"{name(item)} ({counts[item]:,} clicks)",
            [
                (f"{name(other)} {score:.2f}", False)
                for other, score in zip(others, scores, strict=True)
            ],
        )
        for item, others, scores in zip(chosen, near, how, strict=True)
    ]
    says = [
        "From the most clicked item to the least. Neighbours that no person would put together are worth a look at the features."
    ]
    return Section(
        "Nearest neighbours", says, tables=[Table(("item", "nearest, with their similarity"), rows)]
    )


def users(look: Look) -> Section:
    """A few users: what they took, what they got, what they clicked of it."""
    found = probes.examples(
        look.run, look.asked, look.window.warm, look.run.config, EXAMPLES, SHOWN
    )
    name = partial(_item, *probes.described(look.run))
    rows = [
        (
            str(each.user),
            [(name(item), False) for item in each.history[::-1]],
            [
                (name(item), bool(hit))
                for item, hit in zip(each.recalled, each.hits, strict=True)
                if item >= 0
            ],
            f"{each.found} of {each.relevant}",
        )
        for each in found
    ]
    k = look.run.config.gate.k
    says = [
        f"From the best answered user to the worst, evenly by {look.key}. Marked: clicked in the test."
    ]
    head = (
        "user",
        f"newest of the history, up to {SHOWN}",
        f"first {SHOWN} recalled",
        f"found in {k}",
    )
    return Section("Users", says, tables=[Table(head, rows)])


def _item(ids: Any, columns: Any, row: int) -> str:
    """An item as people know it: its id and its first columns."""
    if columns is None:
        return str(ids[row])
    told = [
        str(value) for value in columns.iloc[row].tolist() if value is not None and value == value
    ]
    return (
        f"{ids[row]} [{', '.join(text if len(text) <= 30 else text[:29] + '…' for text in told)}]"
        if told
        else str(ids[row])
    )


def settings(look: Look) -> Section:
    """Every setting of the run."""
    flat = flatten(look.run.config.model_dump(mode="json"))
    rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in flat.items()]
    return Section(
        "Settings",
        tables=[Table(("setting", "value"), rows, f"All {len(rows)} settings", folded=True)],
    )


SECTIONS: dict[str, Callable[[Look], Section]] = {
    "The flow": flow,
    "The data": data_checks,
    "Against the champion's window": champions_window,
    "Training": training,
    "Recall": recall_curves,
    "Slices": slices,
    "Calibration of sampling probabilities": sampling,
    "Scores": score_distributions,
    "Index: recall against latency": index_tradeoff,
    "Map of the items": embedding_map,
    "Nearest neighbours": nearest,
    "Users": users,
    "Settings": settings,
}


def _png(draw: Callable[..., None], *given: Any) -> str:
    """A picture as base64."""
    buffer = io.BytesIO()
    draw(*given, buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(scores: Mapping[str, Any], key: str) -> str:
    dot = _dot(scores, key)
    return f"{dot[1]:.3f} to {dot[2]:.3f}" if dot else ""
