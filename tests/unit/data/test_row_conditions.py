"""Conditions on rows: SQL and Python's own evaluation agree, and what cannot be said is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from dssm_core.config import parse_config
from dssm_core.config.row_conditions import (
    label_column,
    number_names,
    read_row_condition,
    text_names,
)
from dssm_core.data.row_conditions import rows_sql, rows_that_meet
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

CELLS = [*product(["click", "it's", "7"], [0.0, 29.5, 30.0, 1e9], [True, False])]
ROWS = pd.DataFrame(CELLS, columns=["event", "seconds", "bought"])


@pytest.mark.parametrize(
    "text",
    [
        "seconds > 29.5",
        "seconds==30",
        " seconds <= -1.5 ",
        "event == 'click'",
        "event != 'click' and seconds >= 30",
        "event in ['click', \"it's\"] and not seconds < 30",
        "event not in ('click',) or 1 <= seconds < 30 or seconds == 1e9",
        "not (event == '7' or seconds > 29) and bought == true",
        "bought",
        "bought != true or seconds in [0, 30]",
        "'7' == event or 30 < seconds",
        "event >= 'd'",
        "event in []",
    ],
)
def test_sql_selects_what_python_would(text: str) -> None:
    names = {"true": True}
    wanted = [bool(eval(text, {}, {**row, **names})) for row in ROWS.to_dict("records")]
    assert rows_that_meet(read_row_condition(text), ROWS).tolist() == wanted


def test_a_missing_value_meets_no_comparison() -> None:
    rows = pa.table({"event": [None, "a"], "n": pa.array([None, 1], pa.int64())})
    for text, wanted in {
        "n == 1": [0, 1],
        "n != 2": [0, 1],
        "event != 'b'": [0, 1],
        "event in ['a']": [0, 1],
        "n < 5 or event == 'a'": [0, 1],
        "not n == 1": [1, 0],
        "event not in ['a']": [1, 0],
    }.items():
        with duckdb.connect() as con:
            con.register("rows", rows)
            sql = rows_sql(read_row_condition(text), rows.column_names)
            assert [row[0] for row in con.sql(f"SELECT {sql} FROM rows").fetchall()] == wanted, text


def test_text_is_compared_as_text_and_words_of_sql_and_python_are_columns() -> None:
    rows = pd.DataFrame({"code": [7, 70], "class": [1, 2], "select": ["a", "b"]})
    assert rows_that_meet(read_row_condition("code == '7'"), rows).tolist() == [True, False]
    assert rows_that_meet(read_row_condition("class == 01"), rows).tolist() == [True, False]
    assert rows_that_meet(read_row_condition("select == 'b'"), rows).tolist() == [False, True]
    with pytest.raises(DataError, match="needs a column 'coda', but the rows have only code, cl"):
        rows_that_meet(read_row_condition("coda == 7"), rows)


def test_a_log_without_label_has_positives_only_where_that_is_all_that_is_asked() -> None:
    assert rows_sql(read_row_condition("label == 1"), ["user_id"]) == "1"
    assert "label" in rows_sql(read_row_condition("label == 1"), ["label"])
    assert "label" in rows_sql(read_row_condition("label == 1 and x > 2"), ["x"])


@pytest.mark.parametrize(
    ("text", "numbers", "texts", "label"),
    [
        ("rating > 2", {"rating"}, set(), "rating"),
        ("rating > 2 and rating < 5", {"rating"}, set(), "rating"),
        ("label == 1 and event == 'x'", {"label"}, {"event"}, "label"),
        ("rating > 2 or seconds > 3", {"rating", "seconds"}, set(), None),
        ("event in ['a', 'b']", set(), {"event"}, None),
        ("label == 'yes'", set(), {"label"}, None),
        ("clicked", {"clicked"}, set(), "clicked"),
    ],
)
def test_the_values_say_what_a_column_is(
    text: str, numbers: set[str], texts: set[str], label: str | None
) -> None:
    condition = read_row_condition(text)
    assert (number_names(condition), text_names(condition)) == (numbers, texts)
    assert label_column(condition) == label


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an expression"),
        ("rating = 1", "not an expression"),
        ("a > 1; drop table log", "not an expression"),
        ("a > 1 or 1", "is not a comparison"),
        ("rating > x", "number, a text"),
        ("'a' in tags", "for lists"),
        ("event == 'a' or event == 1", "compares 'event' with numbers and with texts"),
        ("timestamp > '2024-03-01'", "it is a number, ms since 1970"),
        ("a == '\\0'", "NUL"),
        ("a == '\\ud800'", "half of a character"),
        ("a > 1e999", "beyond 63 bits"),
        ("a > 9223372036854775808", "beyond 63 bits"),
        ("f(a) > 1", "does not compare"),
        ("a > 1 + 1j", "number, a text"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_row_condition(text)
    with pytest.raises(ConfigError, match=said):
        parse_config(small_config(data={"source": {"kind": "synthetic"}, "positive": text}))


def test_columns_and_labels_of_a_config_go_together() -> None:
    data = {"source": {"kind": "synthetic"}, "positive": "device == 'tv'", "labels": [1, 2]}
    columns = {"user": [{"column": "device", "kind": "numeric"}]}
    with pytest.raises(ConfigError) as error:
        parse_config(small_config(data=data, features={"columns": columns}))
    assert "data.labels has no effect: data.positive compares no label" in str(error.value)
    assert "column 'device' is compared with a text, but the config uses it as a" in str(
        error.value
    )


def test_events_of_several_kinds_are_positives(tmp_path: Path) -> None:
    """Of every 4 events one is a purchase and one a long view; a missing event is no positive."""
    kinds = ["view,3", "view,40", "purchase,", ",50"]
    rows = [
        f"u{n % 3},i{n % 5},{1_709_251_200_000 + n * 3_600_000},{kinds[n % 4]}" for n in range(72)
    ]
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,event,seconds\n" + "\n".join(rows))
    raw = {
        "name": "t",
        "data": {
            "source": {
                "kind": "delimited",
                "path": str(tmp_path),
                "interactions": {"files": "*.csv"},
            },
            "positive": "event == 'purchase' or (event == 'view' and seconds >= 30)",
        },
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "evaluation": {"ks": [1]},
        "gate": {"k": 1},
    }
    run = create_run(parse_config(raw), tmp_path / "runs", "r")
    manifests = [execute(run, step) for step in ("ingest_data", "validate_data", "split_by_time")]
    assert manifests[-1].rows == {
        "read": 72,
        "train": 48,
        "test": 24,
        "outside": 0,
        "quarantined": 0,
    }
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["label"].tolist() == [0, 1, 1, 0] * 12
