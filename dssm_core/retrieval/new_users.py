"""Answers for new users: no known id, no known history, and no other input that the user tower was
trained on.

Whether the vector of the unknown user is useful depends on the training:

- With item activity, the first clicks of a user after a refresh are trained with an empty history,
  and with train.target `rest` a history may be empty. The user tower then learned empty histories,
  and answers new users itself, with their context columns if there are any. It was trained on these
  with features.first_context only.
- With activity off and another target, every event has a history; with features.history.length 0 a
  user is only an id and columns. The unknown user's vector was then never trained, and the bundle
  holds a list of hot items that answers new users instead.

docs/log.md has the recall of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dssm_core.aliases import Bools, Floats, Ints, Texts
from dssm_core.config import Features
from dssm_core.retrieval.eligible import Eligible, Lists

FILE = "hot.parquet"
HISTORY, KNOWN, CONTEXT, HOT = "history", "user", "context", "hot"  # values of `source`


@dataclass(frozen=True)
class HotList:
    """One list for all new users.

    rows: [n] item rows, best first. scores: [n], each item's share of the clicks in the hours that
    the list is made of.
    """

    rows: Ints
    scores: Floats

    def answer(self, new: Bools, rows: Ints, scores: Floats, eligible: Eligible) -> Lists:
        """Replace the answers to new users by the eligible items of the list. rows, scores: [B, k]
        → the same shapes.

        new: [B]. Behind the end of the list are the other answers of the index, with score 0: they
        had no click.
        """
        new_users = np.flatnonzero(new)
        k = rows.shape[1]
        shape = (len(new_users), len(self.rows))
        hot_rows, hot_scores = eligible.take(new_users).keep(
            np.broadcast_to(self.rows, shape), np.broadcast_to(self.scores, shape)
        )
        others = np.where(np.isin(rows[new_users], self.rows), -1, rows[new_users])
        lists = np.concatenate([hot_rows, others], axis=1)
        shares = np.concatenate([hot_scores, np.zeros_like(scores[new_users])], axis=1)
        lists, shares = Eligible(eligible.n_items).keep(lists, shares)
        rows, scores = rows.copy(), scores.copy()
        rows[new_users], scores[new_users] = lists[:, :k], shares[:, :k]
        return rows, scores

    def save(self, folder: Path) -> None:
        """Write the list into a folder of exported embeddings or a bundle."""
        pd.DataFrame({"row": self.rows, "score": self.scores}).to_parquet(folder / FILE)


def open_hot_list(folder: Path) -> HotList | None:
    """The list in a folder of exported embeddings or a bundle; None if the user tower answers new
    users.
    """
    if not (folder / FILE).is_file():
        return None
    frame = pd.read_parquet(folder / FILE)
    return HotList(frame["row"].to_numpy(dtype=np.int64), frame["score"].to_numpy(dtype=np.float32))


def answer_sources(
    features: Features,
    known_id: Bools,
    known_history: Bools,
    known_context: Bools,
    has_list: bool,
) -> Texts:
    """What answers each query. → [B].

    `history`: the user tower, from the given history. `user`: the exported vector of the user id.
    `context`: the user tower for the unknown user, with the given context. `hot`: the hot list.

    known_*: [B], whether the query's id, an item of its history, or a value of its context occurs
    in the training set. With a hot list, `context` answers only models without histories: they were
    trained on what a context alone says, and other models were not.
    """
    length = features.history.length
    if not has_list:
        by_context = np.ones_like(known_context)
    elif length == 0:
        by_context = known_context
    else:
        by_context = np.zeros_like(known_context)
    conditions = [known_history & (length > 0), known_id, by_context]
    return np.select(conditions, [HISTORY, KNOWN, CONTEXT], HOT)
