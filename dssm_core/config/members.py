"""The members that a config chooses, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dssm_core import families
from dssm_core.config.config import Config
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


def members_in_use(config: Config) -> Iterator[tuple[str, Any]]:
    """Each member that takes part in a run, as its family and kind (such as "loss 'ccl'"), and the
    member. The sampler is left out if the loss compares with the whole catalogue.
    """
    loss = families.build(LOSSES, config.loss)
    yield f"source {config.data.source.kind!r}", families.load(SOURCES, config.data.source.kind)
    yield f"split {config.split.kind!r}", config.split
    if not loss.whole_catalogue:
        yield f"sampler {config.sampler.kind!r}", families.build(SAMPLERS, config.sampler)
    yield f"tower {config.tower.kind!r}", families.build(TOWERS, config.tower)
    yield f"loss {config.loss.kind!r}", loss
    yield f"index {config.index.kind!r}", families.build(INDEXES, config.index)
    for chosen in config.evaluation.baselines:
        yield f"baseline {chosen.name!r}", families.build(BASELINES, chosen)
