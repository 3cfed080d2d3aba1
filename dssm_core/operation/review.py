"""The review of a version in Markdown: what a person compares before promoting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dssm_core.config import Gate
from dssm_core.data import drift
from dssm_core.evaluation.slices import TITLES
from dssm_core.gate.rules import judged
from dssm_core.registry.versions import CHAMPION, ROWS_TAG, RegisteredModel
from dssm_core.report.headline import rivals_table
from dssm_core.report.text import NOT_COMPARABLE, markdown_table, share, share_with_interval
from dssm_core.runs.gate_report import (
    FEWEST_QUERIES,
    Answers,
    ChampionReport,
    GateMetrics,
    Scores,
    SliceScores,
    read_gate_report,
)
from dssm_core.runs.run import Run
from dssm_core.tracking.runs import TEST_DAY_TAG

Row = tuple[str, str, str]  # what, the challenger's value, the champion's value
VOLUMES = {"train": "train rows", "test": "test rows"}
NOTHING = Scores({})
TOO_FEW = f"too few: fewer than {FEWEST_QUERIES}"


@dataclass(frozen=True)
class _Rival:
    """Today's champion: its version and tags; and its report, where the gate measured it."""

    version: str
    tags: Mapping[str, str]
    report: ChampionReport | None


def body(run: Run, store: RegisteredModel, pages: Mapping[str, str] | None = None) -> str:
    """The review of the version that a run registered, against today's champion of `store`.

    pages: addresses of further pages, by title. The champion's recall is that of its own bundle on
    this run's queries, as the gate measured it; its volumes are those that it was trained on.
    """
    report = read_gate_report(run)
    gate = run.config.gate
    rival = _rival(store, report.metrics)
    links = [f"[{title}]({address})" for title, address in (pages or {}).items()]
    data = [*_volumes(run, rival), *_drift(rival), *_speed(run)]
    parts = [
        _head(run, rival),
        " · ".join(links),
        rivals_table(_against_today(report.metrics, rival), gate),
        "\n".join(f"- {reason}" for reason in report.marked),
        _answers(report.metrics, rival, gate),
        _compared(f"{gate.metric} by slice (queries)", _slices(report.metrics, rival, gate), rival),
        _compared("data and index", data, rival),
    ]
    return "\n\n".join(filter(None, parts))


def subject(run: Run, store: RegisteredModel) -> str:
    """The question of the review in one line, with the numbers that decide it."""
    report = read_gate_report(run)
    gate = run.config.gate
    made = run.need("register_model").info
    rival = _rival(store, report.metrics)
    served = share(judged(report.metrics, gate)[0].served.value(gate.metric))
    parts = [f"{gate.metric} {served}"]
    if rival:
        theirs = rival.report.of(gate.protocol, gate.population) if rival.report else NOTHING
        comparable = not (rival.report and rival.report.not_comparable)
        missing = "not measured" if comparable else NOT_COMPARABLE
        parts.append(f"champion {share(theirs.value(gate.metric)) or missing}")
    question = f"Promote {made['model']} v{made['version']} ({run.config.split.title})?"
    return f"{question} {', '.join(parts)}"


def _rival(store: RegisteredModel, metrics: GateMetrics) -> _Rival | None:
    """Today's champion. One that was promoted after the gate has no report."""
    version = store.aliases().get(CHAMPION)
    if not version:
        return None
    measured = metrics.champion
    report = measured if measured and measured.version == version else None
    return _Rival(version, store.tags(version), report)


def _against_today(metrics: GateMetrics, rival: _Rival | None) -> GateMetrics:
    """The metrics without a champion that is not today's."""
    if rival and rival.report:
        return metrics
    return metrics.model_copy(update={"champion": None, "against_champion": None})


def _head(run: Run, rival: _Rival | None) -> str:
    made = run.need("register_model").info
    head = f"**{made['model']} version {made['version']}**, tested on {run.config.split.title}"
    if rival is None:
        return f"{head}: there is no champion yet"
    note = " (promoted after the gate, not measured on the same queries)"
    if rival.report:
        why = rival.report.not_comparable
        note = f" ({NOT_COMPARABLE}: {why})" if why else ""
    return (
        f"{head}, against champion version {rival.version}, "
        f"tested on {rival.tags.get(TEST_DAY_TAG, '?')}{note}"
    )


def _answers(metrics: GateMetrics, rival: _Rival | None, gate: Gate) -> str:
    """Recall of each answerer on the same queries: a row for each."""
    measured = rival.report if rival else None
    every = f"refreshed every {metrics.rolling.refresh_h} h" if metrics.rolling else ""
    titles = {
        ("daily", "warm"): gate.metric,
        ("rolling", "warm"): every,
        ("daily", "all"): "with new users and items",
        ("rolling", "all"): f"with new users and items, {every}",
    }
    columns = {
        title: _by_name(answers, measured.of(*which) if measured else NOTHING, rival)
        for which, title in titles.items()
        if (answers := metrics.answers(*which))
    }
    others = (f"ndcg@{gate.k}", f"coverage@{gate.k}")
    rows = []
    for name, scores in columns[gate.metric].items():
        recalls = [
            share_with_interval(by_name.get(name, NOTHING), gate.metric)
            for by_name in columns.values()
        ]
        rows.append((name, *recalls, *(share(scores.value(other)) for other in others)))
    return markdown_table(("the same queries", *columns, *others), rows)


def _by_name(answers: Answers, champion: Scores, rival: _Rival | None) -> dict[str, Scores]:
    """Scores by the answerer's title; `champion` in the row of the champion."""
    scores = {"challenger": answers.served}
    if rival:
        scores[f"champion {rival.version}"] = champion
    scores["exact search"] = answers.exact
    return scores | {f"baseline {name}": own for name, own in answers.baselines.items()}


def _slices(metrics: GateMetrics, rival: _Rival | None, gate: Gate) -> list[Row]:
    theirs: Mapping[str, SliceScores] = rival.report.parts if rival and rival.report else {}
    return [
        (
            f"{title} ({metrics.parts[name].queries:,})",
            _of_part(metrics.parts[name], gate.metric),
            _of_part(theirs[name], gate.metric) if name in theirs else "",
        )
        for name, title in TITLES.items()
        if name in metrics.parts
    ]


def _of_part(scores: SliceScores, metric: str) -> str:
    """The metric of a slice with its interval; `too few` where it has too few queries to tell."""
    return TOO_FEW if scores.too_few else share_with_interval(scores, metric)


def _volumes(run: Run, rival: _Rival | None) -> list[Row]:
    counts = run.need("split_by_time").rows
    tags = rival.tags if rival else {}
    return [
        (title, f"{counts[name]:,}", _volume(tags.get(f"{ROWS_TAG}{name}"), counts[name]))
        for name, title in VOLUMES.items()
    ]


def _volume(champion: str | None, ours: int) -> str:
    """The champion's count, and the change since."""
    count = int(champion) if champion else 0
    return f"{count:,} ({ours / count - 1:+.0%} since)" if count else ""


def _drift(rival: _Rival | None) -> list[Row]:
    changes = rival.report.drift if rival and rival.report else {}
    return [(what, value, "") for what, value in drift.describe_change(changes)]


def _speed(run: Run) -> list[Row]:
    queries_per_s = run.need("build_index").info.get("queries_per_s")
    return [("index, ms per query", f"{1000 / queries_per_s:.3f}", "")] if queries_per_s else []


def _compared(title: str, rows: Sequence[Row], rival: _Rival | None) -> str:
    """A table of the challenger's values and, where there is a champion, of its values."""
    if not rows:
        return ""
    head = (title, "challenger", f"champion {rival.version if rival else ''}")
    columns = 3 if rival else 2
    return markdown_table(head[:columns], [row[:columns] for row in rows])
