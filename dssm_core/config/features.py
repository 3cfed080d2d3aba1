"""What the towers see of users and items: feature columns, histories and activity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dssm_core.columns import ITEM, LABEL, USER
from dssm_core.config.base import Section

Pooling = Literal["sum", "mean", "max", "attention"]
Normalising = Literal["standard", "log", "rank", "none"]
Hours = Annotated[int, Field(ge=1, le=876_000)]  # up to 100 years: its milliseconds fit int64
TRIGRAM_BUCKETS = 30_000  # the DSSM paper counts 30,621 trigrams in 500,000 words
USED_BY_KIND = {
    "categorical": ("dim", "buckets", "shares"),
    "multi": ("dim", "buckets", "shares", "separator", "pooling", "most"),
    "text": ("dim", "buckets", "shares", "pooling", "most"),
    "numeric": ("normaliser",),
    "target_mean": ("target", "smoothing"),
}


class Feature(Section):
    """One feature column."""

    column: str
    """Name of the column in the users or items table, or of a context column of the log."""
    kind: Literal["categorical", "multi", "text", "numeric", "target_mean"]
    """`categorical`: an id. `multi`: several ids in one cell, see `separator`. `text`: letter
    trigrams of its words, as in the DSSM paper. `numeric`: a number. `target_mean`: the mean of
    `target` over the earlier rows with the same value, minus the mean over all earlier rows; the
    column may be user_id or item_id.
    """
    separator: str = "|"
    """What separates the ids in a cell."""
    dim: Annotated[int, Field(ge=1)] = 8
    """Length of the column's embeddings."""
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
    (`log`), to their rank in train from -1 to 1 (`rank`), or not at all (`none`)."""
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
        if self.shares and (twice := [name for name in ("dim", "buckets") if name in changed]):
            raise ValueError(
                f"column {self.column!r} shares the table of {self.shares!r}:"
                f" leave out {' and '.join(twice)}"
            )
        return self

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
        for side in ("user", "item", "context"):
            for feature in getattr(self, side):
                if feature.shares and not self._may_share(side, feature):
                    lenders = [ITEM, *(other.column for other in self.item if not other.shares)]
                    yield (
                        f"{side} column {feature.column!r} cannot share the table of"
                        f" {feature.shares!r}: a user's column may share an item's, words with"
                        f" words and ids with ids, an item's only {ITEM};"
                        f" the item columns are {', '.join(lenders)}"
                    )

    def _may_share(self, side: str, feature: Feature) -> bool:
        lender = self.lender(feature)
        if feature.shares == ITEM:
            return side != "context" and feature.kind != "text"
        if side != "user" or lender is None or lender.shares or lender.kind == "numeric":
            return False
        return (lender.kind == "text") == (feature.kind == "text")

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


class History(Section):
    """A user's latest positives before an event, oldest first."""

    length: Annotated[int, Field(ge=0)] = 20
    """Maximum number of positives; 0 leaves histories out."""
    pools: tuple[Literal["mean", "sum", "max", "last", "decay", "attention"], ...] = (
        "mean",
        "decay",
    )
    """How towers that pool a history turn it into fields, one field for each pool: `attention` is a
    mean by learned weights, `decay` a mean by decay ** (positions before the newest), one field for
    each of `decays`."""
    decays: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.7,)
    """The decays of the pool `decay`."""
    learn_decays: bool = False
    """Whether `decays` are parameters of the model, which start at these values."""
    fields: bool = False
    """Whether an item of a history also shows its own columns (features.columns.item), as a linear
    map that is added to the embedding of its id.
    """


class Activity(Section):
    """Item activity: how often each item was clicked, as of the latest refresh before an event."""

    enabled: bool = True
    """Whether items have activity features. They need a split by time and a log with times."""
    windows_h: tuple[Hours, ...] = (1, 3, 6, 24)
    """Windows in hours; each gives log(1 + clicks in the window)."""
    refresh_h: Hours = 24
    """Hours between refreshes of the served index: 24 for a daily index, 1 for an hourly one. In
    training, activity is as old as it will be when it is served."""
    audience: Annotated[int, Field(ge=0)] = 10
    """Number of an item's latest clicks whose contexts (features.columns.context) are pooled into
    its features; 0 leaves them out.
    """


class Features(Section):
    """Feature columns, histories and activity."""

    columns: FeatureColumns = FeatureColumns()
    """The feature columns of users, items and contexts."""
    history: History = History()
    """The histories of users."""
    activity: Activity = Activity()
    """The activity of items."""
    id_dim: Annotated[int, Field(ge=1)] = 32
    """Length of an item id's embedding, which items and histories share; sequence towers compute in
    this width."""
    init_std: Annotated[float, Field(gt=0)] = 0.05
    """Standard deviation of new embeddings. With cosine similarity small embeddings change
    direction faster, which suits long training.
    """
    user_id_dim: Annotated[int, Field(ge=0)] = 0
    """Length of a user id's embedding. 0 leaves user ids out, so that users outside of the training
    set are represented by their histories."""
    max_embedding_gib: Annotated[float, Field(gt=0)] = 2.0
    """The largest embedding table that is accepted, in GiB."""
    item_ids: bool = True
    """Whether the item tower and the histories see item ids. If false, only columns tell items
    apart."""
    catalogue: Literal["positives", "table"] = "positives"
    """The items that are embedded and served: those with a positive in train, or all of the items
    table (only without item ids, because the id of an item without a positive is untrained)."""

    @model_validator(mode="after")
    def _check_target_means(self) -> Features:
        means = [
            feature.column
            for feature in (*self.columns.user, *self.columns.item)
            if feature.kind == "target_mean"
        ]
        if means and not self.activity.enabled:
            raise ValueError(
                f"target_mean of {', '.join(means)} is taken as of each refresh, which there is"
                " only with item activity: set features.activity.enabled to true, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _check_hashed_tables(self) -> Features:
        sides = (self.columns.user, self.columns.item, self.columns.context)
        sizes = [
            (feature.column, feature.rows, feature.dim)
            for side in sides
            for feature in side
            if feature.rows
        ]
        if problems := too_large(sizes, self.max_embedding_gib):
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _check_item_ids(self) -> Features:
        if self.history.fields and not self.columns.item:
            raise ValueError(
                "history.fields shows columns of items, but columns.item names none:"
                " name some, or set it to false"
            )
        if not self.item_ids and not self.columns.item:
            raise ValueError(
                "item_ids is false and columns.item names none: nothing would tell items apart;"
                " set item_ids to true, or name columns"
            )
        if not self.item_ids and self.history.length and not self.history.fields:
            raise ValueError(
                "without item_ids a history shows nothing: set history.fields to true,"
                " or history.length to 0"
            )
        if self.catalogue == "table" and self.item_ids:
            raise ValueError(
                "catalogue 'table' serves items without a positive in train, whose ids are"
                " untrained: set item_ids to false"
            )
        return self


def too_large(tables: Iterable[tuple[str, int, int]], max_gib: float) -> list[str]:
    """A sentence for each embedding table (column, rows, width) whose float32 weights take more
    than `max_gib`.
    """
    return [
        f"{column!r} needs an embedding table of {rows:,} x {width} = {gib:.3g} GiB"
        f" (features.max_embedding_gib is {max_gib:g}; training takes four times the weights):"
        " hash the column into fewer `buckets`, take a smaller dim (id_dim for ids),"
        " or raise the limit"
        for column, rows, width in tables
        if (gib := rows * width * 4 / 2**30) > max_gib
    ]
