"""The G1/Globo.com news clicks: one gzip CSV an hour of session start.

A file holds the sessions that start in its hour, so a click may lie hours later: ingest sorts by
time. Cite de Souza Pereira Moreira et al., "News Session-Based Recommendations using Deep Neural
Networks", DLRS 2018.
"""

from __future__ import annotations

from pathlib import Path

from duckdb import DuckDBPyConnection
from pydantic import BaseModel, ConfigDict

from dssm_core.columns import INTERACTIONS, ITEM, TIME, USER
from dssm_core.data.sources.columns import find_files
from dssm_core.data.sources.delimited import TextTable, read_text
from dssm_core.data.sources.protocol import Tables

PATTERN = "clicks_hour_*.csv.gz"


class Globo(BaseModel):
    """path: the folder of clicks_hour_000.csv.gz and so on. Clicks only; six context columns come
    along.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: str

    def files(self) -> dict[str, Path]:
        """The hourly files, in order; DataError when the folder has none."""
        return find_files(self.path, [PATTERN])

    def read(self, con: DuckDBPyConnection) -> Tables:
        """Interactions with session_id, session_start, session_size and the click_* context columns
        as text.
        """
        columns = {USER: "user_id", ITEM: "click_article_id", TIME: "click_timestamp"}
        return Tables(
            read_text(con, self.files(), INTERACTIONS, TextTable(files=PATTERN, columns=columns))
        )
