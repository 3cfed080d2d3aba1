"""The step `train_towers`: train the two towers, in one process or in `train.processes`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from dssm_core.aliases import JSON
from dssm_core.features.dataset import load_prepared, selection_log
from dssm_core.features.tensors import save_tensors
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import CHECKPOINT_FILE, HISTORY_FILE, TOWERS_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run
from dssm_core.training import processes
from dssm_core.training.device import choose_device
from dssm_core.training.notes import warn, weights_of
from dssm_core.training.ranks import ALONE, Ranks
from dssm_core.training.start import open_start
from dssm_core.training.trainer import MetricLogger, Trainer

log = logging.getLogger(__name__)

LiveLogger = Callable[[Run], AbstractContextManager[MetricLogger]]


def train_towers(run: Run, work: Path, live_logger: LiveLogger) -> Outcome:
    """Step function. Write towers.safetensors and history.jsonl.

    A training that was killed continues from the checkpoint in `work`.

    live_logger: a context, whose value is called with (metrics, step) during training.
    """
    settings = run.config.train
    if processes.of_torchrun():
        outcome = train(run, work, live_logger, processes.announce(work))
    elif settings.processes > 1:
        outcome = processes.launch(train, run, work, live_logger)
    else:
        outcome = train(run, work, live_logger)
    (work / CHECKPOINT_FILE).unlink(missing_ok=True)
    return outcome


def train(run: Run, work: Path, live_logger: LiveLogger, ranks: Ranks = ALONE) -> Outcome:
    """Train as one of the ranks. The first one logs and writes the files; the outcome of the others
    is empty.
    """
    config = run.config
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    start = open_start(run)
    if start:
        start.check(config, selection_log(config, prepared.log).end)
        log.info("starting from the weights of %s", start.name)
    device = choose_device(config.train.device)
    with live_logger(run) if ranks.first else nullcontext(_ignore) as logger:
        checkpoint = work / CHECKPOINT_FILE
        trainer = Trainer(config, prepared, samples, device, checkpoint, logger, start, ranks)
        model = trainer.fit()
    if not ranks.first:
        return Outcome()
    save_tensors(work / TOWERS_FILE, model.state_dict())
    points = "".join(json.dumps(point) + "\n" for point in trainer.progress.history)
    write_atomically(work / HISTORY_FILE, points.encode())
    info = _info(trainer, model) | _notes(run, trainer)
    rows = {"events": trainer.objective.examples.count, "steps": trainer.progress.step}
    return Outcome(rows, info)


def _ignore(values: dict[str, float], step: int) -> None:
    """The logger of all ranks but the first."""


def _info(trainer: Trainer, model: TwoTower) -> JSON:
    """What a training came to."""
    settings = trainer.config.train
    info: JSON = {
        "best_epoch": trainer.progress.best_epoch,
        f"validation_{settings.chosen_by}": round(trainer.progress.best_value, 6),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(trainer.device),
        "temperature": round(model.temperature.item(), 6),
    }
    if settings.processes > 1:
        info["processes"] = settings.processes
    if trainer.start:
        info["started_from"] = trainer.start.name
    return info


def _notes(run: Run, trainer: Trainer) -> JSON:
    """The weights of the training set, what was left out of it, and what people should know."""
    log = trainer.prepared.log
    weights = {"weights": weights_of(log.weight)} if log.weighted else {}
    sources = run.need("sample_negatives").info.get("drawn_from", {})
    examples = trainer.objective.examples
    best = trainer.progress.best_epoch
    return weights | warn(run.config.train, best, examples, len(log.item), sources)
