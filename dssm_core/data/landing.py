"""Landed days: a log that arrives day by day. Each local day is read once and stored as Parquet,
for the runs whose window contains it.

<days>/<dataset>/<day>/<key>/ holds the tables of a day; the key is the hash of their content.
<day>/landed.json names the key of the day and is written last. A replaced day gets another folder,
so that runs that have started with the old content can finish with it.
"""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import HISTORIES, INTERACTIONS, ITEMS, TIME, USERS
from dssm_core.config import Config, Member
from dssm_core.data.database import UNREADABLE, connect, one_row, unreadable, write_table
from dssm_core.data.histories import write_histories
from dssm_core.data.ingest import open_source, read_source
from dssm_core.data.log_days import log_days
from dssm_core.data.sources.protocol import Span, TableSource
from dssm_core.data.splits.days import Days, day_start_ms
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.files import digest, disk_errors, sha256, write_atomically
from dssm_core.runs.layout import table_file

log = logging.getLogger(__name__)

MARKER = "landed.json"
ANNOUNCED = "announced"  # file in the day's folder: fingerprint of the content last announced
QUARANTINE = "quarantine"
KEY_LENGTH = 16


class LandedDay(BaseModel):
    """A stored day.

    key: name of its folder. files: SHA-256 of each file. rows: read = landed + other_days +
    without_time. timezone: time zone in which the day begins and ends. versions: the version of
    each table that was read, if tables of the source have versions.
    """

    model_config = ConfigDict(frozen=True)
    day: date
    key: str
    files: dict[str, str]
    rows: dict[str, int]
    timezone: str
    versions: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """The hash of the day's interactions, and of what users had taken before, if it is known.
        Users and items are left out: they are as of the landing, not of the day.
        """
        names = [table_file(name) for name in (INTERACTIONS, HISTORIES)]
        held = [self.files[name] for name in names if name in self.files]
        return held[0] if len(held) == 1 else digest(held)


def land(config: Config, day: date, days: Path) -> tuple[LandedDay, bool]:
    """Read the config's source and store the interactions of one local day below `days`.

    Returns the stored day, and whether its interactions or its time zone differ from what was
    stored before. Rows whose time cannot be parsed go to quarantine.parquet beside the tables.
    Raises DataError when the day has no row; what was stored before stays as it is.
    """
    folder = days / config.name / day.isoformat()
    before = find_day(days, config.name, day)
    part = folder / ".part"
    with disk_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    rows, versions, days_read = _read(config, day, part)
    if not rows["landed"]:
        shutil.rmtree(part)
        raise DataError(
            f"the log of {config.name!r} has no row of {day} ({config.data.timezone});"
            f" {rows['other_days']} rows are of other days, {rows['without_time']} have no readable"
            f" time: {days_read}. Check the day, --data, and time_unit of the timestamp"
        )
    files = {file.name: sha256(file) for file in sorted(part.glob("*.parquet"))}
    stored = LandedDay(
        day=day,
        key=digest(files)[:KEY_LENGTH],
        files=files,
        rows=rows,
        timezone=config.data.timezone,
        versions=versions,
    )
    _publish(part, folder, stored)
    changed = before is None or (before.fingerprint, before.timezone) != (
        stored.fingerprint,
        stored.timezone,
    )
    return stored, changed


def check_day_is_over(config: Config, day: date, now: datetime) -> None:
    """DataError if a local day has not ended at `now`: half of a day must not be trained on as a
    whole day.
    """
    end_ms = day_start_ms(day + timedelta(days=1), config.data.zone)
    if end_ms > now.timestamp() * 1000:
        end = datetime.fromtimestamp(end_ms / 1000, UTC)
        raise DataError(
            f"{day} ({config.data.timezone}) is not over: it ends at {end:%Y-%m-%d %H:%M} UTC. Land"
            " it after that"
        )


def find_day(days: Path, dataset: str, day: date) -> LandedDay | None:
    """The stored day, None if it has not landed."""
    file = days / dataset / day.isoformat() / MARKER
    return LandedDay.model_validate_json(file.read_bytes()) if file.is_file() else None


def announced_fingerprint(days: Path, dataset: str, day: date) -> str | None:
    """The fingerprint (see LandedDay) of the content that was announced for a day.

    None if the day was never announced, for example after `dssm land` or after a task was killed.
    """
    file = days / dataset / day.isoformat() / ANNOUNCED
    return file.read_text() if file.is_file() else None


def mark_announced(days: Path, dataset: str, day: date, fingerprint: str) -> None:
    """Record that the content with this fingerprint has been announced."""
    write_atomically(days / dataset / day.isoformat() / ANNOUNCED, fingerprint.encode())


def use_landed_days(config: Config, days: Path) -> Config:
    """The config with the landed days of its window as source. The key of each day is a setting, so
    that a replaced day makes another run.

    Raises ConfigError if the split has no days, and DataError naming the days that have not landed
    or that landed in another time zone.
    """
    if not isinstance(config.split, Days):
        raise ConfigError(
            f"split {config.split.kind!r} has no days to wait for: use split.kind days, or read the"
            " log itself with --data"
        )
    landed = {day: find_day(days, config.name, day) for day in config.split.days}
    if missing := [day.isoformat() for day, stored in landed.items() if stored is None]:
        raise DataError(
            f"{', '.join(missing)} of {config.name!r} have not landed in {days}: run `dssm land`,"
            " or the Dag ingest_interactions, for each of these days"
        )
    stored_days = [stored for stored in landed.values() if stored]
    if zones := sorted({stored.timezone for stored in stored_days} - {config.data.timezone}):
        raise DataError(
            f"days of {config.name!r} were landed in {zones[0]}, but data.timezone is"
            f" {config.data.timezone}: land them again"
        )
    keys = {stored.day.isoformat(): stored.key for stored in stored_days}
    source = Member.model_validate(
        {"kind": "landed", "path": str(days / config.name), "days": keys}
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"source": source})})


def windows_containing(day: date, split: Days) -> list[date]:
    """The test days whose window contains a day, oldest first: the runs to repeat when the day is
    replaced.
    """
    last = day + timedelta(days=split.train_days)
    return [last - timedelta(days=back) for back in range(len(split.days) - 1, -1, -1)]


def _read(config: Config, day: date, part: Path) -> tuple[dict[str, int], dict[str, str], str]:
    """Write the tables of a day into the folder `part`. Returns the number of rows of each sort,
    the versions of the tables, and the days that the log has if none is of the day.
    """
    zone = config.data.zone
    span = Span(day_start_ms(day, zone), day_start_ms(day + timedelta(days=1), zone))
    try:
        with connect(part, config.resources) as con:
            tables = read_source(con, open_source(config), span)
            for name, table in ((USERS, tables.users), (ITEMS, tables.items)):
                if table is not None:
                    write_table(con, table, part / table_file(name))
            tables.interactions.create_view("log")
            if tables.histories is not None:
                write_histories(con, tables.histories, part / table_file(HISTORIES), span.sql)
            rows = _write_day(con, span.sql, part)
            return rows, dict(tables.versions), "" if rows["landed"] else _days_read(con, config)
    except UNREADABLE as error:
        raise unreadable(error) from error


def _days_read(con: DuckDBPyConnection, config: Config) -> str:
    """The days that view `log` has, as a sentence for errors."""
    if isinstance(open_source(config), TableSource):
        return "rows of other days were not asked for"
    return log_days(con, config)


def _write_day(con: DuckDBPyConnection, condition: str, part: Path) -> dict[str, int]:
    """Write the interactions that meet a condition, and those without a time. Returns the number of
    rows of each sort.
    """
    (read,) = one_row(con, "SELECT count(*) FROM log")
    day = con.sql(f"SELECT * FROM log WHERE {condition}")
    landed = write_table(con, day, part / table_file(INTERACTIONS), TIME)
    without_time = write_table(
        con, con.sql(f"SELECT * FROM log WHERE {TIME} IS NULL"), part / table_file(QUARANTINE)
    )
    if without_time:
        log.warning(
            "%d rows have no readable time: they are in %s of the day",
            without_time,
            table_file(QUARANTINE),
        )
    return {
        "read": read,
        "landed": landed,
        "without_time": without_time,
        "other_days": read - landed - without_time,
    }


def _publish(part: Path, folder: Path, stored: LandedDay) -> None:
    target = folder / stored.key
    with disk_errors(folder):
        if target.exists():  # the same content was stored for this day before
            shutil.rmtree(part)
        else:
            part.rename(target)
    write_atomically(folder / MARKER, stored.model_dump_json(indent=2).encode())
