"""`dssm init` on logs of several layouts, and a run of what it wrote, without editing."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.config import read_config

DAY_S = 86_400
MARCH_2024_S = 1_709_251_200  # 2024-03-01 00:00 UTC, a Friday


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def cli(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


def clicks(days, a_day, users, items, seed=0):
    """Clicks of users who mostly take items of their own quarter of the catalogue."""
    rng = np.random.default_rng(seed)
    rows = days * a_day
    user = rng.integers(0, users, rows)
    own = rng.integers(0, items // 4, rows) * 4 + user % 4
    item = np.where(rng.random(rows) < 0.8, own, rng.integers(0, items, rows))
    second = np.sort(rng.integers(0, days * DAY_S, rows))
    return pd.DataFrame({"user": user, "item": item, "s": MARCH_2024_S + second})


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Clicks with an index column, dates of the US, text ids and 0/1 labels; products; visitors."""
    folder = tmp_path_factory.mktemp("shop")
    log = clicks(days=9, a_day=1600, users=300, items=60)
    log = pd.DataFrame(
        {
            "visitor": log["user"].map("{:05d}".format),
            "product_id": log["item"].map("sku-{}".format),
            "clicked_at": pd.to_datetime(log["s"], unit="s").dt.strftime("%m/%d/%Y %I:%M:%S %p"),
            "device": np.where(log.index % 3, "web", "app"),
            "clicked": (log.index % 4 > 0).astype(int),
        }
    )
    log.to_csv(folder / "clicks.csv")
    n = np.arange(60)
    products = pd.DataFrame({"product_id": [f"sku-{i}" for i in n], "title": "a; thing"})
    products["category"] = [f"c{i % 4}" for i in n]
    products["tags"] = [f"a{i % 3}|b{i % 5}" for i in n]
    products["price"] = n + 10.5
    products.to_csv(folder / "products.csv", sep=";", index=False)
    visitors = pd.DataFrame({"visitor": [f"{user:05d}" for user in range(300)]})
    visitors["country"] = ["de", "fr", "it"] * 100
    visitors.to_csv(folder / "visitors.csv", sep="\t", index=False)
    (folder / "notes.md").write_text("no log")
    return folder


def proposed(folder, tmp_path, *options):
    """The config that init writes, and what it printed."""
    file = tmp_path / "proposed.yaml"
    done = cli("init", folder, "--to", file, *options)
    assert done.exit_code == 0, done.output
    assert f"dssm check {file}" in done.output
    return file, done.output


def judged(file, tmp_path):
    """The verdict of a run of a config, without editing."""
    done = cli("run", file, "--runs", tmp_path / "runs", "--until", "recall_gate", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_a_shop_by_days(shop, tmp_path):
    file, said = proposed(shop, tmp_path)
    raw = yaml.safe_load(file.read_text())
    assert raw["data"]["source"] == {
        "kind": "delimited",
        "path": str(shop),
        "interactions": {
            "files": "clicks.csv",
            "columns": {
                "user_id": "visitor",
                "item_id": "product_id",
                "timestamp": "clicked_at",
                "label": "clicked",
            },
            "time_format": "%m/%d/%Y %I:%M:%S %p",
        },
        "users": {"files": "visitors.csv", "columns": {"user_id": "visitor"}, "separator": "\t"},
        "items": {
            "files": "products.csv",
            "columns": {"item_id": "product_id"},
            "separator": ";",
        },
    }
    assert raw["features"]["columns"] == {
        "user": [{"column": "country", "kind": "categorical"}],
        "item": [
            {"column": "category", "kind": "categorical"},
            {"column": "tags", "kind": "multi"},
            {"column": "price", "kind": "numeric"},
        ],
        "context": [{"column": "device", "kind": "categorical"}],
    }
    assert str(raw["split"]["test_day"]) == "2024-03-09"
    assert raw["split"]["train_days"] == 6
    assert raw["gate"]["k"] == max(raw["evaluation"]["ks"]) == 5  # a tenth of 60 items
    assert "CHECK" in file.read_text()
    assert "14,400 rows, 300 users, 60 items" in said
    result = judged(file, tmp_path)
    served = result["metrics"]["served"]["recall@5"]
    assert served > result["metrics"]["baselines"]["hot"]["recall@5"]  # the planted quarters


def test_json_lines_with_kinds_of_events(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    log = clicks(days=6, a_day=900, users=240, items=60)
    events = [
        {
            "user": {"id": row.user},
            "item_id": f"i{row.item}",
            "timestamp": row.s * 1000,
            "event": "purchase" if row.Index % 5 == 0 else "view",
        }
        for row in log.itertuples()
    ]
    text = "".join(json.dumps(event, default=int) + "\n" for event in events)
    (folder / "events.jsonl").write_text(text)
    goods = [{"item_id": f"i{item}", "category": f"c{item % 4}"} for item in range(60)]
    (folder / "goods.jsonl").write_text("".join(json.dumps(good) + "\n" for good in goods))
    file, said = proposed(folder, tmp_path)
    raw = yaml.safe_load(file.read_text())
    assert raw["data"]["source"] == {
        "kind": "json_lines",
        "path": str(folder),
        "interactions": {
            "files": "events.jsonl",
            "columns": {"user_id": "user.id"},
            "time_unit": "ms",
        },
        "items": {"files": "goods.jsonl"},
    }
    assert raw["data"]["positive"] == "event in ['view', 'purchase']"
    assert "values: {view: 1, purchase: 3}" in said  # an example of weights, rarer kinds more
    assert "context" not in raw["features"]["columns"]  # a kind of event is no context
    result = judged(file, tmp_path)
    served = result["metrics"]["served"]["recall@5"]
    assert served > result["metrics"]["baselines"]["hot"]["recall@5"]  # the planted quarters


def test_ratings_without_a_header_or_days(tmp_path):
    folder = tmp_path / "ml"
    folder.mkdir()
    log = clicks(days=2, a_day=3000, users=250, items=40)
    rating = 1 + log.index % 5
    lines = zip(log["user"] + 1, log["item"] + 1, rating, log["s"], strict=True)
    (folder / "ratings.dat").write_text("".join("::".join(map(str, line)) + "\n" for line in lines))
    movies = (
        f"{n}::Le cinéma {n} (1999)::{'Comedy|Drama' if n % 2 else 'Drama'}" for n in range(1, 41)
    )
    (folder / "movies.dat").write_text("\n".join(movies) + "\n", encoding="latin-1")
    users = (f"{n}::{'FM'[n % 2]}::{n % 7}" for n in range(1, 251))
    (folder / "users.dat").write_text("\n".join(users) + "\n")
    file, said = proposed(folder, tmp_path)
    config = read_config(file)
    source = config.data.source.settings
    assert source["interactions"]["names"] == ["user_id", "item_id", "rating", "timestamp"]
    assert source["users"]["files"] == "users.dat"
    assert source["items"]["files"] == "movies.dat"
    assert source["items"]["encoding"] == "latin-1"
    assert config.data.positive == "rating > 3"
    assert config.data.labels == (1, 2, 3, 4, 5)
    assert config.split.kind == "leave_one_out"
    assert config.gate.k == 3  # 40 items cannot be judged by recall@200
    assert "2 days with rows are too few" in said
    assert judged(file, tmp_path)["gate"] is not None


def test_parquet_by_day_folders(tmp_path):
    folder = tmp_path / "news"
    log = clicks(days=4, a_day=1500, users=400, items=80)
    log["at"] = pd.to_datetime(log["s"], unit="s", utc=True)
    for day, rows in log.groupby(log["at"].dt.date):
        part = folder / f"day={day}"
        part.mkdir(parents=True)
        named = rows.rename(columns={"user": "user_id", "item": "article_id", "at": "read_at"})
        named[["user_id", "article_id", "read_at"]].to_parquet(part / "part-0.parquet")
    file, _ = proposed(folder, tmp_path, "--name", "news")
    config = read_config(file)
    source = config.data.source.settings
    assert config.data.source.kind == "parquet"
    assert source["interactions"]["files"] == "day=*/part-0.parquet"
    assert config.split.test_day == datetime(2024, 3, 4, tzinfo=UTC).date()
    assert config.split.train_days == 3
    checked = cli("check", file)
    assert checked.exit_code == 0, checked.output
    assert logging.getLogger("dssm_core").isEnabledFor(logging.INFO)  # as the command begins
    flat = " ".join(checked.stdout.split())
    for day, rows in log.groupby(log["at"].dt.date):
        assert f"{day} {len(rows):,}" in flat
    distinct = log[["user", "item", "s"]].drop_duplicates()
    assert f"test {(distinct['s'] >= MARCH_2024_S + 3 * DAY_S).sum():,}" in flat
    assert judged(file, tmp_path)["gate"] is not None


def test_a_file_is_not_replaced_without_force(shop, tmp_path):
    file, _ = proposed(shop, tmp_path)
    file.write_text("mine")
    refused = cli("init", shop, "--to", file)
    assert refused.exit_code == 1
    assert "exists" in refused.output
    assert file.read_text() == "mine"
    assert cli("init", shop, "--to", file, "--force").exit_code == 0


def test_what_is_no_log_is_refused_with_its_columns(tmp_path):
    (tmp_path / "colours.csv").write_text("colour,size\nred,1\nblue,2\n")
    for arguments in (("init", tmp_path), ("init", tmp_path, "--user", "name")):
        refused = cli(*arguments)
        assert refused.exit_code == 1
        assert "'colour', 'size'" in refused.output
    assert cli("init", tmp_path, "--name", "A b").exit_code == 1


def test_check_reports_what_the_run_finds(shop, tmp_path):
    file, _ = proposed(shop, tmp_path)
    checked = cli("check", file)
    assert checked.exit_code == 0, checked.output
    run = judged(file, tmp_path)
    flat = " ".join(checked.stdout.split())
    for part, count in run["rows"].items():
        assert f"{'rows read' if part == 'read' else part} {count:,}" in flat
    for name, scores in run["metrics"]["baselines"].items():
        assert f"recall@5 of {name} {scores['recall@5']:.4f}" in flat
    asked = run["metrics"]["queries"]
    assert f"users asked {asked['all']:,} of these, warm {asked['warm']:,}" in flat


def test_check_refuses_what_the_run_refuses_in_the_same_words(shop, tmp_path):
    file, _ = proposed(shop, tmp_path)
    bad = ["--test-day", "2024-05-01"]
    checked = cli("check", file, *bad)
    run = cli("run", file, *bad, "--runs", tmp_path / "runs")
    assert checked.exit_code == run.exit_code == 1
    said = checked.output.partition("DataError: ")[2]
    assert said.strip()
    assert said.splitlines()[0] in run.output
    assert "data_docs" not in said


def test_a_large_log_is_checked_by_whole_users(shop, tmp_path, monkeypatch):
    from dssm_core.inspection import user_sample

    file, _ = proposed(shop, tmp_path)
    size = (shop / "clicks.csv").stat().st_size
    monkeypatch.setattr(user_sample, "MOST_BYTES", size // 2 + 5_000)
    config = read_config(file)
    sampled, sample = user_sample.take_sample(config, tmp_path / "sample")
    assert sample.one_in == 2
    assert sampled.validation.min_rows_per_day == config.validation.min_rows_per_day // 2
    kept = pd.read_parquet(next((tmp_path / "sample").rglob("interactions.parquet")))
    log = pd.read_csv(shop / "clicks.csv", dtype=str)
    whole = log.groupby("visitor").size()
    assert (
        kept.groupby("user_id")
        .size()
        .equals(whole[kept["user_id"].unique()].sort_index().rename_axis("user_id"))
    )
    assert 0.3 < len(kept) / len(log) < 0.7
    assert "one in 2 users" in cli("check", file).stdout
