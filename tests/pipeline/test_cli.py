"""Commands of the CLI on a tiny log; MLflow on a SQLite file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.retrieval.bundle import open_bundle
from dssm_core.runs.run import find_runs
from dssm_core.runs.table import STEPS
from dssm_core.tracking.client import connect
from tests.pipeline.conftest import tiny


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def cli(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_cli_lists_runs_and_runs_a_step(first, runs):
    listed = cli("runs", "--runs", runs)
    assert listed.exit_code == 0
    assert "small/first" in listed.stdout
    done = cli("build_index", "--run", first[0].root)
    assert json.loads(done.stdout)["step"] == "build_index"


def test_the_cli_lists_its_commands_in_the_order_of_the_flow():
    commands = [
        line.split()[0]
        for line in cli("--help").stdout.split("Commands:")[1].splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    people = [
        "init",
        "check",
        "run",
        "sweep",
        "settings",
        "land",
        "runs",
        "report",
        "promote",
        "rollback",
        "history",
        "publish",
        "refresh",
        "recommend",
        "lookalike",
    ]
    assert commands == [*people, *STEPS]


def test_a_run_can_end_at_a_step(first, runs, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny().model_dump(mode="json")))
    judged = cli(
        "run", file, "--runs", runs, "--run-id", "judged", "--until", "recall_gate", "--json"
    )
    assert judged.exit_code == 0, judged.stderr
    result = json.loads(judged.stdout)
    assert list(result["seconds"])[-1] == "recall_gate"
    assert result["metrics"]["served"] == first[1]["metrics"]["served"]
    assert result["gate"]["passed"]
    assert result["version"] is None
    split = cli("run", file, "--runs", runs, "--run-id", "split", "--until", "split_by_time")
    assert "done: ingest_data, validate_data, split_by_time" in " ".join(split.stderr.split())
    wrong = cli("run", file, "--runs", runs, "--run-id", "wrong", "--until", "recal_gate")
    assert "unknown step 'recal_gate': did you mean 'recall_gate'?" in wrong.stderr
    assert not (runs / "small" / "2024-03-07" / "wrong").exists()


def test_the_cli_explains_errors_in_a_sentence(runs, tmp_path):
    missing = cli("run", tmp_path / "no.yaml")
    assert missing.exit_code == 1
    assert "is not a file: give a YAML" in missing.stderr
    not_a_run = cli("train_towers", "--run", tmp_path)
    assert not_a_run.exit_code == 1
    assert "`dssm runs` lists them" in " ".join(not_a_run.stderr.split())


def test_cli_promotes(first, runs):
    done = cli(
        "promote",
        "dssm-small",
        "--version",
        first[1]["version"],
        "--runs",
        runs,
        "--reason",
        "looks right",
    )
    made = json.loads(done.stdout)
    assert (made["action"], made["champion"], made["previous"], made["reason"]) == (
        "promote",
        first[1]["version"],
        None,
        "looks right",
    )
    again = cli(
        "promote",
        "dssm-small",
        "--version",
        first[1]["version"],
        "--runs",
        runs,
        "--reason",
        "once more",
    )
    assert "is champion already: nothing was changed" in again.stderr
    assert json.loads(again.stdout) == made
    listed = cli("history", "dssm-small", "--runs", runs)
    assert "looks right" in listed.stdout
    assert os.environ.get("MLFLOW_TRACKING_URI") is None


def test_a_sweep_of_the_cli_trains_the_best_trial(tmp_path):
    """One of three trials has an impossible learning rate and fails. The parent run in MLflow
    compares the trials.
    """
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny(name="swept", train__epochs=1).model_dump(mode="json")))
    done = cli(
        "sweep",
        file,
        "--axis",
        "train.learning_rate=0.002,0.004,1e30",
        "--search",
        "optuna",
        "--trials",
        3,
        "--runs",
        tmp_path / "runs",
    )
    assert done.exit_code == 0, done.stderr[-3000:]
    client = connect(tmp_path / "runs")
    (parent,) = client.search_runs(
        [client.get_experiment_by_name("swept").experiment_id], "tags.dssm.sweep != ''"
    )
    table = json.loads(
        Path(
            client.download_artifacts(parent.info.run_id, "trials.json", str(tmp_path))
        ).read_text()
    )
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert rows[2]["train.learning_rate"] == "1e+30"
    assert rows[0]["recall"] >= rows[1]["recall"]
    assert (
        parent.data.metrics
        | {"trials": 3, "trials_failed": 1, "best/recall_at_200": rows[0]["recall"]}
        == parent.data.metrics
    )
    assert parent.data.tags["dssm.winner"] == rows[0]["label"]
    assert (
        f"{rows[0]['label']} is the best of 3 trials, 1 failed"
        in parent.data.tags["mlflow.note.content"]
    )
    assert {"trials.json", "trials.png", "parallel.png"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert sorted(child.info.run_name for child in children) == sorted(row["label"] for row in rows)
    (winner,) = [run for run in find_runs(tmp_path / "runs") if run.id.startswith("cli-")]
    assert winner.config.train.learning_rate == float(rows[0]["train.learning_rate"])
    assert winner.need("register_model").info["version"] == "1"


def test_cli_recommends_what_is_served(first, runs, tmp_path):
    """All users under a filter, then users of a file with histories, which the tower embeds."""
    cli("promote", "dssm-small", "--version", first[1]["version"], "--runs", runs)
    bundle = open_bundle(first[0].step("register_model") / "bundle")
    file, wish = tmp_path / "lists.parquet", f"category != '{category_of(bundle)}'"
    options = ["--runs", runs, "--k", 20, "--filter", wish, "--exclude-seen", "--to", file]
    done = cli("recommend", "dssm-small", *options)
    assert done.exit_code == 0, done.stderr
    about = json.loads(done.stdout.splitlines()[-1])
    assert (about["model"], about["version"]) == ("dssm-small", first[1]["version"])
    assert (about["users"], about["unknown_users"]) == (len(bundle.users) - 1, 0)
    assert (about["exclude_seen"], about["filters"]) == (True, [wish])
    users = pd.DataFrame({"user_id": bundle.users.index})
    compare(pd.read_parquet(file), users, bundle.retrieve(users, 20, True, [wish]))
    history = [list(items) for items in pd.read_parquet(file)["item_ids"].head(50)]
    asked = users.head(50).assign(history=history)
    asked.loc[49, "user_id"] = "nobody"
    asked.to_parquet(tmp_path / "users.parquet")
    done = cli("recommend", "dssm-small", *options, "--users", tmp_path / "users.parquet")
    about = json.loads(done.stdout.splitlines()[-1])
    assert (about["users"], about["unknown_users"]) == (50, 1)
    compare(pd.read_parquet(file), asked, bundle.retrieve(asked, 20, True, [wish]))


def test_cli_recommends_of_a_run_without_refreshes(first, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("DSSM_REFRESHED", str(tmp_path / "refreshed"))  # of servers: no effect here
    ask = ["recommend", "--run", first[0].root, "--runs", runs, "--to", tmp_path / "lists.parquet"]
    assert json.loads(cli(*ask).stdout.splitlines()[-1])["run"] == "first"
    (tmp_path / "lists.parquet").unlink()
    done = cli(*ask, "--refreshed", tmp_path / "refreshed")
    assert (done.exit_code, (tmp_path / "lists.parquet").exists()) == (1, False)
    assert "run 'first' has none: leave it out" in " ".join(done.stderr.split())


def category_of(bundle):
    """The most frequent category."""
    return bundle.catalogue.columns["category"].mode()[0]


def compare(found, users, wanted):
    assert found["user_id"].tolist() == users["user_id"].tolist()
    assert [list(items) for items in found["item_ids"]] == wanted["item_ids"].tolist()
    for scores, same in zip(found["scores"], wanted["scores"], strict=True):
        assert scores == pytest.approx(same, abs=1e-6)
    assert found["source"].tolist() == wanted["source"].tolist()


def test_cli_publishes_lists(first, runs, tmp_path):
    cli("promote", "dssm-small", "--version", first[1]["version"], "--runs", runs)
    arguments = ["publish", "dssm-small", "--runs", runs, "--to", tmp_path, "--lists", 7]
    done = cli(*arguments)
    assert done.exit_code == 0, done.stderr
    about = json.loads(done.stdout.splitlines()[-1])
    assert about["lists"] == {"k": 7}
    lists = pd.read_parquet(tmp_path / "dssm-small" / first[1]["version"] / "lists.parquet")
    assert len(lists) == about["user_ids"]
    assert (lists["item_ids"].map(len) == 7).all()


def test_cli_refreshes_the_champion(first, runs, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny().model_dump(mode="json")))
    cli("promote", "dssm-small", "--version", first[1]["version"], "--runs", runs)
    arguments = ["refresh", file, "--runs", runs, "--to", tmp_path / "refreshed"]
    done = cli(*arguments, "--as-of", "2024-03-07T12:00")
    assert done.exit_code == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["model"], made["version"], made["as_of"]) == (
        "dssm-small",
        first[1]["version"],
        "2024-03-07T12:00:00Z",
    )
    assert made["bundle"] == first[0].need("register_model").info["content_hash"]
    assert made["embedded"]["users"] > made["embedded"]["new_users"] >= 0
    bundle = open_bundle(tmp_path / "refreshed" / "dssm-small" / "current")
    assert len(bundle.retrieve(pd.DataFrame({"user_id": ["1"]}), 5).item_ids[0]) == 5
    late = cli(*arguments, "--as-of", "2025-03-07T12:00")
    assert late.exit_code == 1
    assert "has no click from 2025-03-01" in " ".join(late.stderr.split())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(tiny(name="other").model_dump(mode="json")))
    nobody = cli("refresh", other, "--runs", runs, "--to", tmp_path / "refreshed")
    assert "has no champion: promote a version, or give one" in " ".join(nobody.stderr.split())
