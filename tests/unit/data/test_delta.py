"""Logs in Delta tables: the same rows as from a file, of the asked days only, at a version that the
manifest says.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from dssm_core.config import Config, parse_config
from dssm_core.data.landing import land
from dssm_core.errors import ConfigError, DataError, ServiceError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

delta = pytest.importorskip("deltalake")

DAY = date(2024, 3, 3)
T0 = datetime(2024, 3, 1, tzinfo=UTC)
INGEST = "ingest_data"


def log(days: range) -> pd.DataFrame:
    """A row every hour of some days after T0, the later one first."""
    hours = range(24 * days.start, 24 * days.stop)
    rows = [(f"u{n % 7}", f"i{n % 5}", T0 + timedelta(hours=n), n % 2) for n in reversed(hours)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "label"])
    return frame.astype({"timestamp": "datetime64[us, UTC]"})


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A folder with the Delta table `shop/clicks`: version 0 has 29 February to 2 March, version 1
    also 3 March, in files of a partition a day.
    """
    for days in (range(-1, 2), range(2, 3)):
        write(tmp_path / "lake", log(days))
    return tmp_path / "lake"


def write(folder: Path, frame: pd.DataFrame) -> None:
    frame = frame.assign(day=frame["timestamp"].dt.strftime("%Y-%m-%d"))
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    delta.write_deltalake(folder / "shop" / "clicks", rows, mode="append", partition_by=["day"])


def source(lake: Path | str, **settings: Any) -> dict[str, Any]:
    table = {"table": "shop/clicks", **settings}
    return {"kind": "delta", "path": str(lake), "interactions": table}


def config(source: dict[str, Any]) -> Config:
    split = {"test_day": DAY.isoformat(), "train_days": 2}
    return parse_config(small_config(data={"source": source}, split=split, features={}))


def ingested(settings: Config, runs: Path) -> tuple[Run, pd.DataFrame]:
    run = create_run(settings, runs, "r")
    execute(run, INGEST)
    return run, pd.read_parquet(run.step(INGEST) / "interactions.parquet")


def test_the_window_of_a_delta_table_gives_the_rows_of_a_file(lake: Path, tmp_path: Path) -> None:
    window = log(range(0, 3))
    day = window["timestamp"].dt.strftime("%Y-%m-%d")
    (tmp_path / "file").mkdir()
    window.assign(day=day).to_parquet(tmp_path / "file" / "log.parquet", index=False)
    file = {
        "kind": "parquet",
        "path": str(tmp_path / "file"),
        "interactions": {"files": "log.parquet"},
    }
    _, expected = ingested(config(file), tmp_path / "f")
    run, found = ingested(config(source(lake)), tmp_path / "d")
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    manifest = run.need(INGEST)
    assert manifest.rows == {"read": 72}
    assert manifest.info == {"versions": {"interactions": "1"}}


def test_a_day_reads_the_files_of_its_rows_only(lake: Path, tmp_path: Path) -> None:
    """The files of other days are gone: only a reading of all rows needs them."""
    for file in (lake / "shop" / "clicks").glob("day=2024-0[23]-*/*.parquet"):
        if "2024-03-03" not in file.parent.name:
            file.unlink()
    made, _ = land(config(source(lake)), DAY, tmp_path / "days")
    assert made.rows == {"read": 24, "landed": 24, "without_time": 0, "other_days": 0}
    assert made.versions == {"interactions": "1"}
    with pytest.raises(ServiceError, match="cannot be reached"):
        land(config(source(lake)), DAY - timedelta(days=1), tmp_path / "days")


def test_the_key_follows_the_version_and_a_version_can_be_kept(lake: Path, tmp_path: Path) -> None:
    newest = create_run(config(source(lake)), tmp_path / "runs", "newest")
    kept = create_run(config(source(lake, version=0)), tmp_path / "runs", "kept")
    keys = [step_key(run, STEPS[INGEST]) for run in (newest, kept)]
    write(lake, log(range(3, 4)))
    again = [step_key(run, STEPS[INGEST]) for run in (newest, kept)]
    assert again[0] != keys[0]
    assert again[1] == keys[1]
    execute(kept, INGEST)
    assert kept.need(INGEST).info == {"versions": {"interactions": "0"}}
    assert kept.need(INGEST).rows == {"read": 48}


@pytest.mark.parametrize(
    ("path", "settings", "error", "message"),
    [
        (None, {"table": "shop/nothing"}, ConfigError, "has no Delta table 'shop/nothing'"),
        ("/nowhere", {}, ConfigError, "'/nowhere' has no Delta table"),
        (None, {"version": 7}, ConfigError, r"no version 7: its latest one is 1"),
        (None, {"columns": {"user_id": "uid"}}, DataError, "no column 'uid'"),
        ("s3://bucket", {}, ServiceError, "'s3://bucket' cannot be reached"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_clear_error(
    lake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str | None,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=message) as failed:
        land(config(source(path or lake, **settings)), DAY, tmp_path)
    assert AWAY["AWS_SECRET_ACCESS_KEY"] not in str(failed.value)


AWAY = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_REGION": "here",
    "AWS_ALLOW_HTTP": "true",
    "AWS_MAX_RETRIES": "0",
}


def test_a_key_in_the_path_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="path holds a key or a password") as failed:
        config(source("s3://key:hunter2@bucket/lake"))
    assert "hunter2" not in str(failed.value)


def test_a_missing_library_is_named(
    lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(ConfigError, match=r"pip install 'dssm\[delta\]'"):
        land(config(source(lake)), DAY, tmp_path)
