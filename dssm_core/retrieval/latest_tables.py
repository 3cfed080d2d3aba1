"""The log up to now as tables, and what of them a bundle knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from dssm_core.columns import CREATED, HISTORY, ITEM, TIME, USER
from dssm_core.features.ids import Ids
from dssm_core.features.prior import PriorItems


@dataclass(frozen=True)
class LatestTables:
    """The log up to now, as tables.

    clicks: the positives in time order, with columns user_id, item_id, timestamp and the context
    columns; users, items: the tables of user and item columns, None where the source has none;
    histories: what users had taken before (see LogTables), one row a user, None if not known.
    """

    clicks: pd.DataFrame
    users: pd.DataFrame | None = None
    items: pd.DataFrame | None = None
    histories: pd.DataFrame | None = None


def prior_rows(histories: pd.DataFrame | None, items: Ids) -> pd.DataFrame:
    """A row for each known item that users had taken before the log: user_id, timestamp and item
    code, in order.
    """
    if histories is None:
        empty = {USER: pd.Series(dtype=object), TIME: np.zeros(0, np.int64)}
        return pd.DataFrame(empty | {"code": np.zeros(0, np.int64)})
    rows = histories[[USER, TIME, HISTORY]].explode(HISTORY, ignore_index=True)
    rows["code"] = items.encode(rows[HISTORY])
    return rows.loc[rows["code"] > 0, [USER, TIME, "code"]]


def prior_items(rows: pd.DataFrame, users: Ids) -> PriorItems:
    """Those of known users."""
    user = users.encode(rows[USER])
    order = np.argsort(user, kind="stable")
    order = order[user[order] > 0]
    codes = rows["code"].to_numpy(np.int64)[order]
    return PriorItems.of(torch.from_numpy(user[order]), torch.from_numpy(codes), len(users))


def on_items(clicks: pd.DataFrame, items: Ids) -> pd.DataFrame:
    """The clicks on known items."""
    return clicks[items.encode(clicks[ITEM]) > 0].reset_index(drop=True)


def by_age(items: pd.DataFrame) -> pd.Series[Any]:
    """The ids of the items table, oldest first; items of unknown age come before all others."""
    if CREATED not in items:
        return items[ITEM]
    return items.sort_values(CREATED, kind="stable", na_position="first")[ITEM]
