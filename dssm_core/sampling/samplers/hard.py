"""Items that a previous model ranks high for the user, but not at the top (EBR, Huang et al. 2020;
MOBIUS, Fan et al. 2019).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dssm_core.columns import ITEM, USER
from dssm_core.errors import ArtifactError, DataError
from dssm_core.features.events import Events
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.runs.layout import ITEM_EMBEDDINGS_FILE, USER_EMBEDDINGS_FILE, ids_file
from dssm_core.sampling.samplers.protocol import Bucket, FittedIds, Tables
from dssm_core.sampling.samplers.user_item_pairs import draw_from_lists, pair_keys, place_of

SCORES_AT_ONCE = 16_000_000  # scores in memory at a time: 64 MB


class Hard(BaseModel):
    """Items that a previous model ranks high for the user, but not at the top; uniform over all
    items for a user outside of that model. The user's own train items are left out, and items that
    the present data does not have.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    own: ClassVar[bool] = True
    even: ClassVar[bool] = False
    draws_positives: ClassVar[bool] = False
    from_batch: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = True
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    bundle: str
    """Folder of the previous model's bundle, or of a run that finished export_embeddings."""
    band: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] = (100, 500)
    """Ranks [first, last) in exact search over that model's items; 0 is the best."""
    per_user: Annotated[int, Field(ge=1)] = 100
    """Number of items of the band that are kept for each user, spread evenly over it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.band[0] >= self.band[1]:
            raise ValueError(
                f"sampler.band is {list(self.band)}: give [first, last) with first below last, such"
                " as [100, 500]"
            )
        return self

    def files(self) -> dict[str, Path]:
        """The files that `fit` reads, by name. They are part of the step's key, so that the step
        runs again after that model is retrained.
        """
        folder = vectors_folder(Path(self.bundle))
        return {
            name: folder / name
            for name in (USER_EMBEDDINGS_FILE, ITEM_EMBEDDINGS_FILE)
            if (folder / name).is_file()
        }

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """A list of items for each user. ArtifactError where the bundle cannot be read, DataError
        where it does not fit.
        """
        users, items, theirs = read_vectors(Path(self.bundle), ids)
        if len(items) <= self.band[0]:
            raise DataError(
                f"sampler.band begins at rank {self.band[0]}, but {self.bundle} has {len(items)}"
                " items: give lower ranks"
            )
        codes, positives = len(log.created), pair_keys(log.user, log.item, len(log.created))
        chunks = torch.arange(len(users)).split(max(1, SCORES_AT_ONCE // len(items)))
        found = [
            self._band(users[chunk] @ items.T, theirs, chunk, positives, codes) for chunk in chunks
        ]
        key = torch.cat(found).sort().values  # user * codes + item
        ptr = torch.searchsorted(key, torch.arange(len(users) + 1) * codes)
        return {"key": key, "items": key % codes, "ptr": ptr, "known": torch.tensor([codes - 1])}

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[B, count] item codes."""
        begin, length = tables["ptr"][events.user], tables["ptr"].diff()[events.user]
        return draw_from_lists(tables["items"], begin, length, tables["known"], count, generator)

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """items: [B, n] → [B, n]."""
        held = place_of(tables["key"], events.user[:, None] * (tables["known"] + 1) + items)[1]
        length = tables["ptr"].diff()[events.user][:, None]
        return (
            torch.where(length > 0, held / length.clamp(min=1), 1 / tables["known"]).log().float()
        )

    def _band(
        self, scores: Tensor, theirs: Tensor, user: Tensor, positives: Tensor, codes: int
    ) -> Tensor:
        """Keys user * codes + item of what a chunk of users draws from. scores: [u, their items];
        user: [u] codes → [n].
        """
        last = min(self.band[1], scores.shape[1])
        item = theirs[scores.topk(last, dim=1).indices[:, self.band[0] :]]  # [u, width], by rank
        key = user[:, None] * codes + item
        kept = (item > 0) & ~place_of(positives, key)[1] & scores.isfinite().any(1, keepdim=True)
        front = kept.logical_not().sort(dim=1, stable=True).indices  # those kept first, by rank
        number = kept.sum(1, keepdim=True)
        wanted = number.clamp(max=self.per_user)
        place = torch.arange(min(self.per_user, key.shape[1]))
        evenly = place * number // wanted.clamp(min=1)
        return key.gather(1, front.gather(1, evenly.clamp(max=key.shape[1] - 1)))[place < wanted]


def vectors_folder(folder: Path) -> Path:
    """The folder of the vectors of a run or a bundle."""
    return folder / "export_embeddings" if (folder / "export_embeddings").is_dir() else folder


def read_vectors(folder: Path, ids: FittedIds) -> tuple[Tensor, Tensor, Tensor]:
    """A previous model's vectors of the present users, [codes, D], NaN where it knows none; of its
    items, [M, D]; and these items' present codes, [M], 0 where unknown.
    """
    folder = vectors_folder(folder)
    try:
        users, items = (
            np.load(folder / name, allow_pickle=False)
            for name in (USER_EMBEDDINGS_FILE, ITEM_EMBEDDINGS_FILE)
        )
        their_users, their_items = (Ids.load(folder / ids_file(column)) for column in (USER, ITEM))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"sampler.bundle {str(folder)!r} cannot be read: {error}; give the folder of a finished"
            " run"
        ) from error
    row = their_users.encode(ids[USER].index)
    if not row.any():
        raise DataError(
            f"sampler.bundle {str(folder)!r} knows none of the train users: give a run of the same"
            " data, or sampler 'uniform'"
        )
    present = np.where((row > 0)[:, None], users[row], np.nan)
    vectors = torch.from_numpy(
        np.concatenate([np.full((1, users.shape[1]), np.nan), present]).astype(np.float32)
    )
    return (
        vectors,
        torch.from_numpy(items.astype(np.float32)),
        torch.from_numpy(ids[ITEM].encode(their_items.index)),
    )
