"""An audience: the users most like some seed users, or nearest to an item (an ad), out of an index
over the users.

Seeds ask by the mean of their vectors of length 1, the prototype of Rocchio (1971): a user's score
is then the mean of the cosines with all seeds. One prototype stands for one taste; for seeds of
several, ask for each group by itself (RALM, Liu et al. 2019, clusters them). An item asks by its
own vector, and a score is what the towers say of user and item.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import JSON, Floats, Ints
from dssm_core.columns import ITEM, USER
from dssm_core.errors import ConfigError, DataError
from dssm_core.registry.versions import CHAMPION, RegisteredModel, fetch
from dssm_core.retrieval.bundle import Bundle, as_ids, assemble, open_bundle
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE
from dssm_core.runs.run import Run

log = logging.getLogger(__name__)

NAMED = 5  # unknown seeds that a message names


@dataclass(frozen=True)
class AudienceQuery:
    """A question to the users' index. vector [D] is compared with users [U, D] by inner product;
    seeds: rows of `users` that ask.

    unknown: how many seeds are no users; some: a few of them.
    """

    vector: Floats
    users: Floats
    seeds: Ints
    unknown: int = 0
    some: tuple[str, ...] = ()


def like_seeds(bundle: Bundle, seeds: Sequence[Any]) -> AudienceQuery:
    """The seeds' prototype among unit vectors. seeds: user ids, each counted once; those that the
    model does not know are left out.

    DataError where none is known.
    """
    given = pd.Series(seeds, dtype=object).drop_duplicates()
    codes = bundle.users.encode(as_ids(given, bundle.users))
    known, some = np.unique(codes[codes > 0]) - 1, tuple(given[codes == 0].head(NAMED).astype(str))
    unknown = len(given) - int((codes > 0).sum())
    told = (
        f"{unknown:,} of {len(given):,} seeds are no users of this model, such as {', '.join(some)}"
    )
    if not len(known):
        raise DataError(f"{told}: give {USER}s that its train window has seen")
    if unknown:
        log.warning("%s: left out", told)
    users = _unit(np.array(bundle.user_vectors[1:], dtype=np.float32))
    return AudienceQuery(users[known].mean(axis=0), users, known, unknown, some)


def near_item(bundle: Bundle, item: Any) -> AudienceQuery:
    """An item's vector among the users' own. DataError where the model does not know the item."""
    code = int(bundle.items.encode(as_ids(pd.Series([item], dtype=object), bundle.items))[0])
    if code == 0:
        raise DataError(
            f"item {item!r} is not among the model's {len(bundle.items) - 1:,} items: give an {ITEM} of its catalogue"
        )
    items: Floats = np.load(bundle.folder / ITEM_EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
    return AudienceQuery(
        np.array(items[code - 1], dtype=np.float32),
        np.array(bundle.user_vectors[1:], dtype=np.float32),
        np.zeros(0, np.int64),
    )


def audience(
    bundle: Bundle, asked: AudienceQuery, top: int, exclude_seeds: bool = True
) -> pd.DataFrame:
    """The `top` users, or all if there are fewer: columns user_id, score, rank (from 1), best
    first, equal scores in order of ids.

    The index lives for one question, so it is an exact one. In memory: the users' vectors twice,
    float32 [U, D]. DataError where nobody is left.
    """
    member, n_users = FaissFlat(), len(asked.users)
    left_out = asked.seeds if exclude_seeds else asked.seeds[:0]
    index = member.build(asked.users, bundle.config.seed)
    rows, scores = (
        found[0]
        for found in member.search(index, asked.vector[None], min(top + len(left_out), n_users))
    )
    kept = ~np.isin(rows, left_out)
    if not kept.any():
        raise DataError(
            f"nobody is left: all {n_users:,} users of the model are seeds; keep the seeds in, or give fewer"
        )
    rows, scores = rows[kept], scores[kept]
    best = np.lexsort((rows, -scores))[:top]
    found = pd.DataFrame({USER: bundle.users.decode(rows[best] + 1), "score": scores[best]})
    return found.assign(rank=np.arange(1, len(found) + 1))


def make_audience(
    bundle: Bundle,
    file: Path,
    top: int,
    seeds: Sequence[Any] = (),
    item: Any = None,
    exclude_seeds: bool = True,
) -> JSON:
    """Ask by seeds or by an item, and write the audience to `file` (.parquet or .csv), all of it or
    nothing.

    Returns file, users, best and last score, and for seeds how many are known, how many are not and
    some of these. ConfigError on another suffix, a `top` below 1, or unless there are either seeds
    or an item.
    """
    if file.suffix not in WRITERS:
        raise ConfigError(
            f"audience file {file.name!r}: its name must end in {' or '.join(WRITERS)}"
        )
    if top < 1:
        raise ConfigError(f"top is {top}: ask for 1 user or more")
    if (item is None) == (len(seeds) == 0):
        raise ConfigError(
            f"give seed users or one item to start from, not {'neither' if item is None else 'both'}"
        )
    asked = like_seeds(bundle, seeds) if item is None else near_item(bundle, item)
    found = audience(bundle, asked, top, exclude_seeds)
    write_atomically(file, WRITERS[file.suffix](found))
    best, *_, last = (float(score) for score in found["score"].iloc[[0, -1]])
    about: JSON = {"file": str(file), "users": len(found), "best": best, "last": last}
    if item is not None:
        return about | {"item": str(item)}
    return about | {
        "seeds": len(asked.seeds),
        "unknown_seeds": asked.unknown,
        "unknown": list(asked.some),
    }


def read_seeds(file: Path) -> list[Any]:
    """User ids of a Parquet or CSV file with a column user_id, or of a text file with one id a
    line. DataError names what is wrong.
    """
    try:
        if file.suffix == ".parquet":
            return list(pd.read_parquet(file, columns=[USER])[USER].dropna())
        if file.suffix == ".csv":
            return list(pd.read_csv(file, dtype=str, usecols=[USER])[USER].dropna())
        return [
            line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, ValueError) as error:
        wanted = f"give a .parquet or .csv with a column {USER}, or a text file with one id a line"
        raise DataError(f"seeds file {str(file)!r} cannot be read ({error}): {wanted}") from error


@contextmanager
def opened(of: RegisteredModel | Run, version: str | None = None) -> Iterator[tuple[Bundle, JSON]]:
    """The bundle of a run, or of a version (a number or an alias; None: the champion) of a
    registered model, and what it is of.

    ConfigError where there is no such version, or one of a run is asked for.
    """
    if isinstance(of, Run) and version is not None:
        raise ConfigError(
            f"version {version!r} is of a registered model, run {of.id!r} has none: give one of the two"
        )
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(of, Run):
            yield open_bundle(assemble(of, Path(folder) / "bundle")), {"run": of.id}
        else:
            number = _number(of, version or CHAMPION)
            yield (
                open_bundle(fetch(of, number, Path(folder)).folder),
                {"model": of.name, "version": number},
            )


def _number(store: RegisteredModel, version: str) -> str:
    """A version's number from a number or an alias."""
    if version.isdigit():
        store.tags(version)  # says which versions there are where this is none
        return version
    aliases = store.aliases()
    if version not in aliases:
        known = ", ".join(sorted(aliases)) or "none"
        raise ConfigError(
            f"model {store.name!r} in {store.uri} has no {version}: its aliases are {known}; give one, or a number"
        )
    return aliases[version]


def _unit(vectors: Floats) -> Floats:
    """Ints of length 1, in place; a row of zeros stays. [U, D] → [U, D]"""
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors


def _parquet(frame: pd.DataFrame) -> bytes:
    held = io.BytesIO()
    frame.to_parquet(held)
    return held.getvalue()


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


WRITERS = {".parquet": _parquet, ".csv": _csv}
