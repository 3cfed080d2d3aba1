"""What the towers see of users and items: feature columns, histories and activity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dssm_core.config.base import Section
from dssm_core.config.feature_columns import FeatureColumns

Hours = Annotated[int, Field(ge=1, le=876_000)]  # up to 100 years: its milliseconds fit int64


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
    first_context: bool = False
    """Whether an event of a user without an earlier one shows its own context
    (features.columns.context); otherwise it shows none. Set it if users are sessions, or if
    requests of new users come with a context: new users are then trained, and asked in the test
    set, with the context of their first event."""
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
    table. An item without a positive is placed by its columns and the unknown id, which
    `train.id_dropout` trains."""

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
