"""Where a config chooses members of families."""

from __future__ import annotations

from dssm_core.families import BASELINES, INDEXES, LOSSES, SAMPLERS, SOURCES, SPLITS, TOWERS

FAMILIES = {
    "data.source": SOURCES,
    "split": SPLITS,
    "sampler": SAMPLERS,
    "tower": TOWERS,
    "item_tower": TOWERS,
    "loss": LOSSES,
    "index": INDEXES,
    "evaluation.baselines": BASELINES,
}
