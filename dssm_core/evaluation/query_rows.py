"""Queries of the test set as the rows of requests to a served model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dssm_core.columns import USER
from dssm_core.evaluation.queries import Slice
from dssm_core.features.ids import Ids
from dssm_core.retrieval.requests import HISTORY


@dataclass(frozen=True)
class RequestRows:
    """The request of each query to a served model. The lists of ids are made for a part at a time.

    items: the ids of the histories' item rows. context: [Q] rows, the latest context.
    """

    queries: Slice
    items: Ids
    context: pd.DataFrame

    @classmethod
    def of(cls, queries: Slice, items: Ids, context: Sequence[str] = ()) -> RequestRows:
        """With these context columns; those that the log lacks are left out."""
        return cls(queries, items, queries.asked.rows_at(queries.latest, context))

    def part(self, first: int, last: int) -> pd.DataFrame:
        """Requests [first, last): user_id, history, latest context."""
        frame = self.context.iloc[first:last].reset_index(drop=True)
        known = self.queries.histories.part(first, last)
        cells = np.split(self.items.decode(known.items + 1), known.ptr[1:-1])
        lists = [cell.tolist() for cell in cells] if len(frame) else []
        frame[USER] = self.queries.users[first:last]
        frame[HISTORY] = pd.Series(lists, dtype=object)
        return frame
