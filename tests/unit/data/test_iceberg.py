"""Logs in Iceberg tables: the rows of the asked days, at a snapshot that the manifest says."""

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
from dssm_core.runs.run import create_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

pytest.importorskip("pyiceberg")

DAY = date(2024, 3, 3)
T0 = datetime(2024, 3, 1, tzinfo=UTC)
INGEST = "ingest_data"
TABLE = "shop.clicks"


def rows(days: range) -> pa.Table:
    """A row every hour of some days after T0, the later one first."""
    hours = range(24 * days.start, 24 * days.stop)
    data = [(f"u{n % 7}", f"i{n % 5}", T0 + timedelta(hours=n), n % 2) for n in reversed(hours)]
    frame = pd.DataFrame(data, columns=["user_id", "item_id", "timestamp", "label"])
    frame = frame.astype({"timestamp": "datetime64[us, UTC]"})
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture
def clicks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An Iceberg table with a file and a snapshot for each day from 29 February to 3 March."""
    from pyiceberg import catalog as catalogs
    from pyiceberg.utils.config import Config as Environment

    settings = {"TYPE": "sql", "URI": f"sqlite:///{tmp_path}/catalog.db"}
    for key, value in (settings | {"WAREHOUSE": f"file://{tmp_path}/lake"}).items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__SHELF__{key}", value)
    monkeypatch.setenv("PYICEBERG_CATALOG__AWAY__URI", "http://me:hunter2@127.0.0.1:9")
    monkeypatch.setattr(catalogs, "_ENV_CONFIG", Environment())  # it is read at import
    catalog = catalogs.load_catalog("shelf")
    catalog.create_namespace("shop")
    table = catalog.create_table(TABLE, schema=rows(range(1)).schema)
    for day in range(-1, 3):
        table.append(rows(range(day, day + 1)))
    return table


def config(**settings: Any) -> Config:
    catalog = settings.pop("catalog", "shelf")
    source = {"kind": "iceberg", "catalog": catalog, "interactions": {"table": TABLE, **settings}}
    split = {"test_day": DAY.isoformat(), "train_days": 2}
    return parse_config(small_config(data={"source": source}, split=split, features={}))


def test_the_window_has_the_rows_and_the_manifest_the_snapshot(clicks: Any, tmp_path: Path) -> None:
    run = create_run(config(), tmp_path / "runs", "r")
    execute(run, INGEST)
    found = pd.read_parquet(run.step(INGEST) / "interactions.parquet")
    expected = rows(range(3)).to_pandas().sort_values("timestamp")
    assert found["user_id"].tolist() == expected["user_id"].tolist()
    milliseconds = expected["timestamp"].astype("int64") // 1000
    assert found["timestamp"].tolist() == milliseconds.tolist()
    snapshot = str(clicks.current_snapshot().snapshot_id)
    assert run.need(INGEST).info == {"versions": {"interactions": snapshot}}


def test_a_day_reads_the_files_of_its_rows_only(clicks: Any, tmp_path: Path) -> None:
    from pyiceberg.expressions import LessThan

    earlier = clicks.scan(LessThan("timestamp", "2024-03-03T00:00:00+00:00")).plan_files()
    files = [Path(task.file.file_path.removeprefix("file://")) for task in earlier]
    assert len(files) == 3
    for file in files:
        file.unlink()
    made, _ = land(config(), DAY, tmp_path / "days")
    assert made.rows == {"read": 24, "landed": 24, "without_time": 0, "other_days": 0}
    with pytest.raises(ServiceError, match="cannot be reached"):
        land(config(), DAY - timedelta(days=1), tmp_path / "days")


def test_the_key_follows_the_snapshot_and_a_snapshot_can_be_kept(
    clicks: Any, tmp_path: Path
) -> None:
    first = clicks.snapshots()[2].snapshot_id  # before 3 March
    newest = create_run(config(), tmp_path / "runs", "newest")
    kept = create_run(config(snapshot=first), tmp_path / "runs", "kept")
    keys = [step_key(run, STEPS[INGEST]) for run in (newest, kept)]
    clicks.append(rows(range(3, 4)))
    again = [step_key(run, STEPS[INGEST]) for run in (newest, kept)]
    assert again[0] != keys[0]
    assert again[1] == keys[1]
    execute(kept, INGEST)
    assert kept.need(INGEST).rows == {"read": 48}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"table": "shop.nothing"}, ConfigError, "no such Iceberg table.*shop.nothing"),
        ({"snapshot": 7}, ConfigError, "has no snapshot 7"),
        ({"columns": {"user_id": "uid"}}, DataError, "no column 'uid'"),
        ({"catalog": "nowhere"}, ConfigError, "PYICEBERG_CATALOG__NOWHERE__URI"),
        ({"catalog": "away"}, ServiceError, "'away' cannot be reached"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_clear_error(
    clicks: Any,
    tmp_path: Path,
    settings: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as failed:
        land(config(**settings), DAY, tmp_path)
    assert "hunter2" not in str(failed.value)


def test_a_missing_library_is_named(
    clicks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    with pytest.raises(ConfigError, match=r"pip install 'dssm\[iceberg\]'"):
        land(config(), DAY, tmp_path)
