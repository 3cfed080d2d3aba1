"""Queries of the test set as the rows of a request to a served model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from dssm_core.columns import USER
from dssm_core.evaluation.queries import Slice, positives
from dssm_core.features.ids import Ids
from dssm_core.retrieval.requests import HISTORY
from dssm_core.runs.layout import ITEM_IDS_FILE, table_file
from dssm_core.runs.run import Run


def users_frame(run: Run, queries: Slice, context: Sequence[str] = ()) -> pd.DataFrame:
    """The request of each query to a served model: user_id, history, latest context.

    Context columns that the log lacks are left out.
    """
    items = Ids.load(run.step("export_embeddings") / ITEM_IDS_FILE)
    frame = context_rows(run, queries, context)
    known = queries.histories
    cells = np.split(items.decode(known.items + 1), known.ptr[1:-1])
    lists = [cell.tolist() for cell in cells] if len(frame) else []
    frame[USER] = queries.users
    frame[HISTORY] = pd.Series(lists, dtype=object)
    return frame


def context_rows(run: Run, queries: Slice, context: Sequence[str]) -> pd.DataFrame:
    """The context columns of each query's newest event; those that the log lacks are left out."""
    rows = pd.DataFrame(index=range(len(queries.codes)))
    files = [run.step("split_by_time") / table_file(part) for part in ("train", "test")]
    columns = [name for name in context if name in pq.read_schema(files[0]).names]
    if columns:
        events = pd.concat([positives(file, columns) for file in files], ignore_index=True)
        rows[columns] = events.reindex(queries.latest)[columns].to_numpy()
    return rows
