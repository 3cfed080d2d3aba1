"""What happens to an input: a clear error, or a split whose rows add up. Anything else is a fault.

The oracle is independent of the library: it knows the time of each row by its serial number, and
computes the days itself.
"""

from __future__ import annotations

import os
import re
import traceback
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq

from dssm_core.config import Config, read_config
from dssm_core.errors import ArtifactError, ConfigError, DataError, DssmError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute
from tests.fuzz.inputs import Input

STEPS = ("ingest_data", "validate_data", "split_by_time")
LONGEST = 2_000  # characters of a message
ACTION = re.compile(
    r"(?i)\b(add|cast|check|choose|convert|copy|correct|did you mean|find out|fix|give|keep|leave"
    r"|lower|map|move|must|put|quote|raise|remove|rename|set|should|take|use|widen|write)\b"
)
FOREIGN = re.compile(
    r"Traceback|please report|object at 0x|NoneType|\w+(Exception|Error)\b(?!:? in )"
    r"|duckdb|pyarrow|numpy|pydantic|sqlalchemy|site-packages"
)
REFUSED = "refused"
SPLIT = "split"


class Fault(AssertionError):
    """An input that is neither refused clearly nor split correctly."""


def outcome(given: Input, folder: Path) -> str:
    """REFUSED or SPLIT. Raises Fault. folder: an empty one, which becomes the current folder."""
    _write(given, folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = create_run(read_config(folder / "config.yaml"), folder / "runs", "run")
        with patch("great_expectations.checkpoint.actions.UpdateDataDocsAction.run", _no_pages):
            for step in STEPS:
                execute(run, step)
    except DssmError as error:
        _check_message(error)
        return REFUSED
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        own = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "dssm_core" in frame.filename
        ]
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else last.filename
        raise Fault(f"traceback at {where}: {type(error).__name__}: {str(error)[:300]}") from error
    finally:
        os.chdir(before)
    _check_split(given, run)
    return SPLIT


def _no_pages(*_: object, **__: object) -> dict[str, str]:
    """The Data Docs take most of the time and decide nothing."""
    return {}


def _write(given: Input, folder: Path) -> None:
    for name, data in given.files.items():
        file = folder / "log" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "config.yaml").write_text(given.config, encoding="utf-8")


def _check_message(error: DssmError) -> None:
    message = str(error)
    if not isinstance(error, ConfigError | DataError | ArtifactError):
        raise Fault(f"unclear: {type(error).__name__} would be retried: {message[:300]}")
    if len(message) > LONGEST:
        raise Fault(f"unclear: {len(message)} characters: {message[:300]}")
    if foreign := FOREIGN.search(message):
        raise Fault(f"unclear: {foreign[0]!r} in {message[:500]}")
    if not ACTION.search(message):
        raise Fault(f"unclear: says not what to do: {message[:500]}")


def _check_split(given: Input, run: Run) -> None:
    rows = run.need("split_by_time").rows
    total = sum(rows[part] for part in ("train", "test", "outside", "quarantined"))
    if rows["read"] != total or given.rows not in (None, rows["read"]):
        raise Fault(f"broken sum: {given.rows} rows of the log, {rows}")
    parts = {part: _table(run, "split_by_time", f"{part}.parquet") for part in ("train", "test")}
    for part, table in parts.items():
        if len(table["timestamp"]) != rows[part]:
            raise Fault(
                f"broken sum: {part}.parquet has {len(table['timestamp'])} rows, not {rows}"
            )
    if run.config.split.kind == "days":
        _check_days(given, run, parts)


def _check_days(given: Input, run: Run, parts: dict[str, dict[str, list]]) -> None:
    start, cutoff, end = _edges_ms(run.config)
    if any(not start <= time < cutoff for time in parts["train"]["timestamp"]):
        raise Fault("broken split: a row outside of the train days is in train")
    if any(not cutoff <= time < end for time in parts["test"]["timestamp"]):
        raise Fault("broken split: a row outside of the test days is in test")
    if given.times_ms is None:
        return
    serials = {part: [str(value) for value in table["serial"]] for part, table in parts.items()}
    for step in STEPS[1:]:
        serials[step] = [str(value) for value in _table(run, step, "quarantine.parquet")["serial"]]
    seen = Counter(serial for listed in serials.values() for serial in listed)
    for serial, time in given.times_ms.items():
        expected = "train" if start <= time < cutoff else "test" if cutoff <= time < end else ""
        others = {"train", "test"} - {expected}
        if any(serial in serials[part] for part in others):
            raise Fault(f"broken split: row {serial} at {time} is not in {expected or 'neither'}")
        if seen[serial] != bool(expected) and not (not expected and seen[serial] <= 1):
            raise Fault(f"broken sum: row {serial} at {time} is {seen[serial]} times in the parts")


def _edges_ms(config: Config) -> tuple[int, int, int]:
    """The start of the train days, of the test days, and the end of the test days."""
    split = config.split
    zone = ZoneInfo(config.data.timezone)
    days = (-split.train_days, 0, split.test_days)
    return tuple(_midnight_ms(split.test_day + timedelta(days=day), zone) for day in days)


def _midnight_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def _table(run: Run, step: str, name: str) -> dict[str, list]:
    return pq.read_table(run.step(step) / name, partitioning=None).to_pydict()
