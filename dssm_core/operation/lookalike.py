"""Audiences: the users most similar to some seed users, or nearest to an item (an ad).

The query of seed users is the mean of their vectors of length 1, the prototype of Rocchio (1971):
the score of a user is then the mean cosine similarity to all seeds. One prototype describes one
taste; for seeds with several tastes, ask for each group of seeds separately (RALM, Liu et al. 2019,
clusters them). The query of an item is its own vector, and the score of a user is the towers'
similarity of user and item.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import JSON, Floats, Ints
from dssm_core.columns import ITEM, USER
from dssm_core.errors import ConfigError, DataError, shorten
from dssm_core.features.ids import canonical_ids
from dssm_core.operation.user_files import WRITERS
from dssm_core.retrieval.bundle import Bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE

log = logging.getLogger(__name__)

EXAMPLES = 5  # unknown seeds that a message names


@dataclass(frozen=True)
class AudienceQuery:
    """A query for users.

    vector: [D], compared by inner product with users: [U, D]. seeds: rows of `users` that are
    seeds. unknown: the number of seeds that the model does not know; examples: some of them.
    """

    vector: Floats
    users: Floats
    seeds: Ints
    unknown: int = 0
    examples: tuple[str, ...] = ()


def like_seeds(
    bundle: Bundle, seeds: Sequence[Any], from_file: Sequence[Any] = ()
) -> AudienceQuery:
    """The query of the seeds' prototype.

    seeds: user ids; a duplicate counts once, unknown ids are left out. from_file: more of them.
    Raises DataError if all are unknown.
    """
    given = pd.Series([*seeds, *from_file], dtype=object)
    codes = bundle.users.find(canonical_ids(given.tolist(), bundle.users.whole_numbers))
    rows = np.unique(codes[codes > 0]) - 1
    # A file without any user may be another one than was meant: nothing of it is shown.
    shown = given[codes == 0] if len(rows) else given[: len(seeds)]
    examples = tuple(map(shorten, shown.drop_duplicates().head(EXAMPLES)))
    unknown = given[codes == 0].nunique(dropna=False)
    such_as = f", such as {', '.join(examples)}" if examples else ""
    message = (
        f"{unknown:,} of {given.nunique(dropna=False):,} seeds are no users of this model{such_as}"
    )
    if not len(rows):
        raise DataError(f"{message}: give {USER}s that occur in its train window")
    if unknown:
        log.warning("%s: left out", message)
    users = _to_unit_length(np.array(bundle.user_vectors[1:], dtype=np.float32))
    return AudienceQuery(users[rows].mean(axis=0), users, rows, unknown, examples)


def near_item(bundle: Bundle, item: Any) -> AudienceQuery:
    """The query of an item. Raises DataError if the model does not know the item."""
    code = int(bundle.items.find(canonical_ids([item], bundle.items.whole_numbers))[0])
    if code == 0:
        raise DataError(
            f"item {item!r} is not among the model's {len(bundle.items) - 1:,} items: give an"
            f" {ITEM} of its catalogue"
        )
    items: Floats = np.load(bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    return AudienceQuery(
        vector=np.array(items[code - 1], dtype=np.float32),
        users=np.array(bundle.user_vectors[1:], dtype=np.float32),
        seeds=np.zeros(0, np.int64),
    )


def audience(
    bundle: Bundle, query: AudienceQuery, top: int, exclude_seeds: bool = True
) -> pd.DataFrame:
    """The `top` users, or all if there are fewer.

    Returns the columns user_id, score and rank (from 1), best first, and equal scores in order of
    ids. The search is exact, because the index is built for this one query. It holds the users'
    vectors [U, D] float32 in memory twice. Raises DataError if no user is left.
    """
    member = FaissFlat()
    n_users = len(query.users)
    left_out = query.seeds if exclude_seeds else query.seeds[:0]
    index = member.build(query.users, bundle.config.seed)
    count = min(top + len(left_out), n_users)
    (rows,), (scores,) = member.search(index, query.vector[None], count)
    selected = ~np.isin(rows, left_out)
    if not selected.any():
        raise DataError(
            f"no user is left: all {n_users:,} users of the model are seeds. Include the seeds in"
            " the audience, or give fewer seeds"
        )
    rows = rows[selected]
    scores = scores[selected]
    best = np.lexsort((rows, -scores))[:top]
    ids = bundle.users.decode(rows[best] + 1)
    return pd.DataFrame({USER: ids, "score": scores[best], "rank": np.arange(1, len(best) + 1)})


def make_audience(
    bundle: Bundle,
    file: Path,
    top: int,
    seeds: Sequence[Any] = (),
    item: Any = None,
    exclude_seeds: bool = True,
    from_file: Sequence[Any] = (),
) -> JSON:
    """Write the audience of seed users or of an item to `file` (.parquet or .csv), atomically.

    Returns the file, the number of users, the best and the last score, and for seeds how many are
    known, how many are unknown and some of the unknown ones. Raises ConfigError on another suffix,
    if `top` is below 1, or unless exactly one of `seeds` and `item` is given.
    """
    if file.suffix not in WRITERS:
        raise ConfigError(
            f"audience file {file.name!r}: its name must end in {' or '.join(WRITERS)}"
        )
    if top < 1:
        raise ConfigError(f"top is {top}: give the number of users, 1 or more")
    if (item is None) == (not len(seeds) and not len(from_file)):
        given = "neither is given" if item is None else "both are given"
        raise ConfigError(f"give either seed users or one item to start from: {given}")
    query = like_seeds(bundle, seeds, from_file) if item is None else near_item(bundle, item)
    users = audience(bundle, query, top, exclude_seeds)
    write_atomically(file, WRITERS[file.suffix](users))
    about: JSON = {
        "file": str(file),
        "users": len(users),
        "best": float(users["score"].iloc[0]),
        "last": float(users["score"].iloc[-1]),
    }
    if item is not None:
        return about | {"item": str(item)}
    return about | {
        "seeds": len(query.seeds),
        "unknown_seeds": query.unknown,
        "unknown": list(query.examples),
    }


def _to_unit_length(vectors: Floats) -> Floats:
    """Scale vectors to length 1, in place; zero vectors stay. [U, D] → [U, D]"""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors
