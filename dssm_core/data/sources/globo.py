"""The news clicks of G1/Globo.com: one gzip CSV for each hour of session start.

A file holds the sessions that start in its hour. Their clicks may be hours later, so the ingest
step sorts by time. Cite de Souza Pereira Moreira et al., "News Session-Based Recommendations using
Deep Neural Networks", DLRS 2018.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, TIME, USER
from dssm_core.data.sources.delimited import TextTable, read_text
from dssm_core.data.sources.files import find_files
from dssm_core.data.sources.protocol import LogTables

CLICKS = TextTable(
    files="clicks_hour_*.csv.gz",
    columns={USER: "user_id", ITEM: "click_article_id", TIME: "click_timestamp"},
)


class Globo(BaseModel):
    """The log of Globo.com: interactions only, with six context columns named click_*."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    timed: ClassVar[bool] = True
    ignores: ClassVar[tuple[str, ...]] = ()
    path: str
    """The folder of clicks_hour_000.csv.gz and so on."""

    def files(self) -> dict[str, Path]:
        """The hourly files in order; DataError when the folder has none."""
        return find_files(self.path, [CLICKS.files])

    def read(self, con: DuckDBPyConnection) -> LogTables:
        """Interactions with session_id, session_start, session_size and the click_* columns as
        text.
        """
        return LogTables(read_text(con, self.files(), INTERACTIONS, CLICKS))
