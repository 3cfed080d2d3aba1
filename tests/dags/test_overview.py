"""The page "Retrieval": champion, waiting versions, recall by day, failures, and empty states."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from dssm_core.operation.history import Decision, append, history_file
from tasks import mlflow_api, overview

CHAMPION = {
    "name": "dssm-demo",
    "aliases": [
        {"alias": "champion", "version": "2"},
        {"alias": "previous_champion", "version": "1"},
        {"alias": "challenger", "version": "10"},
    ],
}
DECIDED = {"key": "dssm.decision.action", "value": "promote"}


def run(day, recall, version, status="FINISHED", **more):
    metrics = {"headline/recall_at_50": recall, "headline/recall_at_50_best_baseline": 0.25}
    metrics |= {"window/drift_volume": recall, "window/drift_new_items": 0.5}
    tags = {"dssm.test_day": day, "dssm.version": version, **more}
    return {
        "info": {"run_id": "r", "run_name": day, "experiment_id": "7", "status": status},
        "data": {
            "params": [
                {"key": "gate.k", "value": "50"},
                {"key": "validation.drift.warn.volume", "value": "0.25"},
                {"key": "validation.drift.warn.new_items", "value": "None"},
            ],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "metrics": [{"key": key, "value": value} for key, value in metrics.items()],
        },
    }


@pytest.fixture
def found(monkeypatch, tmp_path):
    """A function: the answers of MLflow -> what the page shows."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("DSSM_RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs" / "history").mkdir(parents=True)

    def get(models=(), versions=(), runs=()):
        answers = {
            "registered-models/search": {"registered_models": list(models)},
            "model-versions/search": {"model_versions": list(versions)},
            "experiments/search": {"experiments": [{"experiment_id": "7", "name": "demo"}]},
            "runs/search": {"runs": list(runs)},
        }

        async def answer(path, method="POST", **asked):
            return answers[path]

        monkeypatch.setattr(mlflow_api, "ask", answer)
        return asyncio.run(overview.overview())

    return get


def test_it_says_who_is_champion_since_when_and_what_waits(found, tmp_path):
    at = datetime(2024, 3, 8, 9, 30, tzinfo=UTC)
    decision = Decision(
        at=at, action="promote", version="2", by="ann", reason="<b>good</b>", champion="2",
        previous="1",
    )  # fmt: skip
    append(history_file("dssm-demo", tmp_path / "runs"), decision)
    current = tmp_path / "refreshed" / "dssm-demo" / "current"
    current.mkdir(parents=True)
    lineage = {"version": "2", "as_of": "2024-03-08T12:00:00Z"}
    (current / "lineage.json").write_text(json.dumps(lineage))
    versions = [
        {"version": "2", "tags": [DECIDED, {"key": "dssm.test_day", "value": "2024-03-07"}]},
        {"version": "10", "tags": []},
        {"version": "3", "tags": []},
        {"version": "1", "tags": [DECIDED, {"key": "dssm.test_day", "value": "2024-03-01"}]},
    ]
    runs = [
        run("2024-03-06", 0.9, "", **{"mlflow.parentRunId": "a sweep"}),
        run("2024-03-08", 0.5, "dssm-demo/3"),
        run("2024-03-08", 0.1, "dssm-demo/2"),  # an older run of the same day
        run("2024-03-07", 0.75, "dssm-demo/2"),
        run("2024-03-06", 0.9, "dssm-other/1"),
        run("2024-03-05", 0.9, "", status="FAILED", error="no rows\nmore"),
    ]
    shown = found([CHAMPION, {"name": "another"}], versions, runs)
    (model,) = shown["models"]
    assert (model["champion"], model["day"], model["waiting"]) == (
        "2",
        "2024-03-07",
        ["3", "10"],
    )
    assert (model["previous"], model["previous_day"]) == ("1", "2024-03-01")
    assert model["drift"] == {
        "day": "2024-03-08",
        "measures": [
            {"text": "new items 0.50", "above": False},
            {"text": "volume 0.50 (more than 0.25)", "above": True},
        ],
    }
    assert model["reign"] == {
        "since": "2024-03-08 09:30 UTC",
        "by": "ann",
        "reason": "<b>good</b>",
    }
    assert model["refreshed"] == "2024-03-08T12:00:00Z"
    served, baseline = model["plot"]["lines"]
    half, quarter = overview.HEIGHT / 2, overview.HEIGHT / 4
    assert served["points"] == f"0.0,{quarter:.1f} {overview.WIDTH:.1f},{half:.1f}"
    assert (served["value"], baseline["value"]) == ("0.500", "0.250")
    assert [failure["error"] for failure in shown["failures"]] == ["no rows"]
    page = overview.page(shown)
    assert 'Version <a href="http://mlflow:5000/#/models/dssm-demo/versions/2">2</a>' in page
    assert "The previous champion is version 1, tested on 2024-03-01" in page
    assert "decided by ann: &lt;b&gt;good&lt;/b&gt;" in page
    assert "Waits for a decision: versions 3, 10." in page


@pytest.mark.parametrize(
    ("since", "text"),
    [
        ({"hours": 1}, "1 hour ago"),
        ({"hours": 47}, "47 hours ago"),
        ({"days": 1200}, "1,200 days ago"),
    ],
)
def test_the_age_of_a_moment_is_in_hours_or_days(since, text):
    assert overview.age((datetime.now(UTC) - timedelta(**since)).isoformat()) == text


def test_a_split_without_days_has_no_age():
    assert overview.age("last 1") == overview.age("") == ""


def test_the_refreshed_index_of_an_earlier_champion_is_not_todays(found, tmp_path):
    current = tmp_path / "refreshed" / "dssm-demo" / "current"
    current.mkdir(parents=True)
    lineage = {"version": "1", "as_of": "2024-03-08T12:00:00Z"}
    (current / "lineage.json").write_text(json.dumps(lineage))
    page = overview.page(found([CHAMPION], [{"version": "2"}, {"version": "1"}]))
    assert "Its index is that of the training" in page


def test_empty_states_say_what_to_do(found):
    assert 'trigger the Dag <a href="../dags/dssm_training">' in overview.page(found())
    page = overview.page(found([{"name": "dssm-demo"}], [{"version": "1"}]))
    assert "There is no champion yet: answer the review" in page
    assert "Waits for a decision: version 1." in page
    assert "No training has failed." in page


def test_an_mlflow_that_is_away_is_said(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "names no MLflow server" in overview.page(asyncio.run(overview.overview()))
