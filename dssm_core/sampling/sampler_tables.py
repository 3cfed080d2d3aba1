"""The samplers of a run, and the tables that they draw from in each phase of training."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from dssm_core import families
from dssm_core.config import Config
from dssm_core.families import LOSSES, SAMPLERS
from dssm_core.features.dataset import bucket_times, selection_log
from dssm_core.features.events import training_events
from dssm_core.features.interactions import Interactions
from dssm_core.runs.layout import SAMPLER_FILE
from dssm_core.sampling.samplers.protocol import FittedIds, Sampler, Tables


def samplers_of(config: Config) -> dict[str, Sampler]:
    """The samplers that candidates come from, by name.

    `sampler` is the configured one; `in_batch` is added if the loss uses the batch's own positives.
    Empty for a loss over the whole catalogue.
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
    """The tables of all samplers for both phases of training, as `phase.sampler.table`.

    The tables of the phase `select` are fitted without the validation slice.
    """
    samplers = samplers_of(config)
    times = bucket_times(config, log)
    logs = {"select": selection_log(config, log), "refit": log}
    return {
        f"{phase}.{name}.{table}": tensor.contiguous().clone()
        for phase, known in logs.items()
        for name, sampler in samplers.items()
        for table, tensor in sampler.fit(known, times, ids).items()
    }


def load_sampler_tables(folder: Path, phase: str, sampler: str) -> Tables:
    """The tables of a sampler in a phase (`select` or `refit`), on the CPU."""
    return _of_sampler(load_file(folder / SAMPLER_FILE), phase, sampler)


def drawn_from(config: Config, log: Interactions, tables: Tables) -> dict[str, int]:
    """Number of training events by the first source that has negatives for them, for a sampler with
    several sources; empty for others. tables: those of `fit_sampler_tables`.
    """
    events = training_events(log, bucket_times(config, log))
    for name, sampler in samplers_of(config).items():
        if hasattr(sampler, "drawn_from"):
            return dict(sampler.drawn_from(_of_sampler(tables, "refit", name), events))
    return {}


def _of_sampler(tables: Tables, phase: str, sampler: str) -> Tables:
    prefix = f"{phase}.{sampler}."
    return {
        name.removeprefix(prefix): table
        for name, table in tables.items()
        if name.startswith(prefix)
    }
