"""The data files of a folder, in groups that are one table each: `clicks_000.csv` to
`clicks_239.csv` are `clicks_*.csv`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from dssm_core.errors import DataError, shorten, shown

MOST_FILES = 20_000
TEXT = frozenset(
    ["csv", "tsv", "txt", "dat", "data", "psv", "tab", "log", "inter", "user", "item", "base"]
)  # the last ones are those of RecBole and MovieLens
PARQUET = frozenset(("parquet", "pq"))
JSON_LINES = frozenset(("jsonl", "ndjson"))
NAMES_SHOWN = 5
_NUMBERED = re.compile(r"^([^0-9]*)([0-9].*?)((?:\.[A-Za-z]\w*)*)$")  # stem, from a digit on, ends


@dataclass(frozen=True)
class FileGroup:
    """Files that one pattern matches, sorted, below the folder `root`."""

    root: Path
    pattern: str
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def kind(self) -> str:
        """The source that reads the files, by the end of their names."""
        end = _end(self.files[0])
        if end in PARQUET:
            return "parquet"
        return "json_lines" if end in JSON_LINES else "delimited"

    def some(self, most: int) -> list[Path]:
        """Evenly spaced files, the first and the last among them."""
        step = max(1, -(-(len(self.files) - 1) // max(1, most - 1)))
        return sorted({*self.files[::step], self.files[-1]})


def find_groups(path: Path) -> list[FileGroup]:
    """The groups of data files below a folder, or in the folder of a file, whose group is then the
    first and holds this file only.

    Raises DataError if there is none, naming the files that are there.
    """
    try:
        if path.is_file():
            others = [file for file in sorted(path.parent.iterdir()) if file != path]
            return [_group(path.parent, [path]), *_groups(path.parent, filter(_is_data, others))]
        if not path.is_dir():
            raise DataError(
                f"{shown(str(path))} is neither a folder nor a file: give the folder of the log, or"
                " its file"
            )
        found = list(
            islice((file for file in path.rglob("*") if _is_visible(path, file)), MOST_FILES)
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"{shown(str(path))} cannot be searched ({getattr(error, 'strerror', error)}): check"
            " the path and its permissions"
        ) from error
    if len(found) == MOST_FILES:
        raise DataError(
            f"{shown(str(path))} holds {MOST_FILES:,} files or more: give a folder that holds the"
            " log only"
        )
    if groups := _groups(path, sorted(filter(_is_data, found))):
        return groups
    raise DataError(f"{shown(str(path))} holds no log: {_what_is_there(found)}")


def _is_visible(root: Path, file: Path) -> bool:
    parts = file.relative_to(root).parts
    return file.is_file() and not any(part[0] in "_." for part in parts)


def _is_data(file: Path) -> bool:
    """Whether the ending of a file's name is one of tables."""
    is_table = _end(file) in TEXT | PARQUET | JSON_LINES
    return file.is_file() and is_table and file.stem.lower() != "readme"


def _end(file: Path) -> str:
    """The ending of a name in lower case, without .gz; empty if it has none."""
    ends = [end[1:].lower() for end in file.suffixes]
    last = ends[-2:-1] if ends[-1:] == ["gz"] else ends[-1:]
    return last[0] if last else ""


def _what_is_there(found: Iterable[Path]) -> str:
    names = [shorten(file.name) for file in found]
    if not names:
        return "there is no file in it. Give the folder of the log, or its file"
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    ends = ", ".join(f".{end}" for end in sorted(TEXT | PARQUET | JSON_LINES))
    return (
        f"of its files ({', '.join(names[:NAMES_SHOWN])}{more}) none ends in {ends}, or in one of"
        " these and .gz. If one of them is a table, give its path instead of the folder"
    )


def _groups(root: Path, files: Iterable[Path]) -> list[FileGroup]:
    """Files that differ in numbers only are one group; larger groups first."""
    by_shape: dict[tuple[str, ...], list[Path]] = {}
    for file in files:
        parts = PurePosixPath(file.relative_to(root).as_posix()).parts
        by_shape.setdefault(tuple(map(_shape, parts)), []).append(file)
    groups = [_group(root, members) for members in by_shape.values()]
    return sorted(groups, key=lambda group: (-group.size, group.pattern))


def _shape(name: str) -> str:
    """A name without what follows its first digit, but with its endings."""
    numbered = _NUMBERED.match(name)
    return name if numbered is None else f"{numbered[1]}\0{numbered[3]}"


def _group(root: Path, files: list[Path]) -> FileGroup:
    """The group of files of one shape. Its pattern matches no other file of the folder."""
    parts = files[0].relative_to(root).parts
    if len(files) == 1:
        return FileGroup(root, "/".join(map(glob.escape, parts)), tuple(files))
    columns = zip(*(file.relative_to(root).parts for file in files), strict=True)
    loose = "/".join(_pattern(names, "*") for names in map(list, columns))
    if sorted(root.glob(loose)) == files:
        return FileGroup(root, loose, tuple(files))
    columns = zip(*(file.relative_to(root).parts for file in files), strict=True)
    strict = "/".join(_pattern(names, "[0-9]*") for names in map(list, columns))
    return FileGroup(root, strict, tuple(files))


def _pattern(names: list[str], wildcard: str) -> str:
    """A pattern for names of one shape."""
    if len(set(names)) == 1:
        return glob.escape(names[0])
    start, _, ends = _shape(names[0]).partition("\0")
    return f"{glob.escape(start)}{wildcard}{glob.escape(ends)}"
