"""Lines about how far long work is. Work that takes less than EVERY_S seconds logs none."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 10.0  # between two lines

log = logging.getLogger(__name__)


def logged(parts: Sequence[T], what: str) -> Iterator[T]:
    """The parts, one by one. what: the work on all of them, such as `embedding users`."""
    last = time.monotonic()
    for done, part in enumerate(parts):
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            log.info("%s: %.0f %%", what, 100 * done / len(parts))
        yield part


@contextmanager
def watched(percent: Callable[[], float], what: str) -> Iterator[None]:
    """Ask from a thread how far the work inside the block is. percent: below 0 while there is
    none.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            if (done := percent()) >= 0:
                log.info("%s: %.0f %%", what, done)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
