"""A log that arrives a day at a time: each local day is read once, kept as Parquet, and found by
the runs whose window holds it.

<days>/<dataset>/<day>/<key>/ holds a day's tables, where key is the hash of their content;
<day>/landed.json says which key is the day's and is written last. A replaced day is another folder:
runs that have begun with the old one finish with it.
"""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEMS, TIME, USERS
from dssm_core.config import Config, Member
from dssm_core.data.database import UNREADABLE, connect, unreadable, write_table
from dssm_core.data.ingest import open_source
from dssm_core.data.splits.days import Days, day_start_ms
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.files import digest, disk_errors, sha256, write_atomically
from dssm_core.runs.layout import table_file

log = logging.getLogger(__name__)

MARKER, QUARANTINE = "landed.json", "quarantine"
ANNOUNCED = "announced"  # beside it: the clicks that whoever waits for the day has been told of


class LandedDay(BaseModel):
    """A day that is there. files: sha256 of each; rows: read = landed + of other days + without a
    time; timezone: of the day.
    """

    model_config = ConfigDict(frozen=True)
    day: date
    key: str
    files: dict[str, str]
    rows: dict[str, int]
    timezone: str

    @property
    def clicks(self) -> str:
        """What the day is known by: the hash of its interactions. Tables of users and items are as
        of the landing, not of the day.
        """
        return self.files[table_file(INTERACTIONS)]


def land(config: Config, day: date, days: Path) -> tuple[LandedDay, bool]:
    """Read the config's source and keep what happened on a local day; and whether its clicks are
    new or other than what was there.

    Rows whose time cannot be read go to quarantine.parquet beside the tables. DataError where the
    day has no row at all: what is there stays as it is.
    """
    folder, before = days / config.name / day.isoformat(), find_day(days, config.name, day)
    part = folder / ".part"
    with disk_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    rows = _read(config, day, part)
    if not rows["landed"]:
        shutil.rmtree(part)
        others = f"{rows['other_days']} rows are of other days"
        raise DataError(
            f"the log of {config.name!r} has no row of {day} ({config.data.timezone}), {others}: check the day and --data"
        )
    files = {file.name: sha256(file) for file in sorted(part.glob("*.parquet"))}
    made = LandedDay(
        day=day, key=digest(files)[:16], files=files, rows=rows, timezone=config.data.timezone
    )
    _publish(part, folder, made)
    return made, before is None or (before.clicks, before.timezone) != (made.clicks, made.timezone)


def check_day_is_over(config: Config, day: date, now: datetime) -> None:
    """DataError where a local day goes on: half of it would be trained on as if it were whole."""
    if (ends := day_start_ms(day + timedelta(days=1), config.data.zone)) > now.timestamp() * 1000:
        at = datetime.fromtimestamp(ends / 1000, UTC)
        raise DataError(
            f"{day} ({config.data.timezone}) ends at {at:%Y-%m-%d %H:%M} UTC, which is not over: land it after that"
        )


def find_day(days: Path, dataset: str, day: date) -> LandedDay | None:
    """What is there of a day, None where it has not arrived."""
    file = days / dataset / day.isoformat() / MARKER
    return LandedDay.model_validate_json(file.read_bytes()) if file.is_file() else None


def announced_clicks(days: Path, dataset: str, day: date) -> str | None:
    """The clicks (see LandedDay) that have been announced; None where the day never was, as after
    `dssm land` or a task that was killed.
    """
    file = days / dataset / day.isoformat() / ANNOUNCED
    return file.read_text() if file.is_file() else None


def mark_announced(days: Path, dataset: str, day: date, clicks: str) -> None:
    """Remember that these clicks of a day have been announced."""
    write_atomically(days / dataset / day.isoformat() / ANNOUNCED, clicks.encode())


def use_landed_days(config: Config, days: Path) -> Config:
    """The config with its window's landed days as source; the key of each day is a setting, so that
    a replaced day is another run.

    ConfigError where the split has no days; DataError naming days that have not arrived, or were
    landed in another time zone.
    """
    if not isinstance(config.split, Days):
        raise ConfigError(
            f"split {config.split.kind!r} has no days to wait for: take split.kind days, or give the log with --data"
        )
    found = {day: find_day(days, config.name, day) for day in config.split.days}
    if missing := [day.isoformat() for day, there in found.items() if there is None]:
        said = f"{', '.join(missing)} of {config.name!r} have not landed in {days}"
        raise DataError(f"{said}: run `dssm land`, or the Dag ingest_interactions, for them")
    known = {day.isoformat(): there for day, there in found.items() if there}
    if other := sorted({there.timezone for there in known.values()} - {config.data.timezone}):
        raise DataError(
            f"days of {config.name!r} were landed in {other[0]}, but data.timezone is {config.data.timezone}: land them again"
        )
    keys = {day: there.key for day, there in known.items()}
    source = Member.model_validate(
        {"kind": "landed", "path": str(days / config.name), "days": keys}
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})


def windows_containing(day: date, split: Days) -> list[date]:
    """The test days whose window holds a day, oldest first: what has to be trained anew when the
    day is replaced.
    """
    last = day + timedelta(days=split.train_days)
    return [last - timedelta(days=back) for back in range(len(split.days) - 1, -1, -1)]


def _read(config: Config, day: date, part: Path) -> dict[str, int]:
    zone = config.data.zone
    start, end = day_start_ms(day, zone), day_start_ms(day + timedelta(days=1), zone)
    try:
        with connect(part) as con:
            tables = open_source(config).read(con)
            for name, table in ((USERS, tables.users), (ITEMS, tables.items)):
                if table is not None:
                    write_table(con, table, part / table_file(name))
            tables.interactions.create_view("log")
            return _part(con, f"{TIME} >= {start} AND {TIME} < {end}", part)
    except UNREADABLE as error:
        raise unreadable(error) from error


def _part(con: DuckDBPyConnection, inside: str, part: Path) -> dict[str, int]:
    """Write the day's interactions and those without a time; rows of each sort."""
    rows = {"read": con.table("log").count("*").fetchall()[0][0]}
    rows["landed"] = write_table(
        con, con.sql(f"SELECT * FROM log WHERE {inside}"), part / table_file(INTERACTIONS), TIME
    )
    rows["without_time"] = write_table(
        con, con.sql(f"SELECT * FROM log WHERE {TIME} IS NULL"), part / f"{QUARANTINE}.parquet"
    )
    if rows["without_time"]:
        log.warning(
            "%d rows have no time that can be read: they are kept in %s.parquet of the day",
            rows["without_time"],
            QUARANTINE,
        )
    return rows | {"other_days": rows["read"] - rows["landed"] - rows["without_time"]}


def _publish(part: Path, folder: Path, made: LandedDay) -> None:
    target = folder / made.key
    with disk_errors(folder):
        if target.exists():  # it was the day's before, and becomes so again
            shutil.rmtree(part)
        else:
            part.rename(target)
    write_atomically(folder / MARKER, made.model_dump_json(indent=2).encode())
