"""Tables of users and items with gaps: cells that are no number, and ids without a row."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch

from dssm_core.config import parse_config
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.dataset import load_prepared
from dssm_core.operation.latest_clicks import origins, read_latest
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
HOUR = 3_600_000
ITEMS = "item_id,price,kind\ni0,1,a\ni1,n/a,b\ni2,3,\ni3,?,a\n"  # i4 has no row
USERS = "user_id,age\n0,30\n1,old\n"


def make_run(
    folder: Path, items: str = ITEMS, users: str | None = USERS, **validation: object
) -> Run:
    """72 clicks of two users on five items, one an hour of 1 to 3 March 2024."""
    rows = [f"{hour % 2},i{hour % 5},{T0 + hour * HOUR}" for hour in range(72)]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    (folder / "items.csv").write_text(items)
    tables = {"interactions": {"files": "log.csv"}, "items": {"files": "items.csv"}}
    columns: dict[str, object] = {
        "item": [
            {"column": "price", "kind": "numeric", "normaliser": "none"},
            {"column": "kind", "kind": "categorical"},
        ]
    }
    if users is not None:
        (folder / "users.csv").write_text(users)
        tables["users"] = {"files": "users.csv"}
        columns["user"] = [{"column": "age", "kind": "numeric", "normaliser": "none"}]
    raw = {
        "name": "t",
        "data": {"source": {"kind": "delimited", "path": str(folder), **tables}},
        "validation": validation,
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "evaluation": {"ks": [1]},
        "gate": {"k": 1},
        "features": {"columns": columns},
    }
    return create_run(parse_config(raw), folder / "runs", "r")


def until(run: Run, last: str) -> None:
    steps = ["ingest_data", "validate_data", "split_by_time", "sample_negatives"]
    for step in steps[: steps.index(last) + 1]:
        execute(run, step)


LENIENT = {"allow_missing": ["items"], "allow_unreadable": ["items", "users"]}


def test_cells_and_rows_that_are_missing_are_counted_with_an_example(tmp_path, caplog):
    run = make_run(tmp_path, **LENIENT)
    with caplog.at_level(logging.WARNING):
        until(run, "validate_data")
    manifest = run.need("validate_data")
    assert manifest.rows == {"read": 72, "clean": 72, "quarantined": 0}
    assert manifest.info["broken_rules"] == []
    assert [sentence for sentence in manifest.info["drift"] if "validation." in sentence] == [
        # hours 4, 9, … 69 of 72
        "interactions: item_id must be in items, but this fails for 14 of 72 rows (for example"
        " 'i4'); these rows are kept, and the columns of items are missing"
        " (validation.allow_missing)",
        "users: age must be a number, but this fails for 1 of 2 rows (for example 'old'); these"
        " cells are missing values (validation.allow_unreadable)",
        "items: price must be a number, but this fails for 2 of 4 rows (for example 'n/a', '?');"
        " these cells are missing values (validation.allow_unreadable)",
    ]
    assert set(manifest.info["drift"]) <= set(caplog.messages)
    items = pd.read_parquet(run.step("validate_data") / "items.parquet")
    assert items["price"].isna().tolist() == [False, True, False, True]
    assert items.columns.tolist() == ["item_id", "price", "kind"]


def test_missing_columns_are_the_unknown_value_and_number_0(tmp_path):
    run = make_run(tmp_path, **LENIENT)
    until(run, "sample_negatives")
    items = load_prepared(run.step("sample_negatives")).items
    assert items.numeric.flatten().tolist() == [0, 1, 0, 3, 0, 0]  # the unknown item, i0 … i4
    assert (items.categorical[:, 0] > 0).tolist() == [False, True, True, False, True, False]
    assert torch.isfinite(items.numeric).all()


def test_without_the_settings_the_log_is_refused_and_the_message_names_them(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(DataError) as error:
        until(run, "validate_data")
    message = str(error.value)
    assert "let them be missing: validation.allow_unreadable: [items]" in message
    assert "let them be missing: validation.allow_unreadable: [users]" in message
    assert "or keep the interactions: validation.allow_missing: [items]" in message


def test_a_setting_counts_for_its_table_only(tmp_path):
    run = make_run(tmp_path, allow_missing=["users"], allow_unreadable=["users", "items"])
    with pytest.raises(DataError, match="item_id must be in items"):
        until(run, "validate_data")


def test_a_time_of_an_item_must_be_read_anyhow(tmp_path):
    items = "item_id,price,kind,available_until\ni0,1,a,soon\n"
    run = make_run(tmp_path, items, **LENIENT)
    with pytest.raises(DataError, match="available_until must be a time"):
        until(run, "validate_data")


def test_a_table_that_the_source_lacks_is_named(tmp_path):
    run = make_run(tmp_path, users=None, **LENIENT)
    with pytest.raises(DataError) as error:
        until(run, "validate_data")
    assert (
        "validation.allow_unreadable names users, but the source has no users table: leave it out"
    ) in str(error.value)


def test_another_table_is_refused():
    with pytest.raises(ConfigError, match=r"validation\.allow_missing"):
        parse_config(
            {
                "name": "t",
                "data": {"source": {"kind": "synthetic"}},
                "split": {"test_day": "2024-03-03"},
                "validation": {"allow_missing": ["interactions"]},
            }
        )


def test_a_refresh_keeps_the_same_rows(tmp_path):
    run = make_run(tmp_path, **LENIENT)
    start, end = T0, T0 + 72 * HOUR
    (tmp_path / "work").mkdir()
    sources = origins(run.config, start, end, None)
    latest, rows = read_latest(run.config, start, end, sources, tmp_path / "work")
    assert rows == {"read": 72, "sound": 72, "clean": 72, "positive": 72}
    assert "i4" in set(latest.clicks["item_id"])


def test_where_the_table_is_the_catalogue_items_without_a_row_are_counted(tmp_path):
    run = make_run(tmp_path, **LENIENT)
    raw = run.config.model_dump()
    raw["features"] |= {"catalogue": "table"}
    raw["train"] |= {"id_dropout": 0.1}
    run = create_run(parse_config(raw), tmp_path / "runs", "table")
    until(run, "sample_negatives")
    # of the 48 clicks of train, those of hours 4, 9, … 44 are on i4
    assert run.need("sample_negatives").rows == {
        "positives": 39,
        "users": 2,
        "items": 4,
        "unlisted": 9,
    }
