"""The samplers of a run, and the tables that they draw from in each phase of training."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import LOSSES, SAMPLERS
from dssm_core.features.dataset import bucket_times, selection_log
from dssm_core.features.interactions import Interactions
from dssm_core.runs.layout import SAMPLER_FILE
from dssm_core.sampling.samplers.protocol import FittedIds, Sampler, Tables


def samplers_of(config: Config) -> dict[str, Sampler]:
    """Where candidates come from: `sampler` and, where the loss wants them, `in_batch`; nothing for
    a loss over all items.
    """
    loss = families.build(LOSSES, config.loss)
    if loss.whole_catalogue:
        return {}
    sampler = families.build(SAMPLERS, config.sampler)
    if loss.batch is None:
        return {"sampler": sampler}
    batch = {"in_batch": loss.batch}
    return batch if sampler.from_batch else {"sampler": sampler, **batch}


def fit_sampler_tables(config: Config, log: Interactions, ids: FittedIds) -> Tables:
    """`phase.sampler.table`: for both phases of training, so that selection draws by no click of
    its validation day.
    """
    return {
        f"{phase}.{name}.{table}": tensor.contiguous().clone()
        for phase, known in (("select", selection_log(config, log)), ("refit", log))
        for name, sampler in samplers_of(config).items()
        for table, tensor in sampler.fit(known, bucket_times(config, log), ids).items()
    }


def load_sampler_tables(folder: Path, phase: str, sampler: str) -> Tables:
    """Tables of one of `samplers_of` in a phase (`select` or `refit`)."""
    prefix = f"{phase}.{sampler}."
    return {
        name.removeprefix(prefix): t
        for name, t in load_file(folder / SAMPLER_FILE).items()
        if name.startswith(prefix)
    }
