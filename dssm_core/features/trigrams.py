"""Word hashing: a text as the letter trigrams of its words (DSSM; Huang et al., CIKM 2013, section
3.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Ints

LONGEST = 64  # letters of a word that are read: what is longer is no word but an address or a key


def words(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Lower-case words (runs of letters and digits), one a row; the index says which of the texts
    [n] it stands in.
    """
    held = texts.reset_index(drop=True).dropna().astype(str)
    return held.str.lower().str.findall(r"\w+").explode().dropna()


def trigrams(texts: pd.Series[Any]) -> tuple[Ints, Ints]:
    """Letter trigrams of all words, each between two #: good is #go, goo, ood, od#; repeated where
    they occur again.

    → row [t] (which of the texts) and trigram [t] (three code points of 21 bits as one number), in
    the order of the text.
    """
    found = words(texts)
    place, distinct = pd.factorize(found)
    marked = np.array([f"#{word[:LONGEST]}#" for word in distinct], dtype=np.str_)
    if not len(marked):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    letters = (
        marked.view(np.uint32).reshape(len(marked), -1).astype(np.int64)
    )  # [words, longest word], 0 behind the end
    three = (letters[:, :-2] << 42) | (letters[:, 1:-1] << 21) | letters[:, 2:]
    held = letters[:, 2:] > 0
    counts = held.sum(1)
    flat, first = three[held], np.concatenate([[0], counts.cumsum()[:-1]])
    times = counts[place]
    step = np.arange(times.sum()) - np.repeat(times.cumsum() - times, times)
    return np.repeat(found.index.to_numpy(dtype=np.int64), times), flat[
        np.repeat(first[place], times) + step
    ]


def spelled(codes: Ints) -> list[str]:
    """The letters of trigram numbers, for people and tests."""
    return ["".join(chr(int(code) >> shift & 0x1FFFFF) for shift in (42, 21, 0)) for code in codes]
