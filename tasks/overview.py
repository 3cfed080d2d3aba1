"""The page "Retrieval" in Airflow's menu: for each model, which version is champion and since when,
its recall day by day, the age of its data and its index, drift, what waits for a decision, and the
last failures.

It reads the history of decisions in the runs folder, and MLflow. A plugin imports it, so it imports
little at the top.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import mlflow_api
from tasks.settings import refreshed_folder, runs_folder

PREFIX = "dssm-"  # of registered models: the rest is the name of the experiment
DAY_TAG, DECISION_TAG, VERSION_TAG = "dssm.test_day", "dssm.decision.action", "dssm.version"
PARENT_TAG = "mlflow.parentRunId"  # of the trials of a sweep
DRIFT, LIMIT = "window/drift_", "validation.drift.warn."  # metrics of the last day, settings
DAYS, FAILURES, RUNS = 30, 5, 500
WIDTH, HEIGHT = 560, 150  # of the plot, in pixels
LINES = {"": "served", "_best_baseline": "best baseline", "_champion": "champion then"}


async def overview() -> dict[str, Any]:
    """What the page shows: the models, and the problem if MLflow does not answer."""
    try:
        found = await mlflow_api.ask("registered-models/search", "GET", max_results=100)
        runs = await mlflow_api.newest_runs("", RUNS)
        models = [
            await _model(each, runs)
            for each in found.get("registered_models", [])
            if each["name"].startswith(PREFIX)
        ]
        return {"models": models, "failures": _failures(runs), "problem": ""}
    except mlflow_api.NoAnswer as error:
        return {"models": [], "failures": [], "problem": str(error)}


async def _model(entity: Mapping[str, Any], runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    name = entity["name"]
    aliases = {each["alias"]: each["version"] for each in entity.get("aliases", [])}
    champion, previous = aliases.get("champion", ""), aliases.get("previous_champion", "")
    query = {"filter": f"name = '{name}'", "max_results": 100}
    answer = await mlflow_api.ask("model-versions/search", "GET", **query)
    tags = {
        each["version"]: {tag["key"]: tag["value"] for tag in each.get("tags", [])}
        for each in answer.get("model_versions", [])
    }
    day, refreshed = tags.get(champion, {}).get(DAY_TAG, ""), _refreshed(name, champion)
    waiting = [number for number, own in tags.items() if DECISION_TAG not in own]
    return {
        "name": name,
        "champion": champion,
        "page": mlflow_api.version_page(name, champion),
        "day": day,
        "day_age": age(day),
        "previous": previous,
        "previous_day": tags.get(previous, {}).get(DAY_TAG, ""),
        "reign": _reign(name, champion),
        "refreshed": refreshed,
        "refreshed_age": age(refreshed),
        "drift": _drift(runs, name.removeprefix(PREFIX)),
        "waiting": sorted(waiting, key=int),
        "plot": plot(_by_day(runs, f"{name}/")),
    }


def age(moment: str) -> str:
    """How long ago a day or a moment was, in hours or days; empty for a text that is neither, such
    as the title of a split by users.
    """
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return ""
    passed = datetime.now(UTC) - (at if at.tzinfo else at.replace(tzinfo=UTC))
    hours = round(passed.total_seconds() / 3600)
    number, unit = (hours, "hour") if hours < 48 else (passed.days, "day")
    return f"{number:,} {unit}{'' if number == 1 else 's'} ago"


def _reign(model: str, champion: str) -> dict[str, str]:
    """Since when, by whom and why the version is champion; empty if the history does not know."""
    from dssm_core.operation.history import history, reigns

    found = reigns(history(model, runs_folder()))
    if not found or found[-1].version != champion:
        return {}
    since = f"{found[-1].since:%Y-%m-%d %H:%M} UTC"
    return {"since": since, "by": found[-1].by, "reason": found[-1].reason}


def _refreshed(model: str, champion: str) -> str:
    """The time as of which the champion's index was refreshed last; empty if it never was."""
    file = Path(refreshed_folder()) / model / "current" / "lineage.json"
    lineage = json.loads(file.read_bytes()) if file.is_file() else {}
    return str(lineage["as_of"]) if lineage.get("version") == champion else ""


def _drift(runs: Sequence[dict[str, Any]], experiment: str) -> dict[str, Any]:
    """How the last day of the newest checked window differs from the days before it: each measure
    with the limit of its warning. Empty if no window was checked.
    """
    for run in runs:  # newest first
        tags, metrics = mlflow_api.pairs(run, "tags"), mlflow_api.pairs(run, "metrics")
        measured = {
            name.removeprefix(DRIFT): value
            for name, value in metrics.items()
            if name.startswith(DRIFT)
        }
        if run["experiment"] == experiment and PARENT_TAG not in tags and measured:
            limits = mlflow_api.pairs(run, "params")
            measures = [
                _measure(name, value, limits.get(LIMIT + name, "None"))
                for name, value in sorted(measured.items())
            ]
            return {"day": tags.get(DAY_TAG, ""), "measures": measures}
    return {}


def _measure(name: str, value: float, limit: str) -> dict[str, Any]:
    """A measure of drift in words, and whether it exceeds the limit of the setting, a number or
    `None`.
    """
    above = limit != "None" and value > float(limit)
    text = f"{name.replace('_', ' ')} {value:.2f}" + (f" (more than {limit})" if above else "")
    return {"text": text, "above": above}


def _by_day(runs: Sequence[dict[str, Any]], version: str) -> list[tuple[str, dict[str, float]]]:
    """The headline recalls of the newest registered run of each test day, oldest day first.

    version: what the tag of the version begins with.
    """
    newest: dict[str, dict[str, float]] = {}
    for run in runs:  # newest first
        tags, metrics = mlflow_api.pairs(run, "tags"), mlflow_api.pairs(run, "metrics")
        k = mlflow_api.pairs(run, "params").get("gate.k", "200")
        recall = f"{mlflow_api.HEADLINE}recall_at_{k}"
        if tags.get(VERSION_TAG, "").startswith(version) and recall in metrics:
            values = {
                title: metrics[recall + of] for of, title in LINES.items() if recall + of in metrics
            }
            newest.setdefault(tags.get(DAY_TAG, ""), values)
    return sorted(newest.items())[-DAYS:]


def plot(days: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Lines of recall by day for an SVG: points `x,y` in pixels, and the newest values.

    days: the values of each day by line, oldest first.
    """
    step = WIDTH / max(1, len(days) - 1)
    lines = []
    for title in LINES.values():
        points = [
            (number * step, HEIGHT * (1 - values[title]))
            for number, (_, values) in enumerate(days)
            if title in values
        ]
        if points:
            drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            value = f"{1 - points[-1][1] / HEIGHT:.3f}"
            lines.append({"title": title, "points": drawn, "last": points[-1], "value": value})
    names = [day for day, _ in days]
    return {"lines": lines, "first": names[0] if names else "", "last": names[-1] if names else ""}


def _failures(runs: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The newest failed runs: name, page and the first line of the error."""
    failed = [run for run in runs if run["info"]["status"] == "FAILED"][:FAILURES]
    return [
        {
            "name": mlflow_api.name_of(run),
            "page": mlflow_api.page_of(run),
            "error": mlflow_api.pairs(run, "tags").get("error", "").partition("\n")[0],
        }
        for run in failed
    ]


def page(found: Mapping[str, Any]) -> str:
    """The page as HTML; everything in it is escaped."""
    return mlflow_api.render("overview.html", **found, width=WIDTH, height=HEIGHT)
