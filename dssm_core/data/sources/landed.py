"""The days of a run's window that `dssm land` (or the Dag ingest_interactions) has stored."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar

from duckdb import DuckDBPyConnection, DuckDBPyRelation
from pydantic import BaseModel, ConfigDict, Field

from dssm_core.columns import HISTORIES, INTERACTIONS, ITEMS, USERS
from dssm_core.data.sources.files import find_files
from dssm_core.data.sources.protocol import LogTables
from dssm_core.data.sql import parquet


class LandedDays(BaseModel):
    """Days that `landing` has kept. `landing.use_landed_days` writes these settings. Users and
    items are those of the newest day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """The dataset's folder of landed days."""
    days: Annotated[dict[date, str], Field(min_length=1)]
    """Each day of the window, with the key of its content."""

    def files(self) -> dict[str, Path]:
        """The interactions of each day and what their users had taken before, if it is known, then
        the users and items of the newest day; DataError naming a day without files.
        """
        interactions = [self._name(day, INTERACTIONS) for day in sorted(self.days)]
        others = [
            self._name(self._newest, name)
            for name in (USERS, ITEMS)
            if self._file(self._newest, name).is_file()
        ]
        histories = [self._name(day, HISTORIES) for day in self._days_with_histories]
        return find_files(self.path, interactions + histories + others)

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """The days one after the other. A column that a day does not have is NULL in its rows."""
        self.files()
        files = [self._file(day, INTERACTIONS) for day in sorted(self.days)]
        return LogTables(
            con.sql(f"SELECT * FROM {parquet(*files)}"),
            self._newest_table(con, USERS),
            self._newest_table(con, ITEMS),
            self._histories(con),
        )

    @property
    def _newest(self) -> date:
        return max(self.days)

    @property
    def _days_with_histories(self) -> list[date]:
        return [day for day in sorted(self.days) if self._file(day, HISTORIES).is_file()]

    def _histories(self, con: DuckDBPyConnection) -> DuckDBPyRelation | None:
        files = [self._file(day, HISTORIES) for day in self._days_with_histories]
        return con.sql(f"SELECT * FROM {parquet(*files)}") if files else None

    def _newest_table(self, con: DuckDBPyConnection, name: str) -> DuckDBPyRelation | None:
        file = self._file(self._newest, name)
        return con.sql(f"SELECT * FROM {parquet(file)}") if file.is_file() else None

    def _file(self, day: date, name: str) -> Path:
        return Path(self.path) / self._name(day, name)

    def _name(self, day: date, name: str) -> str:
        return f"{day}/{self.days[day]}/{name}.parquet"
