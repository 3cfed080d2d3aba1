"""What a person who decides on a version wants to see: the challenger beside the champion, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dssm_core import drift
from dssm_core.artifacts import JSON, Run
from dssm_core.gate import metric
from dssm_core.registry import CHAMPION, DAY, ROWS, Registered
from dssm_core.slices import TITLES

VOLUMES = {"train": "train rows", "test": "test rows"}


def body(run: Run, store: Registered) -> str:
    """The review of a registered run's version against today's champion of `store`.

    The champion's recall is of its own bundle on this run's queries, as its gate measured it; its volumes are those it was trained on.
    """
    made, gate, key = run.need("register_model").info, run.need("recall_gate").info, metric(run.config.gate)
    number = store.aliases().get(CHAMPION)
    tags = store.tags(number) if number else {}
    judged = gate["metrics"].get("champion", {})
    theirs = judged if judged.get("version") == number else {}  # promoted since: not asked the same queries
    head = f"**{made['model']} version {made['version']}**, tested on {run.config.split.title}"
    against = f" against champion version {number}, tested on {tags.get(DAY, '?')}" if number else ": there is no champion yet"
    parts = [head + against, _table(_numbers(run, gate["metrics"], theirs, tags, key), number), _parts(gate["metrics"], theirs, key)]
    return "\n\n".join([*filter(None, parts), "\n".join(f"- {reason}" for reason in gate["reasons"])])


def _numbers(run: Run, metrics: JSON, theirs: JSON, tags: Mapping[str, str], key: str) -> list[tuple[str, str, str]]:
    """Rows of (what, challenger's, champion's)."""
    served, k = metrics["served"], run.config.gate.k
    rows = [(key, _interval(served, key), _interval(theirs, key))]
    if rolled := metrics.get("rolling"):
        rolling = _interval(rolled["warm"]["served"], key), _interval(theirs.get("rolling", {}), key)
        rows.append((f"{key}, refreshed every {rolled['refresh_h']} h", *rolling))
    rows += [(name, _share(served.get(name)), _share(theirs.get(name))) for name in (f"ndcg@{k}", f"coverage@{k}")]
    exact, index = metrics["exact"].get(key), run.need("build_index").info
    rows.append(("index keeps of exact search", _share(served[key] / exact if exact else None), ""))
    rows.append(("index, ms a query", f"{1000 / index['queries_per_s']:.3f}" if index.get("queries_per_s") else "", ""))
    counts = run.need("split_by_time").rows
    rows += [(title, f"{counts[name]:,}", _volume(tags.get(ROWS + name), counts[name])) for name, title in VOLUMES.items()]
    rows += [(what, value, "") for what, value in drift.told(theirs.get("drift", {}))]
    best = {name: scores.get(key) for name, scores in metrics["baselines"].items()}
    return rows + [(f"baseline {name}", _share(value), "") for name, value in best.items()]


def _parts(metrics: JSON, theirs: JSON, key: str) -> str:
    ours, champions = metrics.get("parts", {}), theirs.get("parts", {})
    rows = [
        (f"{title} ({ours[name]['queries']:,})", _interval(ours[name], key), _interval(champions.get(name, {}), key))
        for name, title in TITLES.items()
        if name in ours
    ]
    return _lines(f"{key} of a part (queries)", rows, "champion") if rows else ""


def _table(rows: Iterable[tuple[str, str, str]], number: str | None) -> str:
    return _lines("", rows, f"champion {number}" if number else "champion")


def _lines(title: str, rows: Iterable[tuple[str, str, str]], champion: str) -> str:
    return "\n".join([f"| {title} | challenger | {champion} |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def _interval(scores: Mapping[str, Any], key: str) -> str:
    value, low, high = (scores.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    return _share(value) + (f" ({low:.3f} to {high:.3f})" if value is not None and low is not None and high is not None else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _volume(theirs: str | None, ours: int) -> str:
    """The champion's count, and how far it lies from ours."""
    return f"{int(theirs):,} ({ours / int(theirs) - 1:+.0%} since)" if theirs and int(theirs) else ""
