"""What users had taken before the log began: one row a user, from the user's earliest row."""

from __future__ import annotations

from pathlib import Path

from duckdb import DuckDBPyConnection, DuckDBPyRelation

from dssm_core.columns import HISTORY, INTERNAL, ROW, TIME, USER
from dssm_core.data.database import write_parquet

NO_HISTORIES = f"SELECT '' AS {USER}, 0::BIGINT AS {TIME}, []::VARCHAR[] AS {HISTORY} WHERE false"


def write_histories(
    con: DuckDBPyConnection, histories: DuckDBPyRelation, file: Path, inside: str
) -> None:
    """Write the HISTORY of the earliest row of each user, the first of equal times, to Parquet.

    histories: see LogTables. inside: SQL, the times of the rows that count. Rows after the earliest
    one are left out even if it has no item: their cells may hold clicks of the log.
    """
    histories.create_view(f"{INTERNAL}histories", replace=True)
    numbered = f"SELECT *, row_number() OVER () AS {ROW} FROM {INTERNAL}histories"
    earliest = f"arg_min_null({HISTORY}, {{'time': {TIME}, 'row': {ROW}}})"
    write_parquet(
        con,
        f"SELECT {USER}, min({TIME}) AS {TIME}, {earliest} AS {HISTORY} FROM ({numbered})"
        f" WHERE {USER} IS NOT NULL AND {TIME} IS NOT NULL AND ({inside})"
        f" GROUP BY {USER} ORDER BY {USER}",
        file,
    )
