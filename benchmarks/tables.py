"""What a benchmark compares: a table is a YAML file in benchmarks/, read and checked here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from dssm_core.config import Section
from dssm_core.errors import ConfigError
from dssm_core.families import did_you_mean

CHECKOUT = Path(__file__).resolve().parent.parent


class BenchRow(Section):
    """A system of a table: a model that is trained, a figure of its report, or a published figure.

    config: a file below configs/, over which `set` is laid; without it the row has published
    figures only. baseline: show this baseline of the run's report, not the model. ceiling: show
    the report's ceiling. best_of: column -> a mapping in the baseline's figures (such as
    by_window), of which the largest value is shown; other columns stay empty. published: figures
    of others by column; they are never mixed with measured ones. source: who published them.
    same_data: whether they were measured on the same data: true, false, or which part.
    """

    title: str
    config: str | None = None
    set: tuple[str, ...] = ()
    baseline: str | None = None
    best_of: dict[str, str] = Field(default_factory=dict)
    ceiling: bool = False
    published: dict[str, float] = Field(default_factory=dict)
    source: str | None = None
    same_data: bool | str | None = None

    @model_validator(mode="after")
    def _check(self) -> BenchRow:
        if not self.config and not self.published:
            raise ValueError(f"row {self.title!r} has neither config nor published figures")
        if self.published and (self.source is None or self.same_data is None):
            raise ValueError(
                f"row {self.title!r} has published figures: add their source and same_data "
                "(true, false, or which part)"
            )
        if self.baseline and self.ceiling:
            raise ValueError(f"row {self.title!r} is a baseline or the ceiling, not both")
        return self

    @property
    def trained(self) -> bool:
        """Whether the row shows a trained model, not another figure of a report."""
        return bool(self.config) and not self.baseline and not self.ceiling


class BenchTable(Section):
    """Rows measured by one protocol.

    columns: figure of the report -> heading; `all.recall@20` is recall@20 of the slice `all`.
    data: sub-folder of --data that replaces data.source.path. test_days: measure each row on each
    of these days. note: Markdown after the table.
    """

    title: str
    protocol: str
    columns: Annotated[dict[str, str], Field(min_length=1)]
    rows: Annotated[tuple[BenchRow, ...], Field(min_length=1)]
    data: str | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    test_days: tuple[date, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> BenchTable:
        titles = [row.title for row in self.rows]
        if repeated := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"two rows are called {repeated[0]!r}: give each its own title")
        for row in self.rows:
            for name in row.published:
                if name not in self.columns:
                    hint = did_you_mean(name, list(self.columns))
                    raise ValueError(f"row {row.title!r} publishes {name!r}: {hint}")
        return self


class RowSelection(Section):
    """Rows of other tables, run again with other seeds.

    tables: name -> titles of its rows; an empty list takes all.
    """

    title: str
    tables: Annotated[dict[str, tuple[str, ...]], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Bench:
    """What `python -m benchmarks NAME` runs.

    tables: one table, or the selected rows of several; selected: whether it is a selection.
    """

    name: str
    title: str
    tables: tuple[BenchTable, ...]
    selected: bool = False

    def only(self, patterns: Sequence[str]) -> Bench:
        """The bench with the rows whose titles match (see `choose_rows`); without patterns, the
        whole bench.
        """
        if not patterns:
            return self
        chosen = choose_rows([row for table in self.tables for row in table.rows], patterns)
        tables = []
        for table in self.tables:
            if rows := tuple(row for row in table.rows if row in chosen):
                tables.append(table.model_copy(update={"rows": rows}))
        return replace(self, tables=tuple(tables))


def find_tables(checkout: Path = CHECKOUT) -> dict[str, Path]:
    """The files of the tables by name. ConfigError if the checkout has none."""
    folder = checkout / "benchmarks"
    files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if not files:
        raise ConfigError(
            f"{folder} holds no tables: run `python -m benchmarks` in a checkout of the project"
        )
    return files


def read_bench(name: str, checkout: Path = CHECKOUT, seeds: Sequence[int] = ()) -> Bench:
    """Read the bench `name`, with other seeds if `seeds` is not empty. ConfigError names the file
    and what is wrong in it.
    """
    file = _file(name, checkout)
    raw = _read_yaml(file)
    if "tables" in raw:
        return _read_selection(name, _validated(RowSelection, raw, file), checkout, seeds)
    table = _validated(BenchTable, raw, file)
    return Bench(name, table.title, (_with_seeds(table, tuple(seeds) or table.seeds),))


def _read_selection(
    name: str, selection: RowSelection, checkout: Path, seeds: Sequence[int]
) -> Bench:
    tables = []
    for part, titles in selection.tables.items():
        file = _file(part, checkout)
        table = _validated(BenchTable, _read_yaml(file), file)
        rows = choose_rows(table.rows, titles) if titles else table.rows
        table = table.model_copy(update={"rows": rows})
        tables.append(_with_seeds(table, tuple(seeds) or selection.seeds))
    return Bench(name, selection.title, tuple(tables), selected=True)


def _with_seeds(table: BenchTable, seeds: tuple[int, ...]) -> BenchTable:
    return table.model_copy(update={"seeds": seeds})


def choose_rows(rows: Sequence[BenchRow], patterns: Iterable[str]) -> tuple[BenchRow, ...]:
    """The rows whose titles match a pattern, in the order of the table. `*` matches any text.

    ConfigError with a hint if a pattern matches no row.
    """
    titles = [row.title for row in rows]
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {title for title in titles if _matches(title, pattern)}
        if not matches:
            raise ConfigError(f"unknown row {pattern!r}: {did_you_mean(pattern, titles)}")
        chosen |= matches
    return tuple(row for row in rows if row.title in chosen)


def _matches(title: str, pattern: str) -> bool:
    return title == pattern or fnmatch(title.lower(), pattern.lower())


def _file(name: str, checkout: Path) -> Path:
    files = find_tables(checkout)
    if name not in files:
        raise ConfigError(f"unknown table {name!r}: {did_you_mean(name, list(files))}")
    return files[name]


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        kind = type(raw).__name__
        raise ConfigError(f"{file} holds {kind}, not a table: see benchmarks/globo.yaml")
    return raw


M = TypeVar("M", BenchTable, RowSelection)


def _validated(model: type[M], raw: dict[str, Any], file: Path) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        ]
        raise ConfigError(f"{file}: " + "; ".join(problems)) from error
