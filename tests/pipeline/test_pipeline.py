"""The whole pipeline on a tiny log, without Airflow; MLflow on a SQLite file."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.config import parse_config
from dssm_core.errors import ArtifactError, ServiceError
from dssm_core.evaluation.answers import open_served
from dssm_core.evaluation.fitting import fit_baselines
from dssm_core.evaluation.queries import read_evaluation_data
from dssm_core.families import named
from dssm_core.operation import lookalike
from dssm_core.operation.opened import opened
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.runs import pipeline
from dssm_core.runs.files import sha256
from dssm_core.runs.run import create_run, open_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from dssm_core.tracking.client import connect, tracking_uri
from dssm_core.tracking.runs import open_mlflow_run
from tests.conftest import small_config
from tests.pipeline.conftest import tiny

TO_TRAIN = list(STEPS)[: list(STEPS).index("train_towers")]


def unchanged(run, step):
    """Whether the folder of a finished step holds exactly the files of its manifest."""
    folder = run.step(step)
    files = {
        str(file.relative_to(folder)): sha256(file) for file in folder.rglob("*") if file.is_file()
    }
    files.pop("manifest.json")
    return files == run.need(step).files


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_every_row_is_accounted_for(first):
    rows = first[1]["rows"]
    assert rows["read"] == 12_000
    assert rows["read"] == rows["train"] + rows["test"] + rows["outside"] + rows["quarantined"]


def test_the_summary_is_plain_json_with_all_results(first):
    _, result = first
    assert json.loads(json.dumps(result)) == result
    assert set(result) == {"run", "test_day", "metrics", "gate", "rows", "seconds", "version"}
    assert list(result["seconds"]) == list(STEPS)
    assert result["gate"]["passed"] is True
    assert {"served", "exact", "baselines"} <= set(result["metrics"])
    assert {"hot", "recent_hot"} <= set(result["metrics"]["baselines"])
    assert 0 < result["metrics"]["served"]["recall@200"] <= 1


def test_the_run_has_a_complete_report(first):
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


def test_a_flat_index_serves_the_results_of_exact_search(first):
    metrics = first[1]["metrics"]
    assert metrics["served"]["recall@200"] == metrics["exact"]["recall@200"]


def test_a_repeated_run_returns_at_once_and_registers_nothing(first):
    run, result = first
    before = {name: (run.step(name) / "manifest.json").stat().st_mtime_ns for name in STEPS}
    assert pipeline.run_pipeline(run) == result
    assert {name: (run.step(name) / "manifest.json").stat().st_mtime_ns for name in STEPS} == before


def test_another_run_of_the_same_window_reuses_equal_steps(first, runs):
    _, result = first
    other = create_run(tiny(gate__floor=0.001), runs, "other")
    got = pipeline.run_pipeline(other)
    reused = {name: other.need(name).reused_from for name in STEPS}
    assert all((reused[name] == "first") == step.reusable for name, step in STEPS.items())
    assert got["metrics"]["served"] == result["metrics"]["served"]
    assert other.step("train_towers").joinpath("towers.safetensors").is_file()


def test_a_reused_export_is_registered_with_the_index_of_the_new_run(first, runs):
    """The bundle has the index settings of the new run, not those of the run whose embeddings it
    reuses.
    """
    other = create_run(tiny(index={"kind": "faiss_hnsw", "ef_search": 256}), runs, "hnsw")
    result = pipeline.run_pipeline(other)
    assert other.need("export_embeddings").reused_from
    assert result["version"] != first[1]["version"]
    served = open_bundle(other.step("register_model") / "bundle")
    assert served.config == other.config
    assert len(served.retrieve(pd.DataFrame({"user_id": ["nobody"]}), 5)["item_ids"][0]) == 5


def test_a_registered_model_names_the_source_of_each_answer(first):
    """The model that MLflow loads is asked for a user of the training set, for a history, and for
    new users with and without a context.
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
    assert answer["scores"][2] != answer["scores"][3]  # the context has an effect
    assert answer["scores"][3] == pytest.approx(
        model.predict(frame, params={"k": 5})["scores"][3], abs=1e-5
    )


def test_new_users_get_recent_hot_if_the_tower_was_not_trained_on_empty_histories(runs):
    """The served list equals the baseline of the gate, and the gate measures new users by it."""
    raw = small_config(
        features__activity={"enabled": False}, sampler={"kind": "uniform"}, train__epochs=1
    )
    # With so many users, some appear on the test day only.
    raw["data"]["source"] |= {"users": 9000, "clicks": 12_000}
    config = parse_config(raw)
    run = create_run(config, runs, "new-users")
    for name in list(STEPS)[: list(STEPS).index("recall_gate")]:
        if STEPS[name].reusable:
            execute(run, name)
    bundle = open_bundle(assemble(run, run.root / "bundle"))
    data = read_evaluation_data(run)
    baselines = fit_baselines(config, data.train, data.cutoff_ms)
    baseline = baselines["recent_hot"].fitted.rows
    recent_hot = bundle.items.decode(baseline[:20] + 1).tolist()
    answer = bundle.retrieve(
        pd.DataFrame({"user_id": ["new", bundle.users.index[0]], "device": ["any", "any"]}), 20
    )
    assert answer["source"].tolist() == ["hot", "user"]
    assert answer["item_ids"][0] == recent_hot
    new = data.all.codes == 0
    with open_served(run) as opened:
        search = opened.search(opened.served, opened.encode(data.all))
        rows = search(0, len(new), 20, data.all.eligible)
    assert new.any()
    assert (rows[new] == baseline[:20]).all()
    assert not (rows[~new] == baseline[:20]).all(1).any()


def test_seed_users_of_a_segment_find_users_of_that_segment(first):
    """Users of a segment of the generated log prefer the same categories, and the towers learn
    this from their clicks.
    """
    run = first[0]
    segment = (
        pd.read_parquet(run.step("ingest_data") / "users.parquet")
        .set_index("user_id")["segment"]
        .dropna()
    )
    with opened(run) as (bundle, _):
        train_users = segment[segment.index.isin(bundle.users.index)]
        seeds = train_users.groupby(train_users).head(10)
        queries_by_segment = {
            name: lookalike.like_seeds(bundle, list(part.index))
            for name, part in seeds.groupby(seeds)
        }
        audiences = {
            name: lookalike.audience(bundle, query, 20)["user_id"]
            for name, query in queries_by_segment.items()
        }
    shares = [(segment.reindex(users) == name).mean() for name, users in audiences.items()]
    chance = train_users.value_counts(normalize=True).mean()
    assert sum(shares) / len(shares) > 2 * chance


def test_the_key_of_a_step_covers_the_data_and_facts_of_its_inputs_but_no_report(first):
    run = first[0]
    step = STEPS["sample_negatives"]
    before = step_key(run, step)
    file = run.step("split_by_time") / "manifest.json"
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


def test_the_rest_of_a_killed_write_is_not_published(tmp_path):
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


def test_another_seed_trains_other_towers(first, runs):
    other = create_run(tiny(seed=1), runs, "reseeded")
    for name in [*TO_TRAIN, "train_towers"]:
        execute(other, name)
    assert other.need("train_towers").reused_from is None
    assert (
        other.need("train_towers").files["towers.safetensors"]
        != first[0].need("train_towers").files["towers.safetensors"]
    )


def test_a_step_reads_only_the_settings_of_its_key(runs, monkeypatch):
    """A setting outside `reads` could change a result that another run then reuses."""
    run = create_run(tiny(seed=3), runs, "watched")
    config, seen = run.config, set()

    class Watched:
        """Records which sections are read, and which settings of the sections in `opened`."""

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
        passed = {argument: named(path) for argument, path in step.passes.items()}
        named(step.function)(run, part, **passed)
        run.__dict__["config"] = config
        assert seen <= {
            *step.reads,
            "name",
            "deciding",
            "model_dump",
            "model_dump_json",
            "model_name",
            "split.window",  # computed from the days, which are in the key
        } | {"resources"}, name
        part.rename(run.root / f"{name}.watched")
        execute(run, name)


def test_a_model_that_the_gate_refuses_is_not_registered(runs):
    run = create_run(tiny(gate__floor=0.99), runs, "refused")
    result = pipeline.run_pipeline(run)
    assert result["version"] is None
    assert result["gate"]["passed"] is False
    assert any("0.99" in reason for reason in result["gate"]["reasons"])
    assert run.manifest("register_model") is None


def test_a_killed_training_resumes_and_ends_with_the_same_towers(tmp_path, runs):
    """After SIGKILL during training and a second start, the towers equal those of an undisturbed
    run bit by bit.
    """
    settings = {"train__checkpoint_every_s": 0.0, "train__epochs": 6, "seed": 11}
    undisturbed, killed = (
        create_run(tiny(**settings), tmp_path / name, "run") for name in ("undisturbed", "killed")
    )
    for run in (undisturbed, killed):
        for name in TO_TRAIN:
            execute(run, name)
    execute(undisturbed, "train_towers")
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
    assert killed.manifest("train_towers") is None, (
        "no half-written folder has the name of the step"
    )
    resumed = execute(killed, "train_towers").files
    files = undisturbed.need("train_towers").files
    assert resumed["towers.safetensors"] == files["towers.safetensors"]
    assert resumed["history.jsonl"] == files["history.jsonl"]


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
