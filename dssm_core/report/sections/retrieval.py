"""What the model and its index look like: sampling, scores, index, items, users."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import LOSSES
from dssm_core.report import plots
from dssm_core.report.diagnostics.calibration import calibration
from dssm_core.report.diagnostics.index_timing import TIMED_QUERIES, timings
from dssm_core.report.diagnostics.items import describe_items, item_map, neighbours, spread
from dssm_core.report.diagnostics.queries import examples, similarities
from dssm_core.report.parts import Absent, ReportSection, ReportTable, picture
from dssm_core.report.subject import Subject
from dssm_core.retrieval.indexes import measure

NEIGHBOURS = 5  # of each item
ITEMS_SHOWN = 6
USERS_SHOWN = 6
LIST_LENGTH = 10  # items shown of a history and of a list
LABEL_LENGTH = 30  # characters of a column's value


def sampling(subject: Subject) -> ReportSection:
    """Whether negatives are drawn as often as the log-Q correction assumes."""
    subject.run.need("sample_negatives")
    found = calibration(subject.run)
    if found is None:
        raise Absent("the loss compares with every item, so that no negatives are drawn")
    says = [
        f"Sampler {subject.run.config.sampler.kind} at its last refresh. The number of draws is"
        f" within two standard deviations of the plan for {found.inside:.1%} of the items; about"
        f" 95 % is expected. The total variation between plan and draws is {found.distance:.3f};"
        f" chance alone gives {found.chance:.3f}.",
        _use_of_probabilities(subject.run.config),
    ]
    caption = "One dot for each item. On the line, an item is drawn as often as planned."
    table = pd.DataFrame({"planned probability": found.planned, "share of draws": found.drawn})
    drawn = picture(caption, table, plots.calibration, found.planned, found.drawn, found.draws)
    return ReportSection("Calibration of sampling probabilities", says, [drawn])


def _use_of_probabilities(config: Config) -> str:
    """What the loss of a run does with the planned probabilities."""
    if getattr(families.build(LOSSES, config.loss), "log_q", False):
        return (
            f"The loss {config.loss.kind} corrects its logits by the logarithm of the planned"
            " probability (loss.log_q). If the draws follow another probability, popular items"
            " rank too high or too low everywhere."
        )
    return (
        f"The loss {config.loss.kind} does not correct for the planned probabilities: items that"
        " are drawn more often are pushed down more."
    )


def scores(subject: Subject) -> ReportSection:
    """How far the scores of clicked items lie above those of other items."""
    k = subject.run.config.gate.k
    similarity = subject.run.config.model.similarity
    found, reached = similarities(subject.sample, subject.data.warm, k, subject.run.config.seed)
    says = [
        f"{reached:.1%} of the clicked items score at least as high as the item at position {k} of"
        " their user's list."
    ]
    caption = f"The {similarity} of user and item for {len(subject.sample.rows):,} test queries."
    table = pd.concat(
        [pd.DataFrame({"of": name, similarity: values}) for name, values in found.items()]
    )
    drawn = picture(caption, table, plots.histograms, found, similarity)
    return ReportSection("Scores", says, [drawn])


def index_tradeoff(subject: Subject) -> ReportSection:
    """What the index loses against exact search, and what other search efforts cost."""
    found = timings(subject.opened)
    info = subject.run.need("build_index").info
    rows = [
        (
            f"{timing.label} (served)" if timing.served else timing.label,
            f"{timing.recall:.4f}",
            f"{timing.ms:.4f}",
        )
        for timing in found
    ]
    head = ("index", "recall against exact search", "ms per query")
    tables = [ReportTable(head, rows, "Measured for this report", numbers=True)]
    tried = [
        (
            f"{trial['kind']} {trial['settings']}",
            f"{trial['recall']:.4f}",
            f"{1000 / trial['queries_per_s']:.4f}",
        )
        for trial in info.get("tried", [])
    ]
    if tried:
        caption = "Measured when index.kind auto chose the index"
        tables.append(ReportTable(head, tried, caption, numbers=True))
    says = [
        f"Up to {TIMED_QUERIES} queries ask for {measure.K} items each, in one batch; the fastest"
        " of three passes, after one that is not timed, counts."
    ]
    if found[0].exact:
        says.append(
            "The served index is exact search, which loses nothing. The line shows inverted lists"
            " over the same vectors."
        )
    points = [(timing.label, timing.recall, timing.ms, timing.served) for timing in found]
    columns = ["index", "recall against exact search", "ms per query", "served"]
    table = pd.DataFrame(points, columns=columns)
    drawn = picture("Up and to the left is better.", table, plots.tradeoff, points)
    return ReportSection("Index: recall against latency", says, [drawn], tables)


def embedding_map(subject: Subject) -> ReportSection:
    """The items on the plane of their first two principal components."""
    subject.run.need("export_embeddings")
    found = item_map(subject.opened)
    caption = (
        f"{len(found.positions):,} items on two principal components, which hold {found.shown:.0%}"
        f" of the variance; coloured by {found.name}."
    )
    says = [
        "Items for the same users lie close together. Where colours mix, the embeddings separate"
        " items by something else than the coloured feature."
    ]
    table = pd.DataFrame(found.positions, columns=["first component", "second component"])
    table[found.name] = found.colours
    drawn = picture(caption, table, plots.plane, found.positions, found.colours, found.name)
    return ReportSection("Item map", says, [drawn])


def nearest_items(subject: Subject) -> ReportSection:
    """The nearest items of a few items."""
    subject.run.need("export_embeddings")
    counts = subject.data.train.counts()
    chosen = spread(counts, ITEMS_SHOWN)
    near, similarity = neighbours(subject.opened.items, chosen, NEIGHBOURS)
    label = partial(_label, *describe_items(subject.run))
    rows = []
    for item, others, values in zip(chosen, near, similarity, strict=True):
        cells = [
            (f"{label(other)} {value:.2f}", False)
            for other, value in zip(others, values, strict=True)
        ]
        clicks = f"{counts[item]:,} click{'' if counts[item] == 1 else 's'}"
        rows.append((f"{label(item)} ({clicks})", cells))
    says = [
        "From the most clicked item to the least clicked. If neighbours have nothing in common,"
        " check the features."
    ]
    table = ReportTable(("item", "nearest items with their similarity"), rows)
    return ReportSection("Nearest neighbours", says, tables=[table])


def users(subject: Subject) -> ReportSection:
    """A few users: their history, their list, and what they clicked of it."""
    found = examples(subject.opened, subject.sample, subject.data.warm, USERS_SHOWN, LIST_LENGTH)
    label = partial(_label, *describe_items(subject.run))
    rows = []
    for example in found:
        history = [(label(item), False) for item in example.history[::-1]]
        recalled = [
            (label(item), bool(hit))
            for item, hit in zip(example.recalled, example.hits, strict=True)
            if item >= 0
        ]
        rows.append((str(example.user), history, recalled, f"{example.hit} of {example.relevant}"))
    says = [
        f"From the user with the best {subject.metric} to the user with the worst, at even steps."
        " Items that the user clicked in the test set are marked."
    ]
    head = (
        "user",
        f"newest of the history, up to {LIST_LENGTH}",
        f"first {LIST_LENGTH} of the list",
        f"clicked items in the first {subject.run.config.gate.k}",
    )
    return ReportSection("Users", says, tables=[ReportTable(head, rows)])


def _label(ids: Any, columns: Any, row: int) -> str:
    """An item for people: its id and the values of its first columns."""
    if columns is None:
        return str(ids[row])
    values = columns.iloc[row].tolist()
    texts = [str(value) for value in values if value is not None and value == value]
    if not texts:
        return str(ids[row])
    return f"{ids[row]} [{', '.join(map(_shortened, texts))}]"


def _shortened(text: str) -> str:
    return text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…"
