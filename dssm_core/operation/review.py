"""What a person who decides on a version wants to see: the challenger beside the champion, as
Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dssm_core.aliases import JSON
from dssm_core.config import Gate
from dssm_core.data import drift
from dssm_core.evaluation.slices import TITLES
from dssm_core.gate.judge import metric
from dssm_core.registry.versions import CHAMPION, ROWS_TAG, RegisteredModel
from dssm_core.runs.run import Run
from dssm_core.tracking.runs import TEST_DAY_TAG

Row = tuple[str, str, str]  # what, the challenger's, the champion's
VOLUMES = {"train": "train rows", "test": "test rows"}


def body(run: Run, store: RegisteredModel, pages: Mapping[str, str] | None = None) -> str:
    """The review of a registered run's version against today's champion of `store`. pages:
    addresses to look further, by title.

    The champion's recall is of its own bundle on this run's queries, as its gate measured it; its
    volumes are those it was trained on.
    """
    gate, key, number = (
        run.need("recall_gate").info,
        metric(run.config.gate),
        store.aliases().get(CHAMPION),
    )
    metrics, judged = gate["metrics"], gate["metrics"].get("champion", {})
    theirs = (
        judged if judged.get("version") == number else {}
    )  # promoted since: not asked the same queries
    tags = store.tags(number) if number else {}
    parts = [
        _head(run, number, tags, bool(theirs)),
        " · ".join(f"[{title}]({address})" for title, address in (pages or {}).items()),
        "\n".join(f"- {reason}" for reason in gate["reasons"]),
        _answers(metrics, theirs, number, run.config.gate),
        _beside(f"{key} of a part (queries)", _parts(metrics, theirs, key), number),
        _beside("data and index", [*_volumes(run, tags), *_window(theirs), *_speed(run)], number),
    ]
    return "\n\n".join(filter(None, parts))


def _head(run: Run, number: str | None, tags: Mapping[str, str], asked: bool) -> str:
    made = run.need("register_model").info
    head = f"**{made['model']} version {made['version']}**, tested on {run.config.split.title}"
    if number is None:
        return f"{head}: there is no champion yet"
    since = "" if asked else " (promoted since, not asked the same queries)"
    return (
        f"{head}, against champion version {number}, tested on {tags.get(TEST_DAY_TAG, '?')}{since}"
    )


def _answers(metrics: JSON, theirs: JSON, number: str | None, gate: Gate) -> str:
    """Who finds how much of what the same queries look for: a row for each that was asked."""
    key, rolled = metric(gate), metrics.get("rolling", {})
    asked = {key: _by_name(metrics, theirs, number)}
    asked |= (
        {
            f"refreshed every {rolled['refresh_h']} h": _by_name(
                rolled["warm"], theirs.get("rolling", {}), number
            )
        }
        if rolled
        else {}
    )
    asked |= {"newcomers too": _by_name(metrics["all"], {}, number)} if "all" in metrics else {}
    others = (f"ndcg@{gate.k}", f"coverage@{gate.k}")
    rows = [
        (
            who,
            *(_interval(found.get(who, {}), key) for found in asked.values()),
            *(_share(scores.get(name)) for name in others),
        )
        for who, scores in asked[key].items()
    ]
    return _table(("the same queries", *asked, *others), rows)


def _by_name(scores: JSON, theirs: JSON, number: str | None) -> dict[str, JSON]:
    """Scores by who answered."""
    champion = {f"champion {number}": theirs} if number else {}
    baselines = {f"baseline {name}": each for name, each in scores["baselines"].items()}
    return {
        "challenger": scores["served"],
        **champion,
        "exact search": scores.get("exact", {}),
        **baselines,
    }


def _parts(metrics: JSON, theirs: JSON, key: str) -> list[Row]:
    ours, champions = metrics.get("parts", {}), theirs.get("parts", {})
    return [
        (
            f"{title} ({ours[name]['queries']:,})",
            _interval(ours[name], key),
            _interval(champions.get(name, {}), key),
        )
        for name, title in TITLES.items()
        if name in ours
    ]


def _volumes(run: Run, tags: Mapping[str, str]) -> list[Row]:
    counts = run.need("split_by_time").rows
    return [
        (title, f"{counts[name]:,}", _volume(tags.get(ROWS_TAG + name), counts[name]))
        for name, title in VOLUMES.items()
    ]


def _window(theirs: JSON) -> list[Row]:
    return [(what, value, "") for what, value in drift.describe_change(theirs.get("drift", {}))]


def _speed(run: Run) -> list[Row]:
    queries_per_s = run.need("build_index").info.get("queries_per_s")
    return [("index, ms a query", f"{1000 / queries_per_s:.3f}", "")] if queries_per_s else []


def _beside(title: str, rows: Sequence[Row], number: str | None) -> str:
    """The challenger's numbers and, where there is a champion, its beside them."""
    head = (title, "challenger", f"champion {number}")
    shown = 3 if number else 2
    return _table(head[:shown], [row[:shown] for row in rows]) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def _interval(scores: Mapping[str, Any], key: str) -> str:
    value, low, high = (scores.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    return _share(value) + (
        f" ({low:.3f} to {high:.3f})"
        if value is not None and low is not None and high is not None
        else ""
    )


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _volume(theirs: str | None, ours: int) -> str:
    """The champion's count, and how far it lies from ours."""
    return (
        f"{int(theirs):,} ({ours / int(theirs) - 1:+.0%} since)" if theirs and int(theirs) else ""
    )
