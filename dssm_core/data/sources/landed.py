"""Days that `dssm land` (or the Dag ingest_interactions) has kept: the window of a run, and no more
of the log.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.columns import find_files, text
from dssm_core.data.sources.protocol import Tables


class LandedDays(BaseModel):
    """path: the dataset's folder below the landed days; days: each day of the window and the key of
    its content.

    landing.from_days writes these settings. Users and items are those of the newest day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str
    days: Annotated[dict[date, str], Field(min_length=1)]

    def files(self) -> dict[str, Path]:
        """Each day's interactions, then the newest day's users and items; DataError naming a day
        that is not there.
        """
        beside = [name for name in (USERS, ITEMS) if self._file(max(self.days), name).is_file()]
        names = [self._name(day, INTERACTIONS) for day in sorted(self.days)] + [
            self._name(max(self.days), name) for name in beside
        ]
        return find_files(self.path, names)

    def read(self, con: DuckDBPyConnection) -> Tables:
        """The days one after the other; columns that only some have are NULL in the others."""
        self.files()
        files = [self._file(day, INTERACTIONS) for day in sorted(self.days)]
        return Tables(_rows(con, files), *(self._beside(con, name) for name in (USERS, ITEMS)))

    def _beside(self, con: DuckDBPyConnection, name: str) -> DuckDBPyRelation | None:
        file = self._file(max(self.days), name)
        return _rows(con, [file]) if file.is_file() else None

    def _file(self, day: date, name: str) -> Path:
        return Path(self.path) / self._name(day, name)

    def _name(self, day: date, name: str) -> str:
        return f"{day}/{self.days[day]}/{name}.parquet"


def _rows(con: DuckDBPyConnection, files: list[Path]) -> DuckDBPyRelation:
    return con.sql(
        f"SELECT * FROM read_parquet([{', '.join(text(str(file)) for file in files)}], union_by_name = true)"
    )
