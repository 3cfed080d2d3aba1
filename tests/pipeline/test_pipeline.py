"""The whole pipeline on a tiny log, without Airflow; MLflow on a SQLite file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.config import parse_config
from dssm_core.errors import ArtifactError, ServiceError
from dssm_core.evaluation.answers import open_served
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.families import named
from dssm_core.operation import lookalike
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.runs import pipeline
from dssm_core.runs.files import sha256
from dssm_core.runs.run import create_run, find_runs, open_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from dssm_core.tracking.client import connect, tracking_uri
from dssm_core.tracking.runs import open_mlflow_run
from tests.conftest import small_config

TO_TRAIN = list(STEPS)[: list(STEPS).index("train_towers")]


def unchanged(run, step):
    """Whether a finished step's folder holds exactly the files of its manifest."""
    folder = run.step(step)
    files = {
        str(file.relative_to(folder)): sha256(file) for file in folder.rglob("*") if file.is_file()
    }
    files.pop("manifest.json")
    return files == run.need(step).files


def tiny(**changes):
    raw = small_config(**changes)
    raw["data"]["source"] |= {"users": 600, "clicks": 12_000}
    return parse_config(raw)


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(runs):
    """One run of everything, and its summary."""
    run = create_run(tiny(), runs, "first")
    return run, pipeline.run_pipeline(run)


def test_every_row_is_accounted_for(first):
    rows = first[1]["rows"]
    assert rows["read"] == 12_000
    assert rows["read"] == rows["train"] + rows["test"] + rows["outside"] + rows["quarantined"]


def test_the_summary_is_plain_and_whole(first):
    _, result = first
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"run", "test_day", "metrics", "gate", "rows", "seconds", "version"}
    assert list(result["seconds"]) == list(STEPS)
    assert result["gate"]["passed"] is True
    assert {"served", "exact", "baselines"} <= set(result["metrics"])
    assert {"hot", "recent_hot"} <= set(result["metrics"]["baselines"])
    assert 0 < result["metrics"]["served"]["recall@200"] <= 1


def test_the_run_has_a_whole_report(first):
    run, _ = first
    page = (run.step("recall_gate") / "report.html").read_text()
    assert "The gate passed" in page
    assert "This section failed" not in page
    assert re.findall(r'class="absent">([^<]*)', page) == [
        "Nothing to show: there is no champion yet."
    ]
    assert (
        page.count("<img") == 8
    )  # data, training, recall, slices, calibration, scores, index, map
    again = CliRunner().invoke(main, ["report", "--run", str(run.root)])
    assert again.output.splitlines()[-1] == str(run.root / "report.html")
    assert "The gate passed" in (run.root / "report.html").read_text()
    assert unchanged(run, "recall_gate")
    logged = connect(run.runs).list_artifacts(
        json.loads((run.root / "mlflow.json").read_text())["run_id"]
    )
    assert "report.html" in [file.path for file in logged]


def test_a_flat_index_serves_what_exact_search_finds(first):
    metrics = first[1]["metrics"]
    assert metrics["served"]["recall@200"] == metrics["exact"]["recall@200"]


def test_again_returns_at_once_and_registers_nothing_new(first):
    run, result = first
    before = {name: (run.step(name) / "manifest.json").stat().st_mtime_ns for name in STEPS}
    assert pipeline.run_pipeline(run) == result
    assert {name: (run.step(name) / "manifest.json").stat().st_mtime_ns for name in STEPS} == before


def test_another_run_of_the_window_reuses_what_is_the_same(first, runs):
    _, result = first
    other = create_run(tiny(gate__floor=0.001), runs, "other")
    got = pipeline.run_pipeline(other)
    reused = {name: other.need(name).reused_from for name in STEPS}
    assert all((reused[name] == "first") == step.reusable for name, step in STEPS.items())
    assert got["metrics"]["served"] == result["metrics"]["served"]
    assert other.step("train_towers").joinpath("towers.safetensors").is_file()


def test_a_reused_export_is_registered_with_this_run_s_index(first, runs):
    """The index's settings travel with the run that chose them, not with the run whose embeddings
    it reuses.
    """
    other = create_run(tiny(index={"kind": "faiss_hnsw", "ef_search": 256}), runs, "hnsw")
    result = pipeline.run_pipeline(other)
    assert other.need("export_embeddings").reused_from
    assert result["version"] != first[1]["version"]
    served = open_bundle(other.step("register_model") / "bundle")
    assert served.config == other.config
    assert len(served.retrieve(pd.DataFrame({"user_id": ["nobody"]}), 5)["item_ids"][0]) == 5


def test_a_registered_model_says_what_each_answer_comes_from(first):
    """Loaded by MLflow, with the real towers: a known user, a history, and newcomers with and
    without a context.
    """
    import mlflow

    run, result = first
    mlflow.set_tracking_uri(tracking_uri(run.runs))
    model = mlflow.pyfunc.load_model(f"models:/{run.config.model_name}/{result['version']}")
    bundle = open_bundle(run.step("register_model") / "bundle")
    device = pd.read_parquet(run.step("split_by_time") / "train.parquet")["device"].dropna().iloc[0]
    history = bundle.items.index[:2].tolist()
    frame = pd.DataFrame(
        {"user_id": [bundle.users.index[0], "new", "new", "new"], "history": [[], history, [], []]}
    )
    answer = model.predict(frame.assign(device=[None, None, device, None]), params={"k": 5})
    assert answer["source"].tolist() == ["user", "history", "context", "context"]
    assert answer["item_ids"].map(len).tolist() == [5] * 4
    assert answer["scores"][2] != answer["scores"][3]  # the context counts
    assert answer["scores"][3] == pytest.approx(
        model.predict(frame, params={"k": 5})["scores"][3], abs=1e-5
    )


def test_newcomers_of_a_tower_that_never_saw_an_empty_history_get_recent_hot(runs):
    """The list that is served is the baseline that the gate compares with, and what the gate
    measures of newcomers.
    """
    raw = small_config(
        features__activity={"enabled": False}, sampler={"kind": "uniform"}, train__epochs=1
    )
    raw["data"]["source"] |= {
        "users": 9000,
        "clicks": 12_000,
    }  # so that some users come on the test day only
    config = parse_config(raw)
    run = create_run(config, runs, "by-place")
    for name in list(STEPS)[: list(STEPS).index("recall_gate")]:
        if STEPS[name].reusable:
            execute(run, name)
    bundle = open_bundle(assemble(run, run.root / "bundle"))
    data = read_evaluation_data(run)
    baselines = fit_baselines(config, data.train, data.cutoff_ms)
    baseline = baselines["recent_hot"].fitted.rows
    wanted = bundle.items.decode(baseline[:20] + 1).tolist()
    answer = bundle.retrieve(
        pd.DataFrame({"user_id": ["new", bundle.users.index[0]], "device": ["any", "any"]}), 20
    )
    assert answer["source"].tolist() == ["hot", "user"]
    assert answer["item_ids"][0] == wanted
    new = data.all.codes == 0
    with open_served(run) as opened:
        search = opened.search(opened.served, opened.encode(data.all))
        rows = search(0, len(new), 20)
    assert new.any()
    assert (rows[new] == baseline[:20]).all()
    assert not (rows[~new] == baseline[:20]).all(1).any()


def test_seed_users_of_a_segment_find_users_of_that_segment(first):
    """The generated log's users of a segment prefer the same categories, which the towers learn
    from clicks.
    """
    run = first[0]
    segment = (
        pd.read_parquet(run.step("ingest_data") / "users.parquet")
        .set_index("user_id")["segment"]
        .dropna()
    )
    with lookalike.opened(run) as (bundle, _):
        known = segment[segment.index.isin(bundle.users.index)]
        seeds = known.groupby(known).head(10)
        asked = {
            name: lookalike.like_seeds(bundle, list(part.index))
            for name, part in seeds.groupby(seeds)
        }
        found = {
            name: lookalike.audience(bundle, question, 20)["user_id"]
            for name, question in asked.items()
        }
    alike = [(segment.reindex(users) == name).mean() for name, users in found.items()]
    chance = known.value_counts(normalize=True).mean()
    assert sum(alike) / len(alike) > 2 * chance


def test_the_key_of_a_step_holds_its_inputs_content_and_facts_but_no_report(first):
    run = first[0]
    step = STEPS["sample_negatives"]
    before, file = step_key(run, step), run.step("split_by_time") / "manifest.json"
    manifest = json.loads(file.read_text())
    moved = manifest | {"info": manifest["info"] | {"start_ms": 0}}
    reported = manifest | {"files": manifest["files"] | {"data_docs/index.html": "other"}}
    try:
        file.write_text(json.dumps(moved))
        assert step_key(run, step) != before
        file.write_text(json.dumps(reported))
        assert step_key(run, step) == before
    finally:
        file.write_text(json.dumps(manifest))


def test_what_a_killed_write_left_is_not_published(tmp_path):
    run = create_run(tiny(), tmp_path, "run")
    part = run.root / ".ingest_data.part"
    part.mkdir()
    (part / ".checkpoint.pt.42.part").write_text("half")
    (part / "key.json").write_text(json.dumps(step_key(run, STEPS["ingest_data"])))
    assert list(execute(run, "ingest_data").files) == [
        "interactions.parquet",
        "items.parquet",
        "users.parquet",
    ]


def test_damage_in_another_run_does_not_stop_this_one(tmp_path):
    for name in ("damaged", "fine"):
        run = create_run(tiny(), tmp_path, name)
        execute(run, "ingest_data")
        (run.step("ingest_data") / "manifest.json").write_text("{")
        if name == "fine":
            with pytest.raises(ArtifactError, match="damaged: remove"):
                execute(run, "ingest_data")


def test_another_setting_trains_anew(first, runs):
    other = create_run(tiny(seed=1), runs, "reseeded")
    for name in [*TO_TRAIN, "train_towers"]:
        execute(other, name)
    assert other.need("train_towers").reused_from is None
    assert (
        other.need("train_towers").files["towers.safetensors"]
        != first[0].need("train_towers").files["towers.safetensors"]
    )


def test_a_step_reads_only_the_settings_of_its_key(runs, monkeypatch):
    """A knob outside `reads` could change a result that is then wrongly reused."""
    run = create_run(tiny(seed=3), runs, "watched")
    config, seen = run.config, set()

    class Watched:
        """Notes what is read: a section, or the setting in it where the step declares settings of
        that section.
        """

        def __init__(self, watched, opened, prefix=""):
            self.watched, self.opened, self.prefix = watched, opened, prefix

        def __getattr__(self, name):
            value, path = getattr(self.watched, name), self.prefix + name
            if path in self.opened:
                return Watched(value, (), f"{path}.")
            seen.add(path)
            return value

    for name, step in STEPS.items():
        if not step.reusable:
            open_mlflow_run(open_run(run.root))
            continue
        step_key(run, step)
        run.__dict__["config"] = config
        part = run.root / f".{name}.part"
        part.mkdir()
        seen.clear()
        run.__dict__["config"] = Watched(
            config, {name.partition(".")[0] for name in step.reads if "." in name}
        )
        named(step.function)(run, part)
        run.__dict__["config"] = config
        assert seen <= {*step.reads, "name", "model_dump", "model_dump_json", "model_name"}, name
        part.rename(run.root / f"{name}.watched")
        execute(run, name)


def test_a_refused_model_is_not_registered(runs):
    run = create_run(tiny(gate__floor=0.99), runs, "refused")
    result = pipeline.run_pipeline(run)
    assert result["version"] is None
    assert result["gate"]["passed"] is False
    assert any("0.99" in reason for reason in result["gate"]["reasons"])
    assert run.manifest("register_model") is None


def test_killed_training_goes_on_to_the_same_towers(tmp_path, runs):
    """SIGKILL in the middle, then again: the towers equal those of a run left alone, to the last
    bit.
    """
    settings = {"train__checkpoint_every_s": 0.0, "train__epochs": 6, "seed": 11}
    alone, killed = (
        create_run(tiny(**settings), tmp_path / name, "run") for name in ("alone", "killed")
    )
    for run in (alone, killed):
        for name in TO_TRAIN:
            execute(run, name)
    execute(alone, "train_towers")
    checkpoint = killed.root / ".train_towers.part" / "checkpoint.pt"
    child = subprocess.Popen(
        [sys.executable, "-m", "dssm_core.cli", "train_towers", "--run", str(killed.root)]
    )
    deadline = time.monotonic() + 120
    while not checkpoint.is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert checkpoint.is_file()
    assert killed.manifest("train_towers") is None, "nothing half-written has the step's name"
    manifest = execute(killed, "train_towers")
    assert (
        manifest.files["towers.safetensors"]
        == alone.need("train_towers").files["towers.safetensors"]
    )
    assert manifest.files["history.jsonl"] == alone.need("train_towers").files["history.jsonl"]


def test_a_step_that_fails_leaves_nothing_and_can_run_again(runs, tmp_path, monkeypatch):
    run = create_run(tiny(seed=4), tmp_path, "run")
    monkeypatch.setattr("dssm_core.data.ingest.ingest", _full_disk)
    with pytest.raises(ServiceError, match=r"cannot write .*No space left.*free space"):
        execute(run, "ingest_data")
    monkeypatch.undo()
    assert run.manifest("ingest_data") is None
    assert execute(run, "ingest_data").rows["read"] == 12_000


def _full_disk(run, work):
    raise OSError(28, "No space left on device")


def cli(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_cli_lists_runs_and_runs_a_step(first, runs):
    listed = cli("runs", "--runs", runs)
    assert listed.exit_code == 0
    assert "small/first" in listed.stdout
    done = cli("build_index", "--run", first[0].root)
    assert json.loads(done.stdout)["step"] == "build_index"


def test_cli_lists_the_steps_in_their_order():
    commands = [
        line.split()[0]
        for line in cli("--help").stdout.split("Commands:")[1].splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    people = [
        "run",
        "sweep",
        "land",
        "runs",
        "report",
        "promote",
        "rollback",
        "history",
        "publish",
        "refresh",
        "lookalike",
    ]
    assert commands == [*people, *STEPS]


def test_a_run_may_end_at_a_step(first, runs, tmp_path):
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


def test_cli_says_what_is_wrong_in_a_sentence(runs, tmp_path):
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


def test_cli_searches_and_trains_the_best(tmp_path):
    """Three trials, of which the one with an impossible rate fails; MLflow's parent run compares
    them.
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
        f"**{rows[0]['label']}** is best of 3 trials, 1 failed"
        in parent.data.tags["mlflow.note.content"]
    )
    assert {"trials.json", "trials.png", "parallel.png"} <= {
        found.path for found in client.list_artifacts(parent.info.run_id)
    }
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert sorted(child.info.run_name for child in children) == sorted(row["label"] for row in rows)
    (winner,) = [run for run in find_runs(tmp_path / "runs") if run.id.startswith("cli-")]
    assert winner.config.train.learning_rate == float(rows[0]["train.learning_rate"])
    assert winner.need("register_model").info["version"] == "1"


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
