"""Those of whom nothing is known: no id that train has seen, no history, nothing else that the user
tower was trained on.

Whether the unknown user's vector says anything is a fact of the training. With item activity the
first clicks of a user after a refresh are learned with an empty history, and with train.target
`rest` a history may be empty: the tower knows what to make of one, and newcomers ask by it, with
their context columns where they are given. Trained by places, every event has a history; and with
features.history.length 0 a user is an id and columns. Such a tower was never trained toward an
answer to nothing: the bundle of that model holds a list of hot items instead, and only that
model's: where there is no list, the tower answers. docs/log.md has what each finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Features

FILE = "hot.parquet"
HISTORY, KNOWN, CONTEXT, HOT = "history", "user", "context", "hot"  # where an answer comes from


@dataclass(frozen=True)
class HotList:
    """One list for all newcomers. rows [n]: items, best first; scores [n]: each one's share of the
    clicks in the list's hours.
    """

    rows: Ints
    scores: Floats

    def answer(self, cold: Bools, rows: Ints, scores: Floats) -> tuple[Ints, Floats]:
        """Answers [B, k] with the list in place of those of the `cold` [B] queries; row -1, score
        -inf behind its end.
        """
        k = rows.shape[1]
        missing = max(0, k - len(self.rows))
        listed = np.pad(self.rows[:k], (0, missing), constant_values=-1)
        shares = np.pad(self.scores[:k], (0, missing), constant_values=-np.inf)
        return np.where(cold[:, None], listed, rows), np.where(cold[:, None], shares, scores)

    def save(self, folder: Path) -> None:
        """Write the list into a folder of exported embeddings or a bundle."""
        pd.DataFrame({"row": self.rows, "score": self.scores}).to_parquet(folder / FILE)


def open_hot_list(folder: Path) -> HotList | None:
    """The list in a folder of exported embeddings or a bundle; None where the tower answers
    newcomers.
    """
    if not (folder / FILE).is_file():
        return None
    frame = pd.read_parquet(folder / FILE)
    return HotList(frame["row"].to_numpy(dtype=np.int64), frame["score"].to_numpy(dtype=np.float32))


def sources(
    features: Features, known: Bools, told: Bools, context: Bools, has_list: bool
) -> npt.NDArray[np.str_]:
    """Where each query's answer comes from: `history`, `user` (its exported vector), `context` (the
    unknown user's tower) or `hot`.

    known, told, context [n]: whose id, some of whose history, some of whose context train has seen.
    A model without histories has learned what a context says by itself; another one has not, and
    its newcomers get the list.
    """
    length = features.history.length
    tower = context if length == 0 else np.zeros_like(context)
    chosen = [told & (length > 0), known, tower if has_list else np.ones_like(context)]
    return np.select(chosen, [HISTORY, KNOWN, CONTEXT], HOT)
