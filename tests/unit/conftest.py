"""A run folder made by hand: four items in the four directions of a plane, and users whose vectors
point at the items that they will click.
"""

import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from dssm_core import families
from dssm_core.config import parse_config
from dssm_core.data.split import window_of
from dssm_core.families import INDEXES
from dssm_core.features.code_rows import write_code_rows
from dssm_core.features.ids import Ids
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.features.schema import Schema, TowerColumns
from dssm_core.features.tensors import as_named, save_tensors
from dssm_core.models.two_tower import TwoTower
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.retrieval.seen_items import SeenItems
from dssm_core.runs.files import sha256, write_atomically
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run, create_run
from dssm_core.tracking.client import connect

# External ids 10, 20, 30, 40.
ITEMS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
# The unknown user, then external ids 1, 2, 3.
USERS = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]], dtype=np.float32)
HOUR = 3_600_000


def finish(run: Run, step: str, rows=None, info=None):
    """Write the manifest of a step for the files in its folder."""
    folder = run.step(step)
    folder.mkdir(exist_ok=True)
    files = {
        str(file.relative_to(folder)): sha256(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = Manifest(
        step=step, key="k", files=files, rows=rows or {}, info=info or {}, seconds=0.5, seed=1
    )
    write_atomically(folder / "manifest.json", manifest.model_dump_json().encode())


def clicks(run, rows):
    """A table of clicks; rows are (user, item, hours from the cutoff, label)."""
    users, items, hours, labels = zip(*rows, strict=True)
    times = [window_of(run.config).cutoff_ms + int(hour * HOUR) for hour in hours]
    return pd.DataFrame(
        {"user_id": users, "item_id": items, "timestamp": times, "label": np.array(labels, np.int8)}
    )


def fabricated(parent, run_id="one", test_day="2024-01-07", exclude_seen=False, **gate):
    """A Run whose steps up to build_index are finished, in `runs` below the folder `parent`."""
    data = {"source": {"kind": "synthetic"}}
    evaluation = {
        "ks": [1, 2, 200],
        "bootstrap": 50,
        "baselines": ["hot", {"kind": "recent_hot", "windows_h": [1, 24]}],
        "exclude_seen": exclude_seen,
    }
    raw = {
        "name": "made",
        "data": data,
        "split": {"test_day": test_day},
        "model": {"dim": 2},
        "evaluation": evaluation,
        "gate": {"min_queries": 1} | gate,
    }
    run = create_run(parse_config(raw), parent / "runs", run_id)
    folder = run.step("split_by_time")
    folder.mkdir()
    # Training set: item 30 is hot, item 20 is the hot item of the last hour. User 3 saw item 40 and
    # did not click it.
    train = [
        (1, 30, -60, 1),
        (2, 30, -50, 1),
        (3, 30, -40, 1),
        (1, 10, -30, 1),
        (3, 40, -20, 0),
        (2, 20, -0.5, 1),
    ]
    # Test set: user 1 clicks 10 (twice) and 20, user 2 clicks 20, user 3 clicks 99, which is not in
    # the training set, and the new user 7 clicks 10.
    test = [
        (1, 10, 1, 1),
        (1, 10, 2, 1),
        (1, 20, 3, 1),
        (2, 20, 4, 1),
        (3, 99, 5, 1),
        (7, 10, 6, 1),
        (2, 10, 7, 0),
    ]
    clicks(run, train).to_parquet(folder / "train.parquet")
    clicks(run, test).to_parquet(folder / "test.parquet")
    finish(run, "split_by_time", {"train": 6, "test": 7}, vars(window_of(run.config)))
    write_log(run, Ids(pd.Index([1, 2, 3])), Ids(pd.Index([10, 20, 30, 40])))
    finish(run, "train_towers", {"events": 5, "steps": 1})
    folder = run.step("export_embeddings")
    folder.mkdir()
    pd.DataFrame({"user_id": [1, 2, 3]}).to_parquet(folder / "user_ids.parquet")
    pd.DataFrame({"item_id": [10, 20, 30, 40]}).to_parquet(folder / "item_ids.parquet")
    seen = np.array([[user, item // 10 - 1] for user, item, _, label in train if label]).T
    SeenItems.of(*seen, 4, 4).save(folder)
    np.save(folder / "user_embeddings.npy", USERS)
    np.save(folder / "item_embeddings.npy", ITEMS)
    (folder / "config.json").write_bytes((run.root / "config.json").read_bytes())
    write_towers(run.config, folder)
    finish(run, "export_embeddings")
    folder = run.step("build_index")
    folder.mkdir()
    member = families.build(INDEXES, run.config.index)
    member.save(member.build(ITEMS, 0), folder)
    finish(run, "build_index")
    return run


def write_log(run, users, items):
    """Code the positives of the training set with these ids, as `sample_negatives` does."""
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet").query("label == 1")
    train = train[items.encode(train["item_id"]) > 0]
    codes = (users.encode(train["user_id"]), items.encode(train["item_id"]), train["timestamp"])
    user, item, time = (torch.from_numpy(np.array(part, np.int64)) for part in codes)
    empty = torch.zeros(0, dtype=torch.int64)
    created = torch.zeros(len(items), dtype=torch.int64)
    log = Interactions(user, item, time, empty.reshape(0, 0), created, torch.zeros(2).long())
    folder = run.step("sample_negatives")
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "log.safetensors", as_named("log", log))
    write_code_rows(folder / "code_rows.safetensors", time, {"user": user, "item": item}, 100)


def write_towers(config, folder):
    """Untrained towers without columns, for which the made-up run has no training."""
    activity = len(config.features.activity.windows_h) + 3
    schema = Schema(
        items=5,
        users=4,
        user=TowerColumns(categorical=(), multi=(), numeric=1),
        item=TowerColumns(categorical=(), multi=(), numeric=activity),
    )
    users, items = (
        ColumnTable(torch.zeros(n, 0).long(), torch.zeros(n, 0, 1).long(), torch.zeros(n, 0))
        for n in (4, 5)
    )
    tables = {**as_named("users", users), **as_named("items", items)}
    save_tensors(folder / "tables.safetensors", {**tables, "scale": torch.zeros(2, activity)})
    (folder / "schema.json").write_text(schema.model_dump_json())
    save_tensors(folder / "towers.safetensors", TwoTower(config, schema, items).state_dict())


@pytest.fixture
def fabricate(tmp_path):
    """A function (run id, test day, gate settings) -> a Run finished up to build_index."""
    return partial(fabricated, tmp_path)


@pytest.fixture
def bundle(fabricate, tmp_path):
    """The bundle of `fabricate`'s run: users 1, 2, 3 at items 10, 20, 30."""
    return open_bundle(assemble(fabricate(), tmp_path / "bundle"))


@pytest.fixture(name="finish")
def finish_fixture():
    return finish


PASSED = {"passed": True, "reasons": ["good"], "metrics": {"served": {"recall@200": 1.0}}}
REJECTED = {
    "passed": False,
    "reasons": ["bad"],
    "metrics": {"served": {"recall@200": 0.1, "window_h": None}, "by_part": [0.5, None]},
}


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory):
    """An empty MLflow database: creating one takes seconds, copying it does not."""
    runs = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        connect(runs)
    return runs / "mlflow.db"


@pytest.fixture
def local_mlflow(monkeypatch, mlflow_database, tmp_path):
    """MLflow is a database in the folder of the test's runs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "runs").mkdir()
    shutil.copyfile(mlflow_database, tmp_path / "runs" / "mlflow.db")


def lose_answers(monkeypatch, where, name, times=1):
    """Make the first `times` calls of a function of MLflow do their work and lose the answer."""
    calls = []
    function = getattr(where, name)

    def lose(*arguments, **named):
        calls.append(name)
        answer = function(*arguments, **named)
        if len(calls) <= times:
            raise MlflowException("connection aborted")
        return answer

    monkeypatch.setattr(where, name, lose)
    return calls
