"""SQL text: names, values and Parquet files."""

from __future__ import annotations

from pathlib import Path

from dssm_core.columns import ROW


def identifier(name: str) -> str:
    """A column name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """A text as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def parquet(*files: Path) -> str:
    """SQL: the rows of Parquet files, one file after the other; columns are matched by name."""
    names = ", ".join(literal(str(file)) for file in files)
    return f"read_parquet([{names}], union_by_name = true)"


def numbered_rows(file: Path) -> str:
    """SQL: the rows of a Parquet file with their number in the file as column `_row`."""
    rows = f"read_parquet({literal(str(file))}, file_row_number = true)"
    return f"SELECT * EXCLUDE file_row_number, file_row_number AS {ROW} FROM {rows}"
