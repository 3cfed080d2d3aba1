"""Feature columns of users, items and contexts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dssm_core.columns import ITEM, LABEL, USER
from dssm_core.config.base import Section

Pooling = Literal["sum", "mean", "max", "attention"]
Normalising = Literal["standard", "log", "rank", "length", "none"]
TRIGRAM_BUCKETS = 30_000  # the DSSM paper counts 30,621 trigrams in 500,000 words
USED_BY_KIND = {
    "categorical": ("dim", "buckets", "shares"),
    "multi": ("dim", "buckets", "shares", "separator", "pooling", "most"),
    "text": ("dim", "buckets", "shares", "pooling", "most"),
    "numeric": ("normaliser",),
    "vector": ("dim", "normaliser", "file", "ids"),
    "target_mean": ("target", "smoothing"),
}
EMBEDDED = ("categorical", "multi", "text")  # kinds with an embedding table
NORMALISERS = {
    "numeric": ("standard", "log", "rank", "none"),
    "vector": ("standard", "length", "none"),
}  # by the kinds that have one
TABLE_FILES = (".parquet",)  # of vectors, with a column of ids
ARRAY_FILES = (".npy",)  # of vectors, whose ids are in a file of their own
ID_FILES = (".parquet", ".npy", ".txt")


class Feature(Section):
    """One feature column."""

    column: str
    """Name of the column in the users or items table, or of a context column of the log."""
    kind: Literal["categorical", "multi", "text", "numeric", "vector", "target_mean"]
    """`categorical`: an id. `multi`: several ids in one cell, see `separator`. `text`: letter
    trigrams of its words, as in the DSSM paper. `numeric`: a number. `vector`: numbers of one
    length in a cell, such as an embedding of a text or an image. `target_mean`: the mean of
    `target` over the earlier rows with the same value, minus the mean over all earlier rows; the
    column may be user_id or item_id.
    """
    separator: str = "|"
    """What separates the ids in a cell."""
    dim: Annotated[int, Field(ge=0)] = 8
    """Length of the column's embeddings, or of what a learned linear map makes of a vector; a
    vector with dim 0 is taken as it is."""
    buckets: Annotated[int, Field(ge=1)] | None = None
    """Number of rows into which values are hashed, for vocabularies that are open or too large;
    null fits a vocabulary on train, but text is always hashed (into 30,000 rows).
    """
    pooling: Pooling = "mean"
    """How the embeddings of several values become one."""
    most: Annotated[int, Field(ge=1)] = 100
    """Number of values that are read from a cell, from its start."""
    normaliser: Normalising = "standard"
    """How numbers are scaled: to mean 0 and deviation 1 (`standard`), the same after the logarithm
    (`log`), to their rank in train from -1 to 1 (`rank`), or not at all (`none`). Of vectors,
    `standard` takes the mean vector and one deviation of all their numbers, and `length` gives all
    vectors the same length."""
    file: str | None = None
    """A file with the vectors, if the users or items table does not have them: .parquet with a
    column user_id or item_id and a column of this name, or .npy with one vector a row. Relative to
    the working directory, as data.source.path.
    """
    ids: str | None = None
    """The id of each row of a `file` in .npy, in its order: .parquet, .npy, or .txt with one id a
    line."""
    shares: str | None = None
    """The item column (or item_id) whose vocabulary and embeddings this column uses, such as a
    user's interests that are categories of items.
    """
    target: str = LABEL
    """The column of the log that is averaged, `label` or a number such as a rating."""
    smoothing: Annotated[float, Field(gt=0)] = 10.0
    """Number of rows with the general mean that are added to the rows of each value."""

    @model_validator(mode="after")
    def _check_kind(self) -> Feature:
        fields = type(self).model_fields
        changed = [
            name
            for name in fields
            if name not in ("column", "kind") and getattr(self, name) != fields[name].default
        ]
        if idle := [name for name in changed if name not in USED_BY_KIND[self.kind]]:
            raise ValueError(
                f"{self.kind} column {self.column!r} has no use for {', '.join(idle)}: leave it out"
            )
        if problem := self._values_of_kind():
            raise ValueError(problem)
        if self.shares and (twice := [name for name in ("dim", "buckets") if name in changed]):
            raise ValueError(
                f"column {self.column!r} shares the table of {self.shares!r}:"
                f" leave out {' and '.join(twice)}"
            )
        return self

    def _values_of_kind(self) -> str | None:
        """What is wrong with values that only some kinds allow."""
        allowed = NORMALISERS.get(self.kind, ())
        if allowed and self.normaliser not in allowed:
            return (
                f"{self.kind} column {self.column!r} has no normaliser {self.normaliser!r}: take"
                f" one of {', '.join(allowed)}"
            )
        if self.kind != "vector":
            return None if self.dim else f"column {self.column!r} has dim 0: give 1 or more"
        if self.column in (USER, ITEM):
            return f"vector column {self.column!r} has the name of ids: give it another name"
        file = PurePath(self.file).suffix if self.file is not None else None
        if file not in (None, *TABLE_FILES, *ARRAY_FILES):
            return f"file {self.file!r} of column {self.column!r} must end in .parquet or .npy"
        if (file in ARRAY_FILES) != (self.ids is not None):
            return (
                f"vector column {self.column!r}: `ids` names the id of each row of a `file` in"
                " .npy; give both, or no ids"
            )
        if self.ids and PurePath(self.ids).suffix not in ID_FILES:
            return f"ids {self.ids!r} of column {self.column!r} must end in {', '.join(ID_FILES)}"
        return None

    @property
    def in_table(self) -> bool:
        """Whether the users or items table must have the column; not for a mean of the ids."""
        return not (self.kind == "target_mean" and self.column in (USER, ITEM))

    @property
    def rows(self) -> int | None:
        """Number of hash buckets of its embedding table; None if a vocabulary is fitted."""
        return self.buckets or (TRIGRAM_BUCKETS if self.kind == "text" else None)


class FeatureColumns(Section):
    """The columns that describe users, items, and the situation of a user's latest interaction."""

    user: tuple[Feature, ...] = ()
    """Columns of the users table."""
    item: tuple[Feature, ...] = ()
    """Columns of the items table."""
    context: tuple[Feature, ...] = ()
    """Categorical columns of the log, of which the user tower sees the latest values."""

    @field_validator("context")
    @classmethod
    def _check_context(cls, value: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if wrong := [feature.column for feature in value if feature.kind != "categorical"]:
            raise ValueError(
                f"context columns must be categorical; {', '.join(wrong)} is not:"
                " bin it in the log first"
            )
        return value

    @model_validator(mode="after")
    def _check_columns(self) -> FeatureColumns:
        if problems := [*self._repeated(), *self._wrong_shares()]:
            raise ValueError("; ".join(problems))
        return self

    def _repeated(self) -> Iterator[str]:
        for side in ("user", "item", "context"):
            names = [
                feature.column for feature in getattr(self, side) if feature.kind != "target_mean"
            ]
            yield from (
                f"{side} column {name!r} is named twice: once is enough"
                for name in sorted(set(names))
                if names.count(name) > 1
            )

    def _wrong_shares(self) -> Iterator[str]:
        own = [of.column for of in self.item if of.kind in EMBEDDED and not of.shares]
        for side in ("user", "item", "context"):
            for feature in getattr(self, side):
                if feature.shares and not self._may_share(side, feature):
                    yield (
                        f"{side} column {feature.column!r} cannot share the table of"
                        f" {feature.shares!r}: a user's column may share an item's, words with"
                        f" words and ids with ids, an item's only {ITEM};"
                        f" the item columns are {', '.join([ITEM, *own])}"
                    )

    def _may_share(self, side: str, feature: Feature) -> bool:
        lender = self.lender(feature)
        if feature.shares == ITEM:
            return side != "context" and feature.kind != "text"
        if side != "user" or lender is None or lender.shares or lender.kind not in EMBEDDED:
            return False
        return (lender.kind == "text") == (feature.kind == "text")

    def vectors(self, side: str) -> list[Feature]:
        """The vector columns of `user` or `item`."""
        return [feature for feature in getattr(self, side) if feature.kind == "vector"]

    def with_files_of(self, other: FeatureColumns) -> FeatureColumns:
        """The same columns, with the files of vectors of the columns of the same name."""
        sides = {}
        for side in ("user", "item"):
            files = {vector.column: vector for vector in other.vectors(side)}
            sides[side] = tuple(
                feature.model_copy(update=_files(files[feature.column]))
                if feature.kind == "vector" and feature.column in files
                else feature
                for feature in getattr(self, side)
            )
        return self.model_copy(update=sides)

    def targets(self) -> list[str]:
        """The columns of the log whose means are taken, without `label`, which every log has."""
        means = (feature for feature in (*self.user, *self.item) if feature.kind == "target_mean")
        return sorted({feature.target for feature in means} - {LABEL})

    def lender(self, feature: Feature) -> Feature | None:
        """The item column whose table a feature shares; None if it has its own or shares the table
        of item ids.
        """
        lenders = (
            other
            for other in self.item
            if other.column == feature.shares and other.kind != "target_mean"
        )
        return next(lenders, None)


def _files(vector: Feature) -> dict[str, str | None]:
    return {"file": vector.file, "ids": vector.ids}
