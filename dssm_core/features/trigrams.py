"""Word hashing: a text as the letter trigrams of its words (DSSM; Huang et al., CIKM 2013, section
3.2).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from dssm_core.aliases import Ints
from dssm_core.features.ragged import offsets, positions

LONGEST = 64  # letters of a word that are used; longer words are URLs or keys
JOINERS = "\u200c\u200d"  # zero width, inside words of Hindi, Persian and others
BLOCKS = (range(0x300, 0x20000), range(0xE0100, 0xE01F0))  # of Unicode that have combining marks


def words(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Lower-case words (runs of letters, their marks, and digits), one a row; the index is the
    number of the word's text.
    """
    present = texts.reset_index(drop=True).dropna().astype(str)
    composed = present.str.normalize("NFC")  # é is one letter, or e and a mark
    return composed.str.lower().str.findall(_word()).explode().dropna()


@cache
def _word() -> str:
    """A regular expression: `\\w+`, but marks that combine with a letter (the vowel signs of Indian
    scripts) are part of it. Python's `\\w` leaves them out.
    """
    marks = [
        chr(code) for code in chain(*BLOCKS) if unicodedata.category(chr(code)).startswith("M")
    ]
    return rf"\w[\w{re.escape(''.join(marks) + JOINERS)}]*"


def trigrams(texts: pd.Series[Any]) -> tuple[Ints, Ints]:
    """Letter trigrams of all words, with # at both ends of a word: good is #go, goo, ood, od#.
    Repeated trigrams are repeated in the result.

    → row [t], the number of the text, and trigram [t], three code points of 21 bits as one number,
    in the order of the text.
    """
    word_of_text = words(texts)
    word, distinct = pd.factorize(word_of_text)
    marked = np.array([f"#{word[:LONGEST]}#" for word in distinct], dtype=np.str_)
    if not len(marked):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    # [words, longest word], 0 after the end of a word
    letters = marked.view(np.uint32).reshape(len(marked), -1).astype(np.int64)
    three = (letters[:, :-2] << 42) | (letters[:, 1:-1] << 21) | letters[:, 2:]
    complete = letters[:, 2:] > 0
    counts = complete.sum(1)  # trigrams of each distinct word
    first = offsets(counts)[:-1]
    repeats = counts[word]
    row = np.repeat(word_of_text.index.to_numpy(dtype=np.int64), repeats)
    return row, three[complete][np.repeat(first[word], repeats) + positions(repeats)]


def spelled(codes: Ints) -> list[str]:
    """The letters of trigram numbers, for tests and for reading."""
    return ["".join(chr(int(code) >> shift & 0x1FFFFF) for shift in (42, 21, 0)) for code in codes]
