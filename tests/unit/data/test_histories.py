"""A history column from before the log: what is read, stored, landed and coded of it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import Config, parse_config
from dssm_core.data.landing import land, use_landed_days
from dssm_core.errors import ConfigError, DataError
from dssm_core.evaluation.queries import make_evaluation_data
from dssm_core.features.dataset import load_log, load_prepared
from dssm_core.features.ids import Ids
from dssm_core.inspection import user_sample
from dssm_core.retrieval.eligible import eligible_lists
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute

STEPS = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
HOUR = 3_600_000
START = 1_709_251_200_000  # 2024-03-01
# user, item, hour since the start, label, history; in the order of the file
ROWS = [
    ("a", "i1", 5, 1, "i3 x i2"),  # x is in no row
    ("a", "i2", 1, 0, "i4 i3"),  # the earliest row of a
    ("b", "i1", 2, 1, ""),  # b had nothing, whatever its later row says
    ("b", "i2", 3, 1, "i1 i4"),
    ("c", "i3", 4, 0, "i1 i2 i1"),  # c never clicks
    ("d", "i3", 6, 0, "x y"),  # d had nothing that is known
    ("e", "i4", 30, 1, "i2"),
    ("e", "i3", 26, 1, "i1"),
    ("e", "i1", 26, 1, "i4"),  # the first of two rows of one time counts
    ("f", "i1", 50, 1, "i2 i3"),  # f begins in the test day
    ("a", "i3", 51, 1, "i4 i3 i1"),
    ("g", "i2", -5, 1, "i3"),  # before the window
    ("g", "i2", 7, 1, "i4"),
]
PRIOR = {"a": ["i4", "i3"], "c": ["i1", "i2", "i1"], "e": ["i1"], "g": ["i4"]}


def settings(folder: Path, kind: str = "delimited", **changes: Any) -> dict[str, Any]:
    history = {"column": "before"}
    source = {"kind": kind, "path": str(folder), "interactions": {"files": "*", "history": history}}
    raw = {
        "name": "t",
        "data": {"source": source},
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "sampler": {"kind": "uniform"},
        "validation": {"max_quarantine_share": 0.5},
        "features": {"activity": {"enabled": False}},
        "evaluation": {"ks": [1], "baselines": ["hot"], "exclude_seen": True},
        "gate": {"k": 1},
    }
    return raw | changes


def frame() -> pd.DataFrame:
    names = ["user_id", "item_id", "hour", "label", "before"]
    rows = pd.DataFrame(ROWS, columns=names)
    rows["timestamp"] = START + rows.pop("hour") * HOUR
    return rows


def write(folder: Path, rows: pd.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "a.csv", index=False)
    return folder


def coded(config: Config, folder: Path, run_id: str = "r") -> Run:
    run = create_run(config, folder, run_id)
    for step in STEPS:
        execute(run, step)
    return run


def read_prior(run: Run) -> dict[str, list[str]]:
    """Items by user, from the coded log."""
    log = load_log(run.step("sample_negatives"))
    users, items = (
        Ids.load(run.step("sample_negatives") / f"{side}_ids.parquet") for side in ("user", "item")
    )
    pairs = zip(log.prior.user.tolist(), log.prior.item.tolist(), strict=True)
    found: dict[str, list[str]] = {}
    for user, item in pairs:
        found.setdefault(users.index[user - 1], []).append(items.index[item - 1])
    return found


def test_the_earliest_row_of_each_user_counts(tmp_path: Path) -> None:
    run = coded(parse_config(settings(write(tmp_path / "log", frame()))), tmp_path / "runs")
    stored = pd.read_parquet(run.step("ingest_data") / "histories.parquet")
    cells = dict(zip(stored["user_id"], stored["_dssm_history"], strict=True))
    assert cells["a"].tolist() == ["i4", "i3"]
    assert cells["b"] is None
    assert stored["timestamp"].tolist()[0] == START + HOUR
    assert read_prior(run) == PRIOR
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert not {"before", "_dssm_history"} & set(train)
    users = Ids.load(run.step("sample_negatives") / "user_ids.parquet")
    assert list(users.index) == ["a", "b", "c", "e", "g"]  # not d, nor f
    assert run.need("sample_negatives").rows["prior_items"] == 7


def test_lists_of_numbers_are_read_as_the_ids_are(tmp_path: Path) -> None:
    rows = frame()
    rows["item_id"] = rows["item_id"].str[1:].astype(int)
    lists = [[int(x[1:]) for x in cell.split() if len(x) > 1] or None for cell in rows["before"]]
    rows["before"] = lists
    for kind in ("parquet", "json_lines"):
        folder = tmp_path / kind
        folder.mkdir()
        if kind == "parquet":
            rows.to_parquet(folder / "a.parquet")
        else:
            lines = rows.assign(before=lists).to_dict("records")
            (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = coded(parse_config(settings(folder, kind)), tmp_path / f"runs-{kind}")
        found = read_prior(run)
        assert found == {user: [item[1:] for item in items] for user, items in PRIOR.items()}, kind


def test_later_cells_change_nothing(tmp_path: Path) -> None:
    """A later, longer cell holds the clicks of the test day: no input of the model may change."""
    rows = frame()
    plain = coded(parse_config(settings(write(tmp_path / "log", rows))), tmp_path / "runs")
    inside = rows["timestamp"] >= START
    first = rows[inside].sort_values("timestamp", kind="stable").groupby("user_id").head(1).index
    later = rows.index.difference(first)
    rows.loc[later, "before"] = "i1 i2 i3 i4 i1"
    leaky = coded(parse_config(settings(write(tmp_path / "log", rows))), tmp_path / "runs", "2")
    for name in ("log.safetensors", "tables.safetensors", "user_ids.parquet", "item_ids.parquet"):
        one, two = (run.step("sample_negatives") / name for run in (plain, leaky))
        assert one.read_bytes() == two.read_bytes(), name


def test_landed_days_and_samples_say_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    config = parse_config(settings(write(tmp_path / "log", frame())))
    days = tmp_path / "days"
    for day in (1, 2, 3):
        land(config, date(2024, 3, day), days)
    landed = use_landed_days(config, days)
    assert read_prior(coded(landed, tmp_path / "landed")) == PRIOR
    size = (tmp_path / "log" / "a.csv").stat().st_size
    monkeypatch.setattr(user_sample, "MOST_BYTES", size // 2)
    sampled, sample = user_sample.take_sample(config, tmp_path / "sample")
    assert sample is not None
    kept = pd.read_parquet(next((tmp_path / "sample").rglob("interactions.parquet")))
    stored = pd.read_parquet(next((tmp_path / "sample").rglob("histories.parquet")))
    assert set(stored["user_id"]) == set(kept["user_id"])
    assert sampled.data.source.kind == "landed"


def test_a_changed_history_is_a_changed_day(tmp_path: Path) -> None:
    config = parse_config(settings(write(tmp_path / "log", frame())))
    first, _ = land(config, date(2024, 3, 1), tmp_path / "days")
    rows = frame()
    rows.loc[1, "before"] = "i4"
    write(tmp_path / "log", rows)
    again, changed = land(config, date(2024, 3, 1), tmp_path / "days")
    assert changed
    assert first.fingerprint != again.fingerprint


def test_queries_know_it_and_do_not_list_it(tmp_path: Path) -> None:
    rows = frame()
    run = coded(parse_config(settings(write(tmp_path / "log", rows))), tmp_path / "runs")
    exported = run.step("export_embeddings")
    exported.mkdir()
    users, items = (
        Ids.load(run.step("sample_negatives") / f"{side}_ids.parquet") for side in ("user", "item")
    )
    data = make_evaluation_data(run, users, items)
    every = np.tile(np.arange(len(items.index)), (len(data.all.users), 1))
    known = {
        user: [items.index[row] for row in data.all.histories.take(np.array([query])).items]
        for query, user in enumerate(data.all.users)
    }
    assert known == {"a": ["i4", "i3", "i1"], "f": []}
    listed = eligible_lists(lambda n: (every[:, :n], every[:, :n] * 0.0), data.all.eligible, 4)[0]
    names = [[items.index[row] for row in rows if row >= 0] for rows in listed]
    assert dict(zip(data.all.users, names, strict=True)) == {"a": ["i2"], "f": list(items.index)}
    assert data.train.counts().tolist() == [3, 2, 1, 1]  # clicks only: popularity is unchanged


def test_items_of_the_catalogue_without_a_click_are_seen_but_in_no_history(tmp_path: Path) -> None:
    raw = settings(write(tmp_path / "log", frame()))
    (tmp_path / "items").mkdir()
    source = raw["data"]["source"]
    source["interactions"]["files"] = "a.csv"
    source["items"] = {"files": "items.csv"}
    ids = [f"i{n}" for n in range(1, 5)] + ["x"]
    table = pd.DataFrame({"item_id": ids, "group": ["p", "q", "p", "q", "p"]})
    table.to_csv(tmp_path / "log" / "items.csv", index=False)
    raw["features"] |= {
        "catalogue": "table",
        "columns": {"item": [{"column": "group", "kind": "categorical"}]},
    }
    raw["train"] = {"id_dropout": 0.1}
    run = coded(parse_config(raw), tmp_path / "runs")
    assert read_prior(run) == PRIOR  # d had x only, which no history can show
    rows = frame()
    rows.loc[1, "before"] = "i4 x"
    write(tmp_path / "log", rows)
    run = coded(parse_config(raw), tmp_path / "runs", "2")
    assert read_prior(run)["a"] == ["i4", "x"]
    prepared = load_prepared(run.step("sample_negatives"))
    assert int(prepared.log.prior.item.max()) < prepared.schema.items


def test_a_wrong_column_is_named(tmp_path: Path) -> None:
    raw = settings(write(tmp_path / "log", frame()))
    raw["data"]["source"]["interactions"]["history"] = {"column": "befor"}
    run = create_run(parse_config(raw), tmp_path / "runs", "r")
    with pytest.raises(DataError, match="did you mean 'before'"):
        execute(run, "ingest_data")


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    raw = settings(tmp_path, features={"activity": {"enabled": False}, "history": {"length": 0}})
    with pytest.raises(ConfigError, match="history has no effect with"):
        parse_config(raw)
    folder = tmp_path / "numbers"
    folder.mkdir()
    frame().assign(before=3).to_parquet(folder / "a.parquet")
    run = create_run(parse_config(settings(folder, "parquet")), tmp_path / "runs", "r")
    with pytest.raises(DataError, match="has the type BIGINT, but must hold lists"):
        execute(run, "ingest_data")
    raw = settings(write(tmp_path / "log", frame()))
    raw["data"]["source"]["interactions"]["columns"] = {"item_id": "before"}
    with pytest.raises(ConfigError, match="which history reads too"):
        parse_config(raw)
