"""Logs in a database: the same rows as from files, of the asked days only, in a stable order, with
the address nowhere. PostgreSQL runs for real if it is installed; SQLite is always there.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import traceback
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_core.config import Config, parse_config
from dssm_core.data.landing import land
from dssm_core.data.sources.connections import address_in
from dssm_core.errors import ConfigError, DataError, ServiceError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import POSTGRES_PASSWORD, small_config

pytest.importorskip("adbc_driver_postgresql")

VARIABLE = "DSSM_TEST_DATABASE"
DAY = date(2024, 3, 3)
T0 = datetime(2024, 3, 1, tzinfo=UTC)
TO_SPLIT = ("ingest_data", "validate_data", "split_by_time")


def log() -> pd.DataFrame:
    """Four days of a row every half hour from 2024-02-29, in no order; a row without a time, a
    duplicate, and a wrong label.
    """
    rows = [
        (n, f"u{n % 7}", f"i{n % 5}", T0 - timedelta(days=1) + timedelta(minutes=30 * n), n % 2)
        for n in range(192)
    ]
    rows += [(192, "u1", "i1", pd.NaT, 1), (193, *rows[100][1:]), (194, "u1", "i2", T0, 7)]
    names = ["click_id", "user_id", "item_id", "timestamp", "label"]
    frame = pd.DataFrame(rows, columns=names).sample(frac=1, random_state=3)
    return frame.astype({"timestamp": "datetime64[us, UTC]"}).reset_index(drop=True)


def config(source: dict[str, Any], **changes: Any) -> Config:
    raw = {
        "data": {"source": source, "positive": "label == 1", "labels": [0, 1]},
        "split": {"test_day": DAY.isoformat(), "train_days": 2},
        "validation": {"max_quarantine_share": 0.1},
        "features": {},
        "evaluation": {"ks": [1]},
        "gate": {"k": 1},
    }
    return parse_config(small_config(**raw | changes))


def of_database(query: str = "SELECT * FROM clicks", **settings: Any) -> dict[str, Any]:
    table = {"query": query, "order": ["click_id"], **settings}
    return {"kind": "sql", "connection": VARIABLE, "interactions": table}


def of_file(folder: Path, frame: pd.DataFrame) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    frame.sort_values("click_id").to_parquet(folder / "log.parquet", index=False)
    return {"kind": "parquet", "path": str(folder), "interactions": {"files": "log.parquet"}}


def run_steps(settings: Config, runs: Path, run_id: str = "r") -> Run:
    run = create_run(settings, runs, run_id)
    for step in TO_SPLIT:
        execute(run, step)
    return run


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """What the steps wrote about rows."""
    files = [
        run.step("ingest_data") / "interactions.parquet",
        run.step("validate_data") / "quarantine.parquet",
        *(run.step("split_by_time") / f"{part}.parquet" for part in ("train", "test")),
    ]
    return {file.stem: pd.read_parquet(file) for file in files}


def psql(address: str, *statements: str) -> None:
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(address) as con, con.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        con.commit()


@pytest.fixture
def clicks(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a database with table `clicks`, which holds `log()`."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(postgres) as con, con.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS clicks CASCADE")
        cursor.adbc_ingest("clicks", pa.Table.from_pandas(log(), preserve_index=False))
        con.commit()
    monkeypatch.setenv(VARIABLE, postgres)
    return postgres


def test_a_log_in_postgres_gives_the_rows_and_quarantine_of_the_same_log_in_a_file(
    clicks: str, tmp_path: Path
) -> None:
    frame = log()
    inside = frame["timestamp"].isna() | (frame["timestamp"] >= T0)
    expected = tables(run_steps(config(of_file(tmp_path / "log", frame[inside])), tmp_path / "f"))
    run = run_steps(config(of_database()), tmp_path / "d")
    for name, table in tables(run).items():
        pd.testing.assert_frame_equal(table, expected[name])
    assert run.need("split_by_time").rows == {
        "read": 147,
        "train": 96,
        "test": 48,
        "outside": 0,
        "quarantined": 3,
    }


@pytest.mark.parametrize(
    ("times", "settings"),
    [
        ("timestamp", {}),
        ("timestamp AT TIME ZONE 'America/Sao_Paulo'", {"timezone": "America/Sao_Paulo"}),
        ("CAST(extract(epoch FROM timestamp) AS bigint)", {"time_unit": "s"}),
        ("CAST(extract(epoch FROM timestamp) * 1000 AS bigint)", {}),
        ("extract(epoch FROM timestamp)::float8 * 1e9", {"time_unit": "ns"}),
    ],
    ids=["timestamptz", "timestamp", "s", "ms", "ns"],
)
def test_the_database_sends_the_asked_day_only(
    clicks: str, tmp_path: Path, times: str, settings: dict[str, str]
) -> None:
    """Each other row, more than three hours away, divides by zero if it is sent."""
    far = "timestamp < '2024-03-02 21:00Z' OR timestamp >= '2024-03-04 03:00Z'"
    query = (
        "SELECT click_id, user_id, item_id, {} AS timestamp,"
        f" label / CASE WHEN {far} THEN 0 ELSE 1 END AS label FROM clicks"
    )
    made, _ = land(config(of_database(query.format(times), **settings)), DAY, tmp_path)
    assert made.rows == {"read": 49, "landed": 48, "without_time": 1, "other_days": 0}
    as_text = of_database(query.format("timestamp::text"), time_unit="iso")
    with pytest.raises(ServiceError, match=r"division by zero"):
        land(config(as_text), DAY, tmp_path)


def test_rows_of_equal_times_are_in_the_order_that_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [(3, "b", "x", 5), (1, "c", "x", 5), (2, "a", "x", 5), (4, "a", "w", 1)]
    for nth, order in enumerate((rows, rows[::-1])):
        with closing(sqlite3.connect(tmp_path / f"{nth}.db")) as con:
            con.execute("CREATE TABLE clicks (click_id, user_id, item_id, timestamp)")
            con.executemany("INSERT INTO clicks VALUES (?, ?, ?, ?)", order)
            con.commit()
        monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path / f'{nth}.db'}")
        split = {"kind": "holdout"}
        for by, users in ((["click_id"], "acab"), (["user_id"], "aabc"), ([], "acab")):
            settings = untimed(of_database(order=by), split)
            run = create_run(settings, tmp_path, "-".join([str(nth), *by]))
            execute(run, "ingest_data")
            table = pq.read_table(run.step("ingest_data") / "interactions.parquet")
            assert "".join(table["user_id"].to_pylist()) == users


def untimed(source: dict[str, Any], split: dict[str, Any]) -> Config:
    features = {"activity": {"enabled": False}}
    return config(
        source,
        split=split,
        features=features,
        sampler={"kind": "uniform"},
        evaluation={"ks": [1], "baselines": ["hot"]},
        data={"source": source, "positive": "click_id > 0", "labels": None},
    )


def test_the_key_follows_the_rows_of_the_window_only(clicks: str, tmp_path: Path) -> None:
    run = create_run(config(of_database()), tmp_path, "r")
    keys = [step_key(run, STEPS["ingest_data"])]
    for changed in (
        "UPDATE clicks SET label = 1 - label WHERE timestamp < '2024-03-01'",  # before the window
        "UPDATE clicks SET label = 1 - label WHERE click_id = 60",
        "UPDATE clicks SET label = 1 - label WHERE click_id = 60",  # as it was
    ):
        psql(clicks, changed)
        keys.append(step_key(run, STEPS["ingest_data"]))
    assert keys[1] == keys[0] != keys[2]
    assert keys[3] == keys[0]


def test_sessions_and_impressions_are_the_same_in_every_span(clicks: str, tmp_path: Path) -> None:
    """Two cells of one time, each with two items: sessions by time and number, in a window and in a
    landed day.
    """
    query = (
        "SELECT click_id, timestamp, item_id || ' other' AS shown, label FROM clicks"
        " WHERE click_id < 192 UNION ALL SELECT 1000, '2024-03-03', 'late other', 1"
    )
    source = of_database(
        query, columns={"item_id": "shown"}, explode={"column": "shown"}, anonymous=True
    )
    settings = config(
        source,
        features={"first_context": True, "history": {"length": 0}, "columns": {"context": [SHOWN]}},
        gate={"k": 1, "population": "all"},
    )
    run = create_run(settings, tmp_path, "r")
    execute(run, "ingest_data")
    window = pd.read_parquet(run.step("ingest_data") / "interactions.parquet")
    made, _ = land(settings, DAY, tmp_path / "days")
    (file,) = (tmp_path / "days" / "small" / DAY.isoformat()).glob("*/interactions.parquet")
    day = pd.read_parquet(file)
    assert len(window) == 2 * 145
    assert made.rows["landed"] == len(day) == 2 * 49
    cutoff = T0.timestamp() * 1000 + 2 * 86_400_000
    later = window[window["timestamp"] >= cutoff].reset_index(drop=True)
    pd.testing.assert_frame_equal(later, day)
    assert day["impression_id"].nunique() == day["user_id"].nunique() == 49
    assert day["user_id"].tolist()[:4] == [
        *["impression:2024-03-03 00:00:00+00-1"] * 2,
        *["impression:2024-03-03 00:00:00+00-2"] * 2,
    ]


SHOWN = {"column": "click_id", "kind": "categorical"}


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("", ConfigError, f"the environment variable {VARIABLE} is not set"),
        ("hunter2-of-the-log", ConfigError, "holds no address"),
        ("mysql://me:{password}@host/db", ConfigError, "mysql://, which source kind 'sql' cannot"),
        ("postgresql://dssm:a/{password}@{host}/postgres", ConfigError, "cannot be taken apart"),
        ("postgresql://dssm:a@{password}@{host}/postgres", ConfigError, "cannot be taken apart"),
        ("postgresql://dssm:no-{password}@{host}/postgres", ConfigError, "authentication failed"),
        ("postgresql://dssm:{password}@{host}/nowhere", ConfigError, '"nowhere" does not exist'),
        ("postgresql://dssm:{password}@127.0.0.1:9/db", ServiceError, "Connection refused"),
        ('{{"password": "{password}"}}', ConfigError, "holds no connection of Airflow"),
        ("sqlite:////nowhere/{password}.db", ConfigError, "is no file"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_clear_error_without_the_password(
    clicks: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    address: str,
    error: type[Exception],
    message: str,
) -> None:
    host = clicks.partition("@")[2].partition("/")[0]
    monkeypatch.setenv(VARIABLE, address.format(password=POSTGRES_PASSWORD, host=host))
    with pytest.raises(error, match=message) as failed:
        land(config(of_database()), DAY, tmp_path)
    shown = "".join(traceback.format_exception(failed.value))
    assert POSTGRES_PASSWORD not in shown


@pytest.mark.parametrize(
    ("query", "settings", "error", "message"),
    [
        ("SELECT * FROM nothing", {}, ConfigError, 'relation "nothing" does not exist'),
        ("SELECT nothing FROM clicks", {}, ConfigError, 'column "nothing" does not exist'),
        ("DELETE FROM clicks", {}, ConfigError, "syntax error"),
        ("SELECT * FROM clicks WHERE false", {}, DataError, "no row of 2024-03-03"),
        ("SELECT * FROM clicks;", {"columns": {"user_id": "uid"}}, DataError, "no column 'uid'"),
        ("SELECT * FROM clicks", {"order": ["id"]}, DataError, "no column 'id', which order names"),
        ('SELECT 1 AS a, 2 AS "A"', {"order": []}, DataError, "differ in more than case"),
    ],
)
def test_a_query_that_cannot_be_used_is_one_clear_error(
    clicks: str,
    tmp_path: Path,
    query: str,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        land(config(of_database(query, **settings)), DAY, tmp_path)


def test_a_server_that_ends_in_the_middle_is_worth_a_retry(clicks: str, tmp_path: Path) -> None:
    cutoff = int(T0.timestamp() * 1000) + 2 * 86_400_000
    ends = "CASE WHEN n > 500000 THEN pg_terminate_backend(pg_backend_pid())::int ELSE 1 END"
    rows = "generate_series(1, 1000000) n"
    query = (
        f"SELECT {ends} AS label, n AS user_id, n AS item_id, {cutoff} + n AS timestamp FROM {rows}"
    )
    with pytest.raises(ServiceError, match=r"did not do its part.*retry"):
        land(config(of_database(query, order=[])), DAY, tmp_path)


@pytest.mark.parametrize("address", ["postgresql://me:{}@host/db", "host=db password={}", "{}-x"])
def test_an_address_in_a_config_is_refused_and_not_shown(address: str) -> None:
    source = of_database() | {"connection": address.format(POSTGRES_PASSWORD)}
    with pytest.raises(ConfigError, match="name of an environment variable") as failed:
        config(source)
    assert POSTGRES_PASSWORD not in str(failed.value)


def test_the_password_is_in_no_file_and_no_line_of_a_run(
    clicks: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = config(of_database())
    execute(create_run(settings, tmp_path / "runs", "r"), "ingest_data")
    for day in (DAY, DAY - timedelta(days=1)):
        land(settings, day, tmp_path / "days")
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 6
    assert not any(POSTGRES_PASSWORD.encode() in content for content in written)
    assert POSTGRES_PASSWORD not in caplog.text


def test_airflows_json_is_an_address(clicks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = urlsplit(clicks)
    fields = {"conn_type": "postgres", "login": at.username, "password": at.password}
    place = {"host": at.hostname, "port": at.port, "schema": "postgres"}
    monkeypatch.setenv(VARIABLE, json.dumps(fields | place))
    assert address_in(VARIABLE) == clicks.replace("postgresql://", "postgres://")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, f"sqlite:///{tmp_path}/log.db")
    monkeypatch.setitem(sys.modules, "adbc_driver_sqlite", None)
    monkeypatch.delitem(sys.modules, "adbc_driver_sqlite.dbapi", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'dssm\[sql\]'"):
        land(config(of_database()), DAY, tmp_path)
