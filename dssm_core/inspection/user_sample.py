"""A sample of a large log: all rows of some users, so that their histories are whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dssm_core.columns import HISTORIES, INTERACTIONS, ITEMS, USER, USERS
from dssm_core.config import Config, Member
from dssm_core.data.database import UNREADABLE, connect, unreadable, write_parquet
from dssm_core.data.histories import write_histories
from dssm_core.data.ingest import open_source
from dssm_core.runs.layout import table_file

MOST_BYTES = 300_000_000  # of the source's files that are read whole; those in .gz count more
UNPACKED = 5  # bytes of text for a byte of .gz
DAY = "1970-01-01"  # the sample is stored as the landed day of this date
KEY = "sample"


@dataclass(frozen=True)
class Sample:
    """One of `one_in` users, drawn by a hash of the id, with all rows: `rows` of them."""

    one_in: int
    rows: int


def take_sample(config: Config, folder: Path) -> tuple[Config, Sample | None]:
    """The config itself if its log is small; else the config of a sample of users in `folder`,
    whose days may have fewer rows by as much.
    """
    files = open_source(config).files()
    size = sum(
        file.stat().st_size * (UNPACKED if file.suffix == ".gz" else 1) for file in files.values()
    )
    one_in = -(-size // MOST_BYTES)
    if one_in <= 1:
        return config, None
    rows = _write(config, folder / DAY / KEY, one_in)
    source = Member.model_validate({"kind": "landed", "path": str(folder), "days": {DAY: KEY}})
    least = config.validation.min_rows_per_day // one_in
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"source": source}),
            "validation": config.validation.model_copy(update={"min_rows_per_day": least}),
        }
    ), Sample(one_in, rows)


def _write(config: Config, folder: Path, one_in: int) -> int:
    """Write the tables, the interactions of one of `one_in` users. Returns their number of rows."""
    folder.mkdir(parents=True)
    try:
        with connect(folder, config.resources) as con:
            tables = open_source(config).read(con)
            for name, table in ((USERS, tables.users), (ITEMS, tables.items)):
                if table is not None:
                    table.create_view(name)
                    write_parquet(con, f"FROM {name}", folder / table_file(name))
            mine = f"hash({USER}) % {one_in} = 0"
            if tables.histories is not None:
                file = folder / table_file(HISTORIES)
                write_histories(con, tables.histories, file, mine)
            tables.interactions.create_view("log")
            drawn = f"FROM log WHERE {mine} OR {USER} IS NULL"
            return write_parquet(con, drawn, folder / table_file(INTERACTIONS))
    except UNREADABLE as error:
        raise unreadable(error) from error
