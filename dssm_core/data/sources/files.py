"""Files of a log: which files a table has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from dssm_core.data.sources.mapped import MappedTable
from dssm_core.errors import DataError, shown


def _relative(pattern: str) -> str:
    """The pattern itself; ValueError when it names no file or could match files outside the
    source's folder.
    """
    path = PurePosixPath(pattern)
    if not path.parts or path.is_absolute() or ".." in path.parts or pattern.startswith("~"):
        raise ValueError(
            f"{shown(pattern)} must name files inside `path`: give a relative pattern without '..',"
            " such as clicks/*.csv.gz"
        )
    if "\0" in pattern:
        raise ValueError(f"{shown(pattern)} has a NUL character: remove it")
    if any("**" in part and part != "**" for part in path.parts):
        raise ValueError(
            f"{shown(pattern)} has ** inside a name, but ** matches whole folders: write, for"
            " example, clicks/**/*.csv"
        )
    return pattern


Pattern = Annotated[str, AfterValidator(_relative)]


class FileTable(MappedTable):
    """One table of a log in files."""

    files: Pattern
    """Glob pattern relative to the source's path. A file of exactly this name wins."""


def find_files(base: str, patterns: Sequence[str]) -> dict[str, Path]:
    """Files below `base` by relative name, sorted within each pattern.

    Files and folders whose name begins with `_` or `.` are no data (`_SUCCESS`, the `_temporary` of
    an unfinished Spark task, `.ipynb_checkpoints`): only a pattern that spells this out finds them.
    If `base` is a file, it replaces the first pattern, and the other patterns are matched in its
    folder. Raises DataError naming the folder and the pattern when a pattern matches no file, and
    naming a file that is a link to outside the folder.
    """
    path = Path(base).expanduser()
    if path.is_file():
        return {path.name: path} | _match(path.parent, patterns[1:])
    if not path.is_dir():
        raise DataError(
            f"{base!r} is neither a folder nor a file: set data.source.path, or give --data FOLDER"
        )
    return _match(path, patterns)


def table_files(path: str, table: FileTable, is_interactions: bool) -> dict[str, Path]:
    """The files of one table. If `path` is the interactions file itself, the files of the other
    tables are in its folder.
    """
    base = Path(path).expanduser()
    folder = str(base.parent) if base.is_file() and not is_interactions else path
    return find_files(folder, [table.files])


def named_files(files: Mapping[str, Path], table: str, spec: FileTable) -> str:
    """The files of a table for error messages: the name of the only one, or how many there are."""
    if len(files) == 1:
        return repr(next(iter(files.values())).name)
    return f"{table} ({len(files)} files like {spec.files!r})"


def _match(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    matches: dict[str, Path] = {}
    for pattern in patterns:
        found = {
            file.relative_to(folder).as_posix(): file
            for file in _glob(folder, pattern)
            if file.is_file()
        }
        files = {name: file for name, file in found.items() if not _hidden(name, pattern)}
        if not files:
            raise DataError(
                f"no file in {str(folder)!r} matches {pattern!r}{_only_hidden(found)}: check"
                " data.source.path and the pattern"
            )
        _check_links(folder, list(files.values()))
        matches |= files
    return matches


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The file of exactly this name, else the paths that match, sorted. DataError if a folder
    cannot be read, or vanishes meanwhile.
    """
    exact = folder / pattern
    try:
        return [exact] if exact.is_file() else sorted(folder.glob(pattern))
    except OSError as error:
        raise DataError(
            f"{str(error.filename or folder)!r} cannot be searched ({error.strerror}): check"
            " data.source.path, and that no file is being moved there"
        ) from error


def _hidden(name: str, pattern: str) -> bool:
    """Whether a part of a relative name begins with `_` or `.`, but no part of the pattern does."""
    spelt = {part[0] for part in PurePosixPath(pattern).parts}
    return any(part[0] in "_." and part[0] not in spelt for part in PurePosixPath(name).parts)


def _only_hidden(found: Collection[str]) -> str:
    if not found:
        return ""
    return f" but {next(iter(found))!r}, which is skipped because a name in it begins with _ or ."


def _check_links(folder: Path, files: Sequence[Path]) -> None:
    """DataError if a file leaves the folder by a link. The folder itself may be a link."""
    root = folder.resolve()
    for file in files:
        if not file.resolve().is_relative_to(root):
            raise DataError(
                f"{str(file)!r} is a link to {str(file.resolve())!r}, outside the folder of the "
                "data: copy the file there, or set data.source.path to a folder that holds it"
            )
