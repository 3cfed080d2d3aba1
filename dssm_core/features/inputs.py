"""Inputs of the towers as of a moment: the same functions for training, export and serving.

What the model sees of an item or a user for an event comes from interactions strictly before the
event's `as_of`. With item activity on, `as_of` is the latest refresh (every `refresh_h` hours,
counted back from the cutoff) before the event, because that is how old the embeddings in the served
index are when a click happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from dssm_core.config import Features
from dssm_core.features.activity import activity
from dssm_core.features.interactions import Interactions
from dssm_core.features.target_mean import TargetMeans


class UserInputs(NamedTuple):
    """What the user tower sees: of users at one moment each, or (`sequence_inputs`) at every place
    of their histories.

    history: [B, L] item codes, oldest first, then 0. The others have [B] or, at every place, [B, L]
    as leading dims.
    """

    user: Tensor  # [B] int64 codes
    history: Tensor  # [B, L] int64
    categorical: Tensor  # [..., static + context columns] int64
    multi: Tensor  # [..., columns, values] int64, 0 = none
    numeric: Tensor  # [..., F] float32, the history's length last


class ItemInputs(NamedTuple):
    """What the item tower sees."""

    item: Tensor  # [N] int64 codes
    categorical: Tensor  # [N, columns] int64
    multi: Tensor  # [N, columns + context columns, values] int64, 0 = none; the audience last
    numeric: Tensor  # [N, F] float32, activity last


@dataclass(frozen=True)
class ColumnTable:
    """Static columns of users or items by code; row 0 is the unknown one, all zeros. means: of
    targets, as of a moment.
    """

    categorical: Tensor  # [codes, columns] int64
    multi: Tensor  # [codes, columns, values] int64
    numeric: Tensor  # [codes, columns] float32, standardised
    means: TargetMeans = field(default_factory=TargetMeans.none, metadata={"of": TargetMeans})

    def take(self, codes: Tensor) -> Self:
        """The rows of `codes` [B], as a table of B rows."""
        means = self.means
        if len(means.everyone):
            means = replace(means, group=means.group[codes])
        return type(self)(self.categorical[codes], self.multi[codes], self.numeric[codes], means)

    def to(self, device: torch.device | str) -> Self:
        """The same table on another device."""
        return type(self)(*(getattr(self, part.name).to(device) for part in fields(self)))


def item_inputs(
    log: Interactions,
    table: ColumnTable,
    item: Tensor,
    as_of: int | Tensor,
    features: Features,
    scale: Tensor,
) -> ItemInputs:
    """What the item tower sees of items as of one moment.

    item: [N] codes; as_of: ms, also as a tensor [1]; scale: [2, activity columns] mean and standard
    deviation of `activity` on train.
    """
    moments = torch.zeros_like(item) + as_of
    multi, numeric = (
        table.multi[item],
        torch.cat([table.numeric[item], table.means.as_of(item, moments)], dim=1),
    )
    if features.activity.enabled:
        raw = activity(log, item, moments, features.activity.windows_h)
        numeric = torch.cat([numeric, (raw - scale[0]) / scale[1]], dim=1)
        multi = _side_by_side(multi, log.audience(item, moments, features.activity.audience))
    return ItemInputs(item, table.categorical[item], multi, numeric)


def _side_by_side(one: Tensor, other: Tensor) -> Tensor:
    """Multi-valued columns [n, a, v] and [n, b, w] as one [n, a + b, max(v, w)], padded with 0."""
    width = max(one.shape[2], other.shape[2])
    return torch.cat([pad(part, (0, width - part.shape[2])) for part in (one, other)], dim=1)


def user_inputs(
    table: ColumnTable, user: Tensor, history: Tensor, context: Tensor, as_of: Tensor | None = None
) -> UserInputs:
    """What the user tower sees of users with these histories and latest contexts.

    user: [B] codes; history: [B, L] item codes, oldest first, then 0; context: [B, columns] codes;
    as_of: [B] ms, the end of the train window if not said, as in serving.
    """
    means = table.means.as_of(
        user, table.means.window[1].expand_as(user) if as_of is None else as_of
    )
    length = (history > 0).sum(1, keepdim=True).float().log1p()
    categorical = torch.cat([table.categorical[user], context], dim=1)
    return UserInputs(
        user,
        history,
        categorical,
        table.multi[user],
        torch.cat([table.numeric[user], means, length], dim=1),
    )


def sequence_inputs(
    table: ColumnTable, user: Tensor, history: Tensor, context: Tensor
) -> UserInputs:
    """What the user tower sees at every place of a history: the place's own context, the length so
    far.

    user: [B] codes; history: [B, L] item codes, oldest first, then 0; context: [B, L, columns]
    codes.
    """
    length = (history > 0).cumsum(1)[..., None].float().log1p()
    everywhere = [
        part[user, None].expand(-1, history.shape[1], *part.shape[1:])
        for part in (table.categorical, table.multi, table.numeric)
    ]
    categorical, numeric = (
        torch.cat([everywhere[0], context], dim=2),
        torch.cat([everywhere[2], length], dim=2),
    )
    return UserInputs(user, history, categorical, everywhere[1], numeric)


def users_as_of(
    log: Interactions,
    table: ColumnTable,
    user: Tensor,
    as_of: Tensor,
    features: Features,
    own: Tensor | None = None,
) -> UserInputs:
    """What the user tower sees of known users as of each moment. user, as_of: [B].

    own: [B, columns], the context of a user without an earlier row; None: none.
    """
    history, context = log.history(user, as_of, features.history.length)
    if own is not None:
        context = torch.where(log.new(user, as_of)[:, None], own, context)
    return user_inputs(table, user, history, context, as_of)
