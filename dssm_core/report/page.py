"""The report of a run: one HTML page with the steps, the verdict, and a look at model, data, index.

The page loads no script, font or picture from elsewhere. A section that has nothing to show says
why, and a section that fails costs only itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.data.splits.days import Days
from dssm_core.errors import ArtifactError
from dssm_core.evaluation.answers import ServedRun, open_served
from dssm_core.evaluation.queries import EvaluationData
from dssm_core.gate.rules import judged
from dssm_core.report.parts import Absent, ReportSection, render_page
from dssm_core.report.sections import flow, quality, retrieval
from dssm_core.report.subject import Subject
from dssm_core.report.text import NOT_COMPARABLE, figure
from dssm_core.runs.files import write_atomically
from dssm_core.runs.gate_report import SERVED, Difference
from dssm_core.runs.run import Run
from dssm_core.tracking.origin import dag_run_of

log = logging.getLogger(__name__)

SECTIONS: dict[str, Callable[[Subject], ReportSection]] = {
    "Steps": flow.steps,
    "Data": flow.data_checks,
    "Data since the champion": flow.champion_days,
    "Training": quality.training,
    "Recall": quality.recall,
    "Slices": quality.slices,
    "Calibration of sampling probabilities": retrieval.sampling,
    "Scores": retrieval.scores,
    "Index: recall against latency": retrieval.index_tradeoff,
    "Item map": retrieval.embedding_map,
    "Nearest neighbours": retrieval.nearest_items,
    "Users": retrieval.users,
    "Numbers": quality.numbers,
    "Settings": flow.settings,
}


def write(
    run: Run,
    gate: Path,
    file: Path,
    opened: ServedRun | None = None,
    data: EvaluationData | None = None,
) -> Path:
    """Write the report of a run to `file` and return it.

    gate: the folder of gate.json and curves.json, if there are any. opened, data: of the run, where
    the caller has them already.
    """
    started = time.perf_counter()
    if opened is None:
        with open_served(run) as served:
            text = render(Subject(served, gate, data))
    else:
        text = render(Subject(opened, gate, data))
    write_atomically(file, text.encode())
    seconds = time.perf_counter() - started
    log.info("%s: %.1f MB in %.1f s", file.name, len(text) / 1e6, seconds)
    return file


def render(subject: Subject) -> str:
    """The page as HTML; everything that comes from data is escaped."""
    sections = [_section(title, make, subject) for title, make in SECTIONS.items()]
    config = subject.run.config
    return render_page(
        title=f"{config.name}, {config.split.title}",
        subtitle=_subtitle(subject.run),
        dag_run=dag_run_of(subject.run),
        sections=sections,
        verdict=_verdict(subject),
        cards=_cards(subject) if subject.report else [],
    )


def _section(
    title: str, make: Callable[[Subject], ReportSection], subject: Subject
) -> ReportSection:
    try:
        return make(subject)
    except (Absent, ArtifactError) as error:
        return ReportSection(title, absent=f"Nothing to show: {error}.")
    except Exception as error:  # no section is worth the rest of the page
        log.warning("report: section %r failed: %s", title, error)
        return ReportSection(title, absent=f"This section failed: {error}")


def _subtitle(run: Run) -> str:
    config = run.config
    split = config.split
    days = split.title
    if isinstance(split, Days):
        test_day = split.days[split.train_days]
        days = f"tested on {test_day}, trained on the {split.train_days} days before"
    members = (
        f"towers {config.tower.kind}, loss {config.loss.kind}, sampler {config.sampler.kind}, "
        f"index {config.index.kind}"
    )
    return f"Model {config.model_name}, {days} · {members} · seed {config.seed} · run {run.id}"


def _verdict(subject: Subject) -> JSON:
    """The verdict and its reasons, for the template."""
    report = subject.report
    if report is None:
        return {"kind": "", "says": "The gate has not run yet.", "reasons": []}
    if report.passed:
        says = "The gate passed: the model may be registered."
    else:
        says = "The gate did not pass the model: it is not registered, and the champion stays."
    kind = "passed" if report.passed else "not-passed"
    return {"kind": kind, "says": says, "reasons": report.marked}


def _cards(subject: Subject) -> list[tuple[str, str]]:
    """The main numbers of the run, as (title, value)."""
    metric = subject.metric
    gate = subject.run.config.gate
    answers, label = judged(subject.metrics, gate)
    cards = [(f"{label}, {SERVED}", figure(answers.served.value(metric)))]
    best = answers.best_baseline(metric)
    if best is not None:
        cards.append((f"best baseline: {best}", figure(answers.baselines[best].value(metric))))
        cards += _gain(subject.metrics.against_baseline)
    if champion := subject.metrics.champion:
        value = figure(champion.of(gate.protocol, gate.population).value(metric))
        value = NOT_COMPARABLE if champion.not_comparable else value
        cards.append((f"champion, version {champion.version}", value))
        cards += _gain(subject.metrics.against_champion)
    else:
        cards.append(("champion", "none yet"))
    rows = _rows(subject.run, "split_by_time")
    cards += [(f"{part} rows", f"{rows[part]:,}") for part in ("train", "test") if part in rows]
    if items := _rows(subject.run, "export_embeddings").get("items"):
        cards.append(("items in the index", f"{items:,}"))
    return cards


def _gain(difference: Difference | None) -> list[tuple[str, str]]:
    """A card of what is served minus a rival; none if it was not measured."""
    if difference is None:
        return []
    level = f"{100 * difference.confidence:g}"
    bounds = f"{difference.low:+.3f} to {difference.high:+.3f}"
    title = f"gain over {difference.rival}, paired {level} % interval {bounds}"
    return [(title, f"{difference.mean:+.3f}")]


def _rows(run: Run, step: str) -> dict[str, int]:
    manifest = run.manifest(step)
    return manifest.rows if manifest else {}
