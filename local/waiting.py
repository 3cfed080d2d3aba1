"""Wait for something to become true."""

from __future__ import annotations

from collections.abc import Callable
from operator import not_
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_delay, stop_never
from tenacity.wait import wait_fixed

T = TypeVar("T")


def wait_for(
    ready: Callable[[], T],
    every_s: float,
    at_most_s: float | None = None,
    waiting: Callable[[float], None] = lambda seconds: None,
) -> T:
    """Call `ready` every `every_s` seconds until it returns a true value, and return that value.

    waiting: called with the seconds waited so far before each pause. tenacity.RetryError after
    `at_most_s` seconds; errors of `ready` are raised at once.
    """

    def before_sleep(state: RetryCallState) -> None:
        waiting(state.seconds_since_start or 0.0)

    retrying = Retrying(
        retry=retry_if_result(not_),
        wait=wait_fixed(every_s),
        stop=stop_never if at_most_s is None else stop_after_delay(at_most_s),
        before_sleep=before_sleep,
    )
    return retrying(ready)
