"""Weights by SQL against arithmetic by hand, and what happens to positives without one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from dssm_core.config import Config, Weight, parse_config
from dssm_core.data.frames import valid_rows
from dssm_core.data.ingest import read_ingested
from dssm_core.data.sql import numbered_rows
from dssm_core.data.weights import weight_sql
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.dataset import load_prepared
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute

EVENTS = {"click": 1, "cart": 2, "purchase": 5, "refund": 0}
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
HOUR = 3_600_000


def weights(cells: str, kind: str, **settings: Any) -> list[float | None]:
    """The weights of cells, which are SQL values of a type."""
    weight = Weight(column='a "b"', **settings)
    values = ", ".join(f"({cell})" for cell in cells.split(" ; "))
    rows = f'(SELECT CAST(c AS {kind}) AS "a ""b""" FROM (VALUES {values}) AS t(c))'
    return [row[0] for row in duckdb.sql(f"SELECT {weight_sql(weight)} FROM {rows}").fetchall()]


def test_texts_have_their_weights() -> None:
    cells = "'click' ; ' purchase ' ; 'Click' ; '' ; NULL ; 'refund'"
    assert weights(cells, "VARCHAR", values=EVENTS) == [1, 5, None, None, None, 0]


@pytest.mark.parametrize("kind", ["VARCHAR", "DOUBLE", "INTEGER", "DECIMAL(9, 2)"])
def test_a_number_is_the_same_value_however_it_is_written(kind: str) -> None:
    values = {"1": 0.5, "2.0": 3, "it's": 9}
    assert weights("1 ; 2 ; 3", kind, values=values) == [0.5, 3, None]


def test_true_and_false_are_values() -> None:
    assert weights("true ; false", "BOOLEAN", values={"true": 2, "false": 1}) == [2, 1]


def test_numbers_are_scaled_and_limited() -> None:
    cells = "0 ; 0.5 ; 30 ; 1e300 ; -1 ; 'NaN' ; 'inf' ; NULL"
    expected = [pytest.approx(0.1), pytest.approx(0.1), 3, 5, None, None, None, None]
    assert weights(cells, "DOUBLE", scale=0.1, min=0.1, max=5) == expected
    assert weights("'7' ; 'x' ; ' 2 '", "VARCHAR") == [7, None, 2]
    assert weights("1e30", "DOUBLE") == [1e6]  # the largest weight there is


def test_the_logarithm_is_that_of_one_more() -> None:
    found = weights("0 ; 9 ; -3", "DOUBLE", log=True, scale=2)
    assert found == [0, pytest.approx(2 * math.log(10), rel=1e-6), None]


@pytest.mark.parametrize(
    ("weight", "sentence"),
    [
        ({}, "data.weight.column"),
        ({"column": ""}, "data.weight.column"),
        ({"column": "label"}, "label, which becomes 1 or 0 by data.positive"),
        ({"column": "e", "values": {}}, "data.weight.values"),
        ({"column": "e", "values": {"a": 0, "b": 0}}, "are all 0"),
        ({"column": "e", "values": {"a": -1}}, "data.weight.values.a"),
        ({"column": "e", "values": {"a": "much"}}, "data.weight.values.a"),
        ({"column": "e", "values": {"a": float("nan")}}, "data.weight.values.a"),
        ({"column": "e", "values": {"a": 2e6}}, "data.weight.values.a"),
        ({"column": "e", "values": {1: 2}}, "the key 1 is int, not text: quote it"),
        ({"column": "e", "values": [1]}, "data.weight.values"),
        ({"column": "e", "values": {"a": 1}, "scale": 2, "max": 3}, "so scale, max would have no"),
        ({"column": "e", "min": 3, "max": 2}, "weight.min 3 is above weight.max 2"),
        ({"column": "e", "scale": float("inf")}, "data.weight.scale"),
        ({"column": "e", "factor": 2}, "factor"),
        (5, "data.weight"),
    ],
)
def test_settings_that_cannot_be_are_refused(weight: object, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(Path(), weight)
    assert sentence in str(caught.value)


def test_a_stored_config_opens_again(tmp_path: Path) -> None:
    made = config(tmp_path, {"column": "event", "values": EVENTS})
    assert Config.model_validate_json(made.model_dump_json()) == made


def config(folder: Path, weight: object, positive: str = "label == 1", **validation: Any) -> Config:
    source = {"kind": "delimited", "path": str(folder), "interactions": {"files": "log.csv"}}
    return parse_config(
        {
            "name": "t",
            "data": {"source": source, "weight": weight, "positive": positive},
            "validation": {"max_quarantine_share": 0.2} | validation,
            "split": {"test_day": "2024-03-03", "train_days": 2},
            "features": {"activity": {"enabled": False}},
            "sampler": {"kind": "uniform"},
            "evaluation": {"ks": [1], "baselines": ["hot"]},
            "gate": {"k": 1},
        }
    )


def run_of(folder: Path, extra: list[str], weight: object, **settings: Any) -> Run:
    """72 good rows, one an hour of 1 to 3 March 2024, of two users, then `extra` lines."""
    names = list(EVENTS)
    good = [f"{h % 2},i{h % 5},{T0 + h * HOUR},1,{names[h % 4]},{h % 7}" for h in range(72)]
    lines = ["user_id,item_id,timestamp,label,event,seconds", *good, *extra]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return create_run(config(folder, weight, **settings), folder / "runs", "r")


CASES = {
    "texts": (
        {"column": "event", "values": EVENTS},
        [f"0,i0,{T0 + 1},1,view,1", f"0,i0,{T0 + 2},1,,1", f"0,i0,{T0 + 3},0,view,1"],
        "event of a positive must be one of `click`, `cart`, `purchase`, `refund`",
        ["'view'", "'nothing'"],
    ),
    "numbers": (
        {"column": "seconds", "scale": 0.5, "max": 2},
        [
            *(f"0,i0,{T0 + n},1,click,{cell}" for n, cell in enumerate(("", "-1", "inf", "x"), 1)),
            f"0,i0,{T0 + 9},0,click,",
        ],
        "seconds of a positive must be a number of at least 0",
        ["'nothing'", "'-1'", "'inf'", "'x'"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_positives_without_a_weight_go_to_quarantine(case: str, tmp_path: Path) -> None:
    """And rows that are no positives need none."""
    weight, extra, reason, cells = CASES[case]
    run = run_of(tmp_path, extra, weight)
    manifests = {name: execute(run, name) for name in ("ingest_data", "validate_data")}
    quarantine = pd.read_parquet(run.step("validate_data") / "quarantine.parquet")
    assert len(quarantine) == len(cells)
    assert quarantine["reason"].str.startswith(reason).all()
    (sentence,) = manifests["validate_data"].info["broken_rules"]
    assert all(cell in sentence for cell in cells)
    assert manifests["validate_data"].rows["clean"] == 73
    split = execute(run, "split_by_time").rows
    assert split["read"] == sum(split[part] for part in ("train", "test", "outside", "quarantined"))
    tables = read_ingested(run.step("ingest_data"))
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW log AS {numbered_rows(tables.file('interactions'))}")
        assert len(con.sql(valid_rows(run.config, tables)).fetchall()) == 73


def test_too_many_rows_without_a_weight_refuse_the_log(tmp_path: Path) -> None:
    run = run_of(tmp_path, [], {"column": "event", "values": {"click": 1, "x" * 500: 2}})
    execute(run, "ingest_data")
    with pytest.raises(DataError, match="event of a positive must be one of `click`") as caught:
        execute(run, "validate_data")
    assert "'cart', 'purchase', 'refund'" in str(caught.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, [], {"column": "evnt", "values": {"click": 1}})
    execute(run, "ingest_data")
    with pytest.raises(DataError, match=r"there must be a column 'evnt'.*did you mean 'event'"):
        execute(run, "validate_data")


def test_the_coded_log_has_the_weights_of_its_rows(tmp_path: Path) -> None:
    """Positives of 1 and 2 March in time order; a row of label 0 has no part in it."""
    shown = f"0,i0,{T0 + 1},0,view,1"
    run = run_of(tmp_path, [shown], {"column": "event", "values": EVENTS})
    for name in ("ingest_data", "validate_data", "split_by_time", "sample_negatives"):
        execute(run, name)
    log = load_prepared(run.step("sample_negatives")).log
    assert log.weight.tolist() == [1, 2, 5, 0] * 12
    assert log.before(T0 + 2 * HOUR).weight.tolist() == [1, 2]
    last = log.last_of_each()
    assert log.without(last).weight.tolist() == log.weight[~last].tolist()
