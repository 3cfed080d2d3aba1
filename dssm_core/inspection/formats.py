"""How a text file is written: its encoding, separator, quote and header, from its first bytes."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from dssm_core.data.sources.delimited import TextTable
from dssm_core.data.sql import file_literal
from dssm_core.errors import DataError, shown

HEAD_BYTES = 1 << 20  # of a file; the rest is not looked at to tell its format
OTHER_SEPARATORS = ("::", " ", "\x01", ":", "^", "~")  # those that DuckDB does not try
FIRST_LINES = 1_000  # that are compared with the first one
FEWEST_LINES = 5  # with fewer lines, it is not said what the lines may be
GZIP = b"\x1f\x8b"
KNOWN = {b"PK": "a zip archive: unpack it", b"PAR1": "Parquet: name it .parquet"}
Encoding = Literal["utf-8", "utf-16", "latin-1"]


@dataclass(frozen=True)
class TextFormat:
    """How a text file is written.

    names: of its columns, by position (`column1`, …) where there is no header line. doubts: a
    sentence for what may be wrong.
    """

    separator: str
    quote: str
    encoding: Encoding
    header: bool
    names: tuple[str, ...]
    doubts: tuple[str, ...] = ()

    @property
    def table(self) -> TextTable:
        """The settings of a table in such files, of any name."""
        return TextTable(
            files="*",
            separator=self.separator,
            quote=self.quote,
            encoding=self.encoding,
            names=None if self.header else self.names,
        )


def tell_format(file: Path) -> TextFormat:
    """The format of a text file. Raises DataError if it is no table in text, or has one column."""
    text, encoding, doubts = decode(read_head(file), file)
    return tell_text(text, encoding, file, doubts)


def read_head(file: Path) -> bytes:
    """The first bytes of a file, which is unpacked if its name ends in .gz. DataError if it cannot
    be read, or is of another kind.
    """
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{shown(str(file))} cannot be read ({getattr(error, 'strerror', None) or error}):"
            " check its permissions, or copy it again"
        ) from error
    if head[:2] == GZIP:
        raise DataError(f"{shown(str(file))} is packed by gzip: let its name end in .gz")
    for start, what in KNOWN.items():
        if head.startswith(start):
            raise DataError(f"{shown(str(file))} is {what}")
    return head


def decode(head: bytes, file: Path) -> tuple[str, Encoding, tuple[str, ...]]:
    """The text of the first bytes up to their last whole line, their encoding, and doubts about it.
    DataError for bytes that are no text, or for UTF-16 of big-endian order.
    """
    encoding: Encoding = "utf-8"
    doubts: tuple[str, ...] = ()
    if head.startswith(codecs.BOM_UTF16_LE):
        encoding = "utf-16"
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
    elif b"\0" in head or head.startswith(codecs.BOM_UTF16_BE):
        raise DataError(
            f"{shown(str(file))} is no text in UTF-8, little-endian UTF-16 or latin-1: convert it,"
            " for example with iconv, or give another file"
        )
    else:
        try:
            text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
        except UnicodeDecodeError:
            encoding = "latin-1"
            text = head.decode("latin-1")
            doubts = ("it is no UTF-8, so latin-1 is a guess: other encodings must be converted",)
    last = text.rfind("\n")
    whole = text if len(head) < HEAD_BYTES or last < 0 else text[: last + 1]
    return whole, encoding, doubts


def tell_text(
    text: str, encoding: Encoding, file: Path, doubts: tuple[str, ...] = ()
) -> TextFormat:
    """The format of a text, by DuckDB's sniffer and, where that finds one column, by separators
    that it does not try. file: for messages.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{shown(str(file))} has no row: give a file with rows")
    separator, quote, header, escape, skipped = _sniff(text, file)
    columns = split_line(lines[0], separator, quote)
    if len(columns) == 1:
        separator = other_separator(lines)
        quote = ""
        columns = lines[0].split(separator) if separator else columns
        header = True
    if len(columns) == 1:
        raise DataError(_one_column(lines, file))
    if skipped:
        raise DataError(
            f"{shown(str(file))} begins with {skipped} lines that are not like the others: remove"
            " them, so that the first line is the header or a row"
        )
    if escape not in ("", quote):
        doubts = (
            *doubts,
            f"quotes in values seem to be marked by {escape!r}, which is not read",
        )
    header = header and not any(map(_is_value, columns))
    header = header and not _recurs(lines, separator, quote)
    return TextFormat(separator, quote, encoding, header, _names(columns, header), doubts)


def split_line(line: str, separator: str, quote: str) -> list[str]:
    """The values of a line."""
    import csv

    if len(separator) > 1 or not quote:
        return line.split(separator)
    return next(csv.reader(io.StringIO(line), delimiter=separator, quotechar=quote), [""])


def other_separator(lines: Sequence[str]) -> str:
    """The separator that each line holds equally often; empty if there is none."""
    for separator in OTHER_SEPARATORS:
        counts = {line.count(separator) for line in lines}
        if len(counts) == 1 and counts != {0}:
            return separator
    return ""


def _sniff(text: str, file: Path) -> tuple[str, str, bool, str, int]:
    """Separator, quote, whether there is a header, escape character, and lines before it."""
    query = 'SELECT "Delimiter", "Quote", "HasHeader", "Escape", "SkipRows" FROM sniff_csv('
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        copy = Path(folder) / "head.csv"
        copy.write_text(text, encoding="utf-8", newline="")
        try:
            found = con.execute(f"{query}{file_literal(copy)})").fetchall()[0]
        except duckdb.Error as error:
            raise DataError(
                f"{shown(str(file))} is no table in text: its lines have no separator in common."
                " Give another file, or write the config by hand (configs/example-own-log.yaml)"
            ) from error
    separator, quote, header, escape, skipped = found
    quote = _plain(quote)
    if quote not in ('"', "'"):
        quote = "" if '"' in text else '"'
    return _plain(separator) or ",", quote, header, _plain(escape), skipped


def _plain(mark: str) -> str:
    """A mark as DuckDB's sniffer writes it."""
    return "" if mark == "(empty)" else mark.replace("\\t", "\t")


def _recurs(lines: Sequence[str], separator: str, quote: str) -> bool:
    """Whether a cell of the first line is in its column again, as the name of a column is not."""
    first, *others = (split_line(line, separator, quote) for line in lines[:FIRST_LINES])
    return any(
        cell.strip() and cell == other
        for row in others
        for cell, other in zip(first, row, strict=False)
    )


def _is_value(cell: str) -> bool:
    """Whether a cell is a number or begins like a date, which no name does."""
    return bool(re.fullmatch(r"\s*[+-]?\d[\d.,:/eE+-]*(?:[ T]\d.*)?\s*", cell))


def _names(columns: Sequence[str], header: bool) -> tuple[str, ...]:
    return tuple(columns) if header else tuple(f"column{n}" for n in range(1, len(columns) + 1))


def _one_column(lines: Sequence[str], file: Path) -> str:
    where = shown(str(file))
    if len(lines) >= FEWEST_LINES and all(len(line.split()) > 1 for line in lines[1:FEWEST_LINES]):
        return (
            f"{where} has no separator that each line holds equally often. If a line is a user and"
            " then items, it is read by source kind 'sequences': see configs/gowalla.yaml. Else"
            " write the config by hand (configs/example-own-log.yaml)"
        )
    return (
        f"{where} has one column, whose first line is {shown(lines[0])}: a log needs a user and an"
        " item in each row. Give another file, or separate its columns by a comma or a tab"
    )
