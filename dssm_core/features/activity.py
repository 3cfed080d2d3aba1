"""Activity of items: clicks, age and the last click as of a moment, and the moments of training."""

from __future__ import annotations

import torch
from torch import Tensor

from dssm_core.columns import HOUR_MS
from dssm_core.config import Features
from dssm_core.features.interactions import Interactions


def activity(log: Interactions, item: Tensor, as_of: Tensor, windows_h: tuple[int, ...]) -> Tensor:
    """Point-in-time activity of items, raw. item, as_of: [n] → [n, len(windows_h) + 3] float32.

    log(1 + clicks) in each of the last `windows_h` hours and in the window so far, log(1 + age in
    hours), log(1 + hours since the last click).
    """
    counts = [log.clicks(item, as_of - hours * HOUR_MS, as_of) for hours in windows_h]
    counts.append(log.clicks(item, log.window[0].expand_as(as_of), as_of))
    ages = [as_of - log.created[item], as_of - log.last_click(item, as_of)]
    hours = [(age.clamp(min=0).double() / HOUR_MS) for age in ages]
    return torch.stack([*counts, *hours], dim=1).double().log1p().float()


def refresh_times(start: int, cutoff: int, features: Features) -> list[int]:
    """The moments (ms) at which training sees activity: each refresh_h hours back from the cutoff,
    oldest first.

    The window's start is never among them: nothing is known of any item then.
    """
    step = features.activity.refresh_h * HOUR_MS
    return list(range(cutoff - step, start, -step))[::-1]
