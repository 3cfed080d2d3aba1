"""What users had taken before the log as codes, for the coded log."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import torch
from duckdb import DuckDBPyConnection
from torch import Tensor

from dssm_core.columns import HISTORY, ITEM, USER
from dssm_core.data.database import write_parquet
from dssm_core.data.histories import NO_HISTORIES
from dssm_core.data.sql import parquet


def open_prior(con: DuckDBPyConnection, histories: Path | None) -> None:
    """Create the view `prior`: the items, in order, that users with a row of the view `train` had
    before the log. It is empty without a file `histories`.
    """
    held = f"FROM {parquet(histories)}" if histories else f"FROM ({NO_HISTORIES})"
    con.execute(
        f"CREATE VIEW prior AS SELECT {USER}, unnest({HISTORY}) AS {ITEM},"
        f" generate_subscripts({HISTORY}, 1) AS nth {held}"
        f" WHERE {USER} IN (SELECT {USER} FROM train)"
    )


def write_prior(con: DuckDBPyConnection, file: Path) -> int:
    """Write the codes of users and items of the view `prior`, in order, to Parquet; items without a
    code are left out. Returns their number.
    """
    return write_parquet(
        con,
        "SELECT user_ids.code AS user, item_ids.code AS item"
        f" FROM prior JOIN user_ids USING ({USER}) JOIN item_ids USING ({ITEM})"
        " ORDER BY user_ids.code, prior.nth",
        file,
    )


def fill_prior(parts: dict[str, Tensor], coded: Path, rows_at_once: int) -> None:
    """Copy what users had before the log from a Parquet file into the tensors of a log."""
    first = 0
    ptr = parts["log.prior.ptr"]
    for batch in pq.ParquetFile(coded).iter_batches(rows_at_once):
        rows = slice(first, first + len(batch))
        parts["log.prior.item"][rows] = torch.from_numpy(batch["item"].to_numpy().copy())
        user = torch.from_numpy(batch["user"].to_numpy().copy())
        ptr[1:] += user.bincount(minlength=len(ptr) - 1)
        first += len(batch)
    ptr.copy_(ptr.cumsum(0))
