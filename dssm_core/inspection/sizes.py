"""Which split and which list lengths fit the days and the catalogue of a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from dssm_core.config import Gate

WHOLE = 0.5  # of a typical day's rows, from which a day is taken for a whole one
MOST_TRAIN_DAYS = 6
LEAST_TRAIN_DAYS = 2
ENOUGH_QUERIES: int = Gate.model_fields["min_queries"].default
SHARE_OF_CATALOGUE = 10  # a list of a tenth of the items still says something
LENGTHS = (200, 100, 50, 20, 10, 5, 3, 2, 1)
FEW_POSITIVES = 50_000
SMALL_LOG = {"batch_size": 256, "learning_rate": 0.01, "patience": 5}


@dataclass(frozen=True)
class Window:
    """A test day and the days before it. fewest: rows of the shortest of these days."""

    test_day: date
    train_days: int
    fewest: int


def typical_rows(rows: Sequence[int]) -> int:
    """The size of day in which half of all rows lie in days of this size or more; 0 without rows.

    A few stray rows of wrong days do not change it, which they would a median over days.
    """
    total = 0
    for count in sorted(rows, reverse=True):
        total += count
        if 2 * total >= sum(rows):
            return count
    return 0


def choose_window(days: Sequence[tuple[date, int]]) -> Window | None:
    """The last whole day as test day, with up to MOST_TRAIN_DAYS days of rows before it; None if
    there are fewer than LEAST_TRAIN_DAYS of them.

    days: (day, rows), of days with rows.
    """
    rows = dict(days)
    enough = WHOLE * typical_rows(list(rows.values()))
    whole = [day for day, count in sorted(rows.items()) if count >= enough]
    for test_day in reversed(whole):
        before = [test_day - timedelta(days=back) for back in range(1, MOST_TRAIN_DAYS + 1)]
        train_days = next((n for n, day in enumerate(before) if day not in rows), len(before))
        if train_days >= LEAST_TRAIN_DAYS:
            fewest = min(rows[day] for day in [test_day, *before[:train_days]])
            return Window(test_day, train_days, fewest)
    return None


def least_rows(fewest: int) -> int:
    """A floor for the rows of a day: half of the shortest day, in two digits."""
    half = max(1, fewest // 2)
    digits = int(10 ** max(0, len(str(half)) - 2))
    return half // digits * digits


def list_length(items: int) -> int:
    """gate.k for a catalogue: at most a tenth of it, and at least 1."""
    return next((k for k in LENGTHS if k * SHARE_OF_CATALOGUE <= items), 1)


def list_lengths(k: int) -> list[int]:
    """evaluation.ks, whose largest is gate.k, with up to two shorter lengths."""
    shorter = {200: [20, 50], 100: [10, 50], 50: [10, 20]}
    usual = shorter.get(k, sorted(length for length in LENGTHS if length < k)[-2:])
    return [*usual, k]


def train_settings(positives: int) -> dict[str, Any]:
    """How long to train. A small log has few steps in an epoch, and the average of its weights
    (train.ema_decay) needs some hundred steps before it is better than at the start; larger steps
    make up for their number.
    """
    small = SMALL_LOG if positives < FEW_POSITIVES else {}
    return {"epochs": 5, "max_epochs": 20} | small
