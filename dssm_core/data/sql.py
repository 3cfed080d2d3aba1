"""SQL text: names, values and Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dssm_core.columns import INTERNAL, REASON, ROW

MAX_LINE_BYTES = 32_000_000  # of `whole_lines`: a longer line is an error, it is never cut


def identifier(name: str) -> str:
    """A column name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def folded(name: str) -> bytes:
    """A column name as DuckDB compares it: without regard to the case of ASCII letters."""
    return name.encode("utf-8", "surrogatepass").lower()


def literal(value: str) -> str:
    """A text as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def file_literal(file: Path) -> str:
    """The name of one file as a SQL string: DuckDB's readers would take `*`, `?` and `[` in it for
    a pattern.
    """
    return literal("".join(f"[{char}]" if char in "*?[" else char for char in str(file)))


def parquet(*files: Path) -> str:
    """SQL: the rows of Parquet files, one file after the other; columns are matched by name. A
    folder such as `user_id=me` in a path is a folder, not a column.
    """
    names = ", ".join(map(file_literal, files))
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)"


def whole_lines(files: Iterable[Path]) -> str:
    """SQL: a table with one text column `line`, a row for each line in file order (NULL where the
    line is empty). The separator is a character that no text has.
    """
    paths = ", ".join(map(file_literal, files))
    return (
        rf"read_csv([{paths}], columns = {{line: 'VARCHAR'}}, header = false, delim = E'\x01',"
        " quote = '', escape = '', auto_detect = false, hive_partitioning = false,"
        f" strict_mode = true, max_line_size = {MAX_LINE_BYTES})"
    )


def numbered_rows(file: Path) -> str:
    """SQL: the rows of a Parquet file with their number in the file as column ROW."""
    return f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM {parquet(file)}"


def with_reason(names: Iterable[str], reason: str) -> str:
    """SQL: the columns of a quarantine: those of view `log`, then `reason`, the SQL of why a row is
    quarantined. A log's own column of that name gets the prefix INTERNAL.
    """
    columns = [
        f"log.{identifier(name)} AS {identifier(INTERNAL + name)}"
        if folded(name) == folded(REASON)
        else f"log.{identifier(name)}"
        for name in names
    ]
    return ", ".join([*columns, f"{reason} AS {REASON}"])
