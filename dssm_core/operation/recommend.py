"""Lists of many users: the best items of every user of a bundle, or of those in a file.

The lists are those that the server answers with (`Bundle.answer`). Some thousand users are in
memory at a time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_core.aliases import JSON
from dssm_core.columns import USER
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.ids import Ids
from dssm_core.features.ragged import offsets
from dssm_core.operation.user_files import read_users
from dssm_core.retrieval.bundle import Bundle
from dssm_core.retrieval.requests import (
    EXCLUDE,
    HISTORY,
    MAX_IDS,
    MAX_K,
    Queries,
    Rules,
    check_columns,
    check_k,
    check_size,
    column_names,
    count_ids,
)
from dssm_core.runs.files import replaced

log = logging.getLogger(__name__)

USERS_AT_ONCE = 4096
ITEMS_AT_ONCE = 2_000_000  # in the lists of these users: some hundred MB
LOG_EVERY_S = 10.0

# Users that are asked for at a time: their ids [B] as they are written, and their queries.
Asked = tuple[pa.ChunkedArray, Queries]


@dataclass(frozen=True)
class UserLists:
    """The k best items of users, by rules. As a table of a published version it has the exported
    users, and a key holds the item ids of a user as a JSON list.

    Raises DataError if k is not from 1 to 10,000.
    """

    bundle: Bundle
    rules: Rules
    k: int
    name: str = "lists"

    def __post_init__(self) -> None:
        check_k(self.k, MAX_K)

    @property
    def about(self) -> JSON:
        """What the lists of a version are: equal for equal lists."""
        return {"k": self.k} | (
            {"as_of_ms": self.rules.as_of_ms} if self.bundle.catalogue.timed else {}
        )

    @property
    def schema(self) -> pa.Schema:
        """See Content."""
        return self.schema_for(id_type(self.bundle.users))

    def __len__(self) -> int:
        """Number of exported users."""
        return len(self.bundle.users) - 1

    def parts(self) -> Iterator[pa.Table]:
        """The lists of the exported users, some thousand at a time."""
        return (self.table(ids, queries) for ids, queries in with_progress(self.exported()))

    def values(self, part: pa.Table) -> list[bytes]:
        """See Content."""
        return [json.dumps(items).encode() for items in part["item_ids"].to_pylist()]

    def schema_for(self, user_type: pa.DataType) -> pa.Schema:
        """The columns user_id, item_ids and scores (lists, best first) and source."""
        items = pa.list_(id_type(self.bundle.items))
        scores = pa.list_(pa.float32())
        names = [USER, "item_ids", "scores", "source"]
        return pa.schema(list(zip(names, [user_type, items, scores, pa.string()], strict=True)))

    def table(self, ids: pa.ChunkedArray, queries: Queries) -> pa.Table:
        """The lists of some users, see `schema_for`."""
        (rows, scores), sources = self.bundle.answer(queries, self.rules, self.k)
        present = rows >= 0
        ends = pa.array(offsets(present.sum(1)), pa.int32())
        item_ids = self.bundle.items.decode(rows[present] + 1)
        schema = self.schema_for(ids.type)
        columns = [
            ids,
            pa.ListArray.from_arrays(ends, pa.array(item_ids, id_type(self.bundle.items))),
            pa.ListArray.from_arrays(ends, pa.array(scores[present], pa.float32())),
            pa.array(sources.tolist(), pa.string()),
        ]
        return pa.table(columns, schema=schema)

    def exported(self) -> Iterator[Asked]:
        """All users of the bundle."""
        users = self.bundle.users
        for first in range(1, len(users), self._users_at_once):
            codes = np.arange(first, min(first + self._users_at_once, len(users)))
            ids = pa.chunked_array([pa.array(users.decode(codes), id_type(users))])
            yield ids, Queries.of_users(codes)

    def given(self, file: Path) -> Iterator[Asked]:
        """The users in a file, see `read_users`; it may have the columns of a request.

        Raises DataError if the file cannot be read or has other columns.
        """
        names = column_names(self.bundle.config.features)
        for table in read_users(file, "users file", self._users_at_once):
            for part in _few_ids(table):
                frame = part.to_pandas(integer_object_nulls=True, ignore_metadata=True)
                check_columns(frame, names)
                check_size(len(frame), count_ids(frame))
                yield part[USER], self.bundle.read(frame)

    @property
    def _users_at_once(self) -> int:
        return max(1, min(USERS_AT_ONCE, ITEMS_AT_ONCE // self.k))


def recommend(lists: UserLists, file: Path, users: Path | None = None) -> JSON:
    """Write the lists of all exported users, or of the users in a file, to a Parquet file.

    The file is written completely or not at all. Returns the file, the number of users, how many of
    them the model does not know, k and the rules. Raises ConfigError if the file's name does not
    end in .parquet, and DataError if a filter is not a condition, or `users` has no users or cannot
    be read.
    """
    if file.suffix != ".parquet":
        raise ConfigError(f"lists file {file.name!r}: its name must end in .parquet")
    asked = lists.exported() if users is None else lists.given(users)
    first = next(asked, None)
    if first is None:
        raise DataError(f"{f'users file {str(users)!r}' if users else 'the model'} has no users")
    schema = lists.schema_for(first[0].type)
    rows = 0
    known = 0
    with replaced(file) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for ids, queries in with_progress(chain([first], asked)):
            writer.write_table(lists.table(ids, queries))
            rows += len(queries)
            known += int(np.count_nonzero(queries.codes))
    return {
        "lists": str(file),
        "users": rows,
        "unknown_users": rows - known,
        "k": lists.k,
        "exclude_seen": lists.rules.exclude_seen,
        "filters": list(lists.rules.filters),
    }


def with_progress(asked: Iterable[Asked]) -> Iterator[Asked]:
    """The same, with a line in the log every 10 seconds."""
    users = 0
    logged_s = time.monotonic()
    for ids, queries in asked:
        yield ids, queries
        users += len(queries)
        if time.monotonic() - logged_s > LOG_EVERY_S:
            logged_s = time.monotonic()
            log.info("lists of %s users are computed", f"{users:,}")


def _few_ids(table: pa.Table) -> Iterator[pa.Table]:
    """The rows in parts, each of which has as few item ids as a request may have."""
    columns = [table[name] for name in (HISTORY, EXCLUDE) if name in table.column_names]
    lists = [column for column in columns if _is_list(column.type)]
    ids = max((pc.sum(pc.list_value_length(column)).as_py() or 0 for column in lists), default=0)
    if ids <= MAX_IDS or len(table) == 1:
        yield table
    else:
        half = len(table) // 2
        yield from _few_ids(table[:half])
        yield from _few_ids(table[half:])


def _is_list(of: pa.DataType) -> bool:
    return bool(pa.types.is_list(of) or pa.types.is_large_list(of))


def id_type(ids: Ids) -> Any:
    """The type of a column of ids in Parquet."""
    return pa.int64() if ids.whole_numbers else pa.string()
