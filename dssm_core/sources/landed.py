"""Days that `dssm land` (or the Dag ingest_interactions) has kept: the window of a run, and no more of the log."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.errors import DataError
from dssm_core.schema import INTERACTIONS, ITEMS, USERS
from dssm_core.sources.columns import text
from dssm_core.sources.protocol import Tables


class LandedDays(BaseModel):
    """path: the dataset's folder below the landed days; days: each day of the window and the key of its content.

    landing.window_source writes these settings. Users and items are those of the newest day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    days: Annotated[dict[date, str], Field(min_length=1)]

    def files(self) -> dict[str, Path]:
        """Each day's interactions, then the newest day's users and items; DataError naming a day that is not there."""
        found = {f"{day}/{INTERACTIONS}.parquet": self._folder(day) / f"{INTERACTIONS}.parquet" for day in sorted(self.days)}
        if gone := [name for name, file in found.items() if not file.is_file()]:
            raise DataError(f"{gone[0]} is not in {self.path!r} as the run was made with: land the day again, or start a new run")
        newest = max(self.days)
        beside = {f"{newest}/{name}.parquet": self._folder(newest) / f"{name}.parquet" for name in (USERS, ITEMS)}
        return found | {name: file for name, file in beside.items() if file.is_file()}

    def read(self, con: DuckDBPyConnection) -> Tables:
        """The days one after the other; columns that only some have are NULL in the others."""
        files = self.files()
        days = [file for name, file in files.items() if name.endswith(f"/{INTERACTIONS}.parquet")]
        listed = ", ".join(text(str(file)) for file in days)
        newest = self._folder(max(self.days))
        return Tables(
            con.sql(f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"),
            _table(con, newest / f"{USERS}.parquet"),
            _table(con, newest / f"{ITEMS}.parquet"),
        )

    def _folder(self, day: date) -> Path:
        return Path(self.path) / day.isoformat() / self.days[day]


def _table(con: DuckDBPyConnection, file: Path) -> DuckDBPyRelation | None:
    return con.sql(f"SELECT * FROM read_parquet({text(str(file))})") if file.is_file() else None
