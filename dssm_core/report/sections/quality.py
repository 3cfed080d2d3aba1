"""How well the model trained, and how well the served index recalls."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pandas as pd

from dssm_core.aliases import Doubles
from dssm_core.evaluation.slices import TITLES
from dssm_core.report import plots
from dssm_core.report.headline import every_number
from dssm_core.report.parts import Absent, Picture, ReportSection, ReportTable, picture
from dssm_core.report.subject import Subject
from dssm_core.report.text import interval, share
from dssm_core.runs.gate_report import FEWEST_QUERIES, POPULATIONS, Scores
from dssm_core.runs.layout import CURVES_FILE, HISTORY_FILE
from dssm_core.tracking.points import is_number
from dssm_core.training.notes import few_events, sources_sentence, weights_sentence

TRAINING_INFO = {
    "best_epoch": "epochs",
    "parameters": "parameters",
    "temperature": "temperature",
    "device": "device",
    "started_from": "started from",
}

Dot = tuple[float, float, float]  # value, low, high


def training(subject: Subject) -> ReportSection:
    """Loss and validation metric by step."""
    info = subject.run.need("train_towers").info
    file = subject.run.step("train_towers") / HISTORY_FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    history = [json.loads(line) for line in lines if line]
    if not history:
        raise Absent("the training step wrote no history")
    facts = [
        f"{title}: {info[name]:,}" if isinstance(info[name], int) else f"{title}: {info[name]}"
        for name, title in TRAINING_INFO.items()
        if name in info
    ]
    start = info.get("started_from")
    drawn = picture(
        phases(subject.run.config.train.refit, start),
        pd.DataFrame(history),
        plots.loss_curve,
        history,
    )
    return ReportSection("Training", [", ".join(facts), *_events(subject)], [drawn])


def phases(refit: bool, start: str | None) -> str:
    """What the phases of a training are, as the caption of its curve. start: the registered model
    whose weights each of them starts from.
    """
    select = "The number of epochs is selected on the last training days"
    if refit:
        weights = f"the weights of {start} again" if start else "new weights"
        second = f"; then both towers are trained on all training days, from {weights}."
    else:
        second = ", and the towers of the best epoch are kept (train.refit is off)."
    first = f", from the weights of {start}" if start else ""
    return f"Training loss and validation metric by step. {select}{first}{second}"


def _events(subject: Subject) -> list[str]:
    """How many positives are training events, and what may make the model better; nothing for a run
    of an older version.
    """
    manifest = subject.run.need("train_towers")
    if "left_out" not in manifest.info:
        return []
    says = few_events(manifest.rows["events"], manifest.info["left_out"])
    notes = [note for note in manifest.info["notes"] if not note.startswith(says)]
    if weights := manifest.info.get("weights"):
        notes.append(f"The {weights_sentence(weights)}.")
    samples = subject.run.manifest("sample_negatives")
    if samples and (sources := samples.info.get("drawn_from")):
        notes.append(f"The {sources_sentence(sources)}.")
    return [f"{says}.", *notes]


def recall(subject: Subject) -> ReportSection:
    """Recall of every answerer, by list length."""
    gate = subject.run.config.gate
    says = [f"The gate compares the figures of {POPULATIONS[gate.population]} (gate.population)."]
    if relevant := subject.run.config.split.relevant:
        says.append(
            f"Of the positives of the test set, those with {relevant} should be found"
            " (split.relevant). All positives of the training set are trained on, and choose the"
            " number of epochs."
        )
    counts = subject.metrics.queries
    new_users = subject.metrics.parts.get("new_users")
    if counts and new_users and new_users.queries == counts.all:
        says.append(_sessions(subject))
    if subject.metrics.sample:
        says.append(
            f"All figures are of {subject.metrics.sample} (evaluation.max_users). Every answerer"
            " got the same queries. The intervals say how far the figures of all users may be away."
        )
    champion = subject.metrics.champion
    if champion is None:
        says.append("There is no champion to compare with yet.")
    elif champion.not_comparable:
        says.append(
            f"Champion version {champion.version} is not comparable: {champion.not_comparable}."
        )
    tables = [_recall_table(subject, name) for name in POPULATIONS]
    tables = [table for table in tables if table.rows]
    return ReportSection("Recall", says, _recall_picture(subject), tables)


def _sessions(subject: Subject) -> str:
    """What a query is where the test set has new users only."""
    asked = (
        "It is asked with the context of its first event, and without a history"
        if subject.run.config.features.first_context
        else "It is asked without a context (features.first_context) and without a history"
    )
    return (
        "No user of the test set has a positive in the training set, as where users are sessions:"
        " a figure is a mean over sessions. A session is a query with all of its positives."
        f" {asked}."
    )


def _recall_table(subject: Subject, population: str) -> ReportTable:
    """The figures of every answerer on a population."""
    metrics = subject.metrics
    gate = subject.run.config.gate
    others = [f"ndcg@{gate.k}", f"coverage@{gate.k}"]
    columns = metrics.served.recalls + [name for name in others if name in metrics.served.root]
    rows = [
        (name, *(share(scores.value(column)) for column in columns), interval(bounds))
        for name, scores in metrics.systems(population).items()
        for bounds in [scores.interval(gate.metric)]
    ]
    counts = metrics.queries.as_json() if metrics.queries else {}
    queries = f": {counts[population]:,} queries" if population in counts else ""
    caption = f"{POPULATIONS[population].capitalize()}{queries}"
    head = ("", *columns, f"95 % interval of {gate.metric}")
    return ReportTable(head, rows, caption, numbers=True)


def curves(subject: Subject) -> dict[str, tuple[Doubles, Doubles]]:
    """Recall by list length and its standard error, [K] each, by answerer.

    Empty for a run of an older version that has no curves.
    """
    file = subject.gate / CURVES_FILE
    stored = json.loads(file.read_bytes()) if file.is_file() else {}
    return {
        name: (np.array(curve["mean"]), np.array(curve["error"])) for name, curve in stored.items()
    }


def _recall_picture(subject: Subject) -> list[Picture]:
    by_answerer = curves(subject)
    if not by_answerer:
        return []
    counts = subject.metrics.queries
    queries = f"{counts.warm or counts.all:,} queries" if counts else "queries"
    population = POPULATIONS["all" if counts and not counts.warm else "warm"]
    caption = (
        f"Recall@k by list length k: mean over {queries} of {population}. Bands: 95 % intervals of"
        " the mean."
    )
    draw = partial(plots.recall_curve, mark_k=subject.run.config.gate.k)
    columns = {
        f"{name}{of}": pd.Series(values)
        for name, curve in by_answerer.items()
        for of, values in zip(("", ", standard error"), curve, strict=True)
    }
    table = pd.DataFrame(columns)
    table.insert(0, "k", np.arange(1, len(table) + 1))
    return [picture(caption, table, draw, by_answerer)]


def slices(subject: Subject) -> ReportSection:
    """Slices of users and items, which the mean hides."""
    metrics = subject.metrics
    if not metrics.parts:
        raise Absent("the test rows were not divided into slices")
    champion = metrics.champion
    names = ["this run", *(["champion"] if champion and champion.parts else [])]
    count = metrics.queries.warm if metrics.queries else 0
    whole = [_dot(metrics.served, subject.metric)]
    whole += [_dot(champion.scores, subject.metric)] if champion else []
    rows = [(f"users and items in the training set ({count:,})", whole[: len(names)])]
    few = [name for name, scores in metrics.parts.items() if scores.too_few]
    for name, scores in metrics.parts.items():
        if name in few:
            continue
        theirs = champion.parts.get(name, Scores({})) if champion else Scores({})
        dots = [_dot(scores, subject.metric), _dot(theirs, subject.metric)]
        rows.append((f"{TITLES.get(name, name)} ({scores.queries:,})", dots[: len(names)]))
    caption = (
        f"{subject.metric} of the served index with its 95 % interval; the number of queries is in"
        " brackets. Users are grouped by their clicks in the training set: new users have none,"
        " and are answered by their context or by popular items."
    )
    if few:
        listed = ", ".join(
            f"{TITLES.get(name, name)} ({metrics.parts[name].queries})" for name in few
        )
        caption += f" Not shown, because they have fewer than {FEWEST_QUERIES} queries: {listed}."
    cells = [
        (row, name, *dot)
        for row, dots in rows
        for name, dot in zip(names, dots, strict=True)
        if dot
    ]
    table = pd.DataFrame(cells, columns=["slice (queries)", "model", subject.metric, "low", "high"])
    drawn = picture(caption, table, plots.intervals, rows, names, subject.metric)
    return ReportSection("Slices", pictures=[drawn])


def numbers(subject: Subject) -> ReportSection:
    """All numbers of the run, for those who look for one."""
    if subject.report is None:
        raise Absent("the gate has not run yet")
    every = every_number(subject.run, subject.report)
    rows = [(key, f"{value:,.6g}") for key, value in every.items() if is_number(value)]
    table = ReportTable(("number", "value"), rows, f"{len(rows)} numbers", True, folded=True)
    return ReportSection("Numbers", ["MLflow has them as the artifact metrics.json."], [], [table])


def _dot(scores: Scores, name: str) -> Dot | None:
    """The value and its interval, which is widened to hold the value."""
    value = scores.value(name)
    bounds = scores.interval(name)
    if value is None or bounds is None:
        return None
    return value, min(bounds.low, value), max(bounds.high, value)
