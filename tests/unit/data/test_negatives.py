"""data.negative: which rows are negatives, and that the others are neither and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from dssm_core.config import Config, parse_config
from dssm_core.config.row_conditions import read_row_condition, value_of_both
from dssm_core.data.row_conditions import label_sql, rows_sql
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.dataset import load_log
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

STEPS = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
HOUR = 3_600_000
START = 1_709_251_200_000  # 2024-03-01
RATINGS = [5, 1, 3, 4]  # of rows 0, 1, 2, 3, 4, …


def config(folder: Path, **data: Any) -> Config:
    """72 rows of 3 days; row n is of user n mod 3 and item n mod 5, in impression n // 6."""
    rows = [
        f"u{n % 3},i{n % 5},{START + n * HOUR},{RATINGS[n % 4]},{n // 6 if n % 2 else ''}"
        for n in range(72)
    ]
    (folder / "a.csv").write_text(
        "user_id,item_id,timestamp,rating,impression_id\n" + "\n".join(rows)
    )
    source = {"kind": "delimited", "path": str(folder), "interactions": {"files": "a.csv"}}
    conditions = {"positive": "rating >= 4", "negative": "rating < 3", "labels": None}
    raw = {
        "name": "t",
        "data": {"source": source} | conditions | data,
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "sampler": {"kind": "uniform"},
        "features": {"activity": {"enabled": False}},
        "evaluation": {"ks": [1], "baselines": ["hot"]},
        "gate": {"k": 1},
    }
    return parse_config(raw)


def test_rows_that_meet_neither_condition_are_counted_and_neither_trained_on_nor_drawn(
    tmp_path: Path,
) -> None:
    run = create_run(config(tmp_path), tmp_path / "runs", "r")
    manifests = {step: execute(run, step) for step in STEPS}
    rows = {"read": 72, "train": 48, "test": 24, "outside": 0, "quarantined": 0, "neither": 18}
    assert manifests["split_by_time"].rows == rows
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    label = train["label"].fillna(-1).astype(int)
    assert label.tolist() == [1, 0, -1, 1] * 12
    log = load_log(run.step("sample_negatives"))
    assert log.time.tolist() == [START + n * HOUR for n in range(48) if n % 4 in (0, 3)]
    assert log.shown_time.tolist() == [START + n * HOUR for n in range(48) if n % 4 == 1]


def test_without_it_all_other_rows_are_negatives(tmp_path: Path) -> None:
    run = create_run(config(tmp_path, negative=None), tmp_path / "runs", "r")
    rows = [execute(run, step).rows for step in STEPS][2]
    assert rows == {"read": 72, "train": 48, "test": 24, "outside": 0, "quarantined": 0}
    log = load_log(run.step("sample_negatives"))
    assert len(log.shown_time) == 24


def test_impressions_of_a_log_with_missing_ids(tmp_path: Path) -> None:
    """Impression k has the odd rows 6k + 1, 6k + 3, 6k + 5, each of another user; so no user has a
    positive and a negative in one. With one user all of them have.
    """
    run = create_run(config(tmp_path), tmp_path / "runs", "r")
    for step in STEPS:
        execute(run, step)
    log = load_log(run.step("sample_negatives"))
    assert not log.has_impressions
    file = tmp_path / "a.csv"
    settings = config(tmp_path)
    lines = file.read_text().replace("u1,", "u0,").replace("u2,", "u0,")
    file.write_text(lines)
    run = create_run(settings, tmp_path / "runs", "one")
    for step in STEPS:
        execute(run, step)
    log = load_log(run.step("sample_negatives"))
    wanted = {n: n // 6 + 1 if n % 2 else 0 for n in range(48)}
    assert log.impression.tolist() == [wanted[n] for n in range(48) if n % 4 in (0, 3)]
    assert log.shown_impression.tolist() == [wanted[n] for n in range(48) if n % 4 == 1]


@pytest.mark.parametrize(
    ("positive", "negative", "labels", "found"),
    [
        ("rating > 3", "rating < 3", None, None),
        ("rating > 3", "rating < 4", None, ("rating", 3.5)),
        ("rating > 3", "rating < 4", (1, 2, 3, 4, 5), None),
        ("rating > 3", "rating <= 4", (1, 2, 3, 4, 5), ("rating", 4)),
        ("rating > 3", "rating != 5", None, ("rating", 4.0)),
        ("not rating < 3", "rating > 9 or rating < 1", None, ("rating", 10)),
        ("event in ['buy', 'cart']", "event == 'skip'", None, None),
        ("event in ['buy', 'cart']", "event not in ['buy', 'skip']", None, ("event", "cart")),
        ("event != 'buy'", "event != 'skip'", None, ("event", "another text")),
        ("clicked", "not clicked", None, None),
        ("clicked == true", "clicked", None, ("clicked", True)),
        ("rating > 3", "event == 'skip'", None, None),
        ("rating > 3 and event == 'buy'", "rating > 3", None, None),
        ("rating > 3", "rating == 'low'", None, None),
    ],
)
def test_a_value_that_meets_both_conditions(
    positive: str, negative: str, labels: Any, found: Any
) -> None:
    one, other = read_row_condition(positive), read_row_condition(negative)
    assert value_of_both(one, other, labels) == found
    if found and labels is None:
        value = repr(found[1]) if not isinstance(found[1], str) else f"'{found[1]}'"
        with duckdb.connect() as con:
            con.execute(f"CREATE TABLE rows AS SELECT {value} AS {found[0]}")
            for text in (positive, negative):
                met = rows_sql(read_row_condition(text), [found[0]])
                assert con.sql(f"SELECT {met} FROM rows").fetchall() == [(1,)]


def small(positive: str, negative: str | None) -> Config:
    data = {"source": {"kind": "synthetic"}, "positive": positive, "negative": negative}
    return parse_config(small_config(data=data))


def test_conditions_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a row with rating 3\.5 would be a positive and a"):
        parse_config(
            small_config(
                data={
                    "source": {"kind": "synthetic"},
                    "positive": "rating > 3",
                    "negative": "rating < 4",
                    "labels": None,
                }
            )
        )


@pytest.mark.parametrize("text", ["rating", "rating <", "'a' in tags", "", 3])
def test_what_is_no_condition_is_refused(text: Any) -> None:
    if text == "rating":  # a column of true and false is a condition
        small("event == 'buy'", text)
        return
    with pytest.raises(ConfigError, match=r"data\.negative"):
        small("event == 'buy'", text)


def test_a_row_that_meets_both_is_a_positive() -> None:
    data = small("event == 'buy'", "rating < 3").data
    rows = "(VALUES ('buy', 1), ('see', 1), ('see', 3), (NULL, NULL), ('see', NULL))"
    with duckdb.connect() as con:
        labels = con.sql(
            f"SELECT {label_sql(data, ['event', 'rating'])} FROM {rows} AS r(event, rating)"
        ).fetchall()
    assert [label for (label,) in labels] == [1, 0, None, None, None]


def test_a_log_without_the_columns_of_the_condition_is_refused(tmp_path: Path) -> None:
    run = create_run(config(tmp_path, negative="stars < 3"), tmp_path / "runs", "r")
    execute(run, "ingest_data")
    with pytest.raises(DataError, match="must be a column 'stars'"):
        execute(run, "validate_data")


def test_a_log_of_clicks_has_positives_only() -> None:
    data = small("label == 1", "label == 0").data
    assert label_sql(data, ["user_id"]) == "1"
    assert label_sql(data, ["label"]).startswith("CASE WHEN")
