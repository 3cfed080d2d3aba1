"""The training loop: choose the number of epochs on the last days of the train window, then train
on the whole window for that many epochs.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dssm_core.config import Config
from dssm_core.errors import ConfigError
from dssm_core.features.dataset import Prepared, selection_log
from dssm_core.features.interactions import Interactions
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.progress_log import EVERY_S
from dssm_core.training.checkpoint import load_checkpoint, save_checkpoint
from dssm_core.training.device import check_memory, deterministic, device_errors
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.notes import no_events
from dssm_core.training.objective import Objective
from dssm_core.training.optimizers import horizon, learning_rate, make_optimizers
from dssm_core.training.progress import Progress
from dssm_core.training.ranks import ALONE, Ranks
from dssm_core.training.start import Start
from dssm_core.training.update import Update

log = logging.getLogger(__name__)

MetricLogger = Callable[[dict[str, float], int], None]  # called with (metrics, step)
LOG_EVERY = 20  # steps between logged losses
LOWER_RATE = "lower train.learning_rate or train.clip_norm"


class Trainer:
    """The training loop. Call `fit`.

    No random state is carried from step to step: each epoch and each step is seeded by its number,
    so that a training that was killed continues from its checkpoint to exactly the same weights.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        samples: Path,
        device: torch.device,
        checkpoint: Path,
        logger: MetricLogger,
        start: Start | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """samples: the folder that `sample_negatives` wrote. checkpoint: the file to continue from,
        if it exists, and to write. start: the model whose weights each phase starts from. ranks:
        this process among those that train; the first one writes the checkpoint.
        """
        self.config = config
        self.samples = samples
        self.device = device
        self.checkpoint = checkpoint
        self.logger = logger
        self.start = start
        self.ranks = ranks
        self.on_gpu = device.type == "cuda"
        if self.on_gpu:
            check_memory(config, prepared, torch.cuda.get_device_properties(device).total_memory)
        with device_errors(config, prepared):
            self.prepared = prepared.to(device)
        self.progress = Progress()

    def fit(self) -> TwoTower:
        """Select the number of epochs, train on everything for that many, and return the averaged
        towers. If train.refit is off, return those of the best epoch of the selection.

        Raises ConfigError if the training diverges or a GPU has too little memory.
        """
        repeatable = self.on_gpu and self.config.train.deterministic
        with deterministic(repeatable), device_errors(self.config, self.prepared):
            return self._run_phases()

    def _run_phases(self) -> TwoTower:
        state = load_checkpoint(self.checkpoint)
        self.ranks.wait()  # until all have read it
        if state:
            self.progress = Progress(**state["progress"])
            log.info("resuming %s", self.progress.position)
        if self.progress.phase == "select":
            best = self._run_phase(selection_log(self.config, self.prepared.log), state)
            if not self.config.train.refit:
                return best
            self.progress = replace(self.progress, phase="refit", epoch=0, batch=0)
            state = None
        return self._run_phase(self.prepared.log, state)

    def _run_phase(self, known: Interactions, state: dict[str, Any] | None) -> TwoTower:
        """Train on the interactions of a phase. Returns the averaged towers."""
        phase = self.progress.phase
        self.objective = Objective(
            self.config, self.prepared, known, self.samples, phase, self.ranks
        )
        examples = self.objective.examples
        if not examples.count:
            raise no_events(phase, examples.left_out)
        self.steps_per_epoch = len(self.objective.batches(seed=0))
        self._start(state)
        queries = HeldOutQueries(self.config, self.prepared.log) if phase == "select" else None
        while not self._finished():
            self._run_epoch()
            if queries and self._validates():
                self._validate(queries)
            self.progress.epoch += 1
            self.progress.batch = 0
            self._save()
        if not all(parameter.isfinite().all() for parameter in self.average.parameters()):
            raise ConfigError(f"training diverged at the end of the {phase} phase: {LOWER_RATE}")
        if phase == "select" and not self.config.train.refit:
            self.average.load_state_dict(self.best)
        return self.average

    def _start(self, state: dict[str, Any] | None) -> None:
        """Initialise model and optimizers from the seed, or from a checkpoint's state."""
        torch.manual_seed(self.config.seed)
        model = TwoTower(self.config, self.prepared.schema, self.prepared.items)
        if self.start:
            self.start.copy_into(model, self.samples)
        self.model = model.to(self.device)
        self.average = copy.deepcopy(self.model).eval()
        self.optimizers = make_optimizers(self.model, self.average, self.config.train)
        self.update = Update(
            self.objective,
            self.model,
            self.optimizers,
            self.config.train,
            torch.Generator(self.device),
            self.ranks,
        )
        self.saved_at = time.monotonic()
        self.reported_at = self.saved_at
        self.best: dict[str, Tensor] = {}
        if state:
            self.best = state["best"]
            for name, part in self._stateful_parts().items():
                part.load_state_dict(state[name])

    def _finished(self) -> bool:
        """Whether the phase has run all its epochs, or the metric has stopped improving."""
        progress = self.progress
        settings = self.config.train
        if progress.phase == "refit":
            return progress.epoch >= progress.best_epoch
        without_gain = (progress.epoch - progress.best_epoch) // settings.judge_every
        last = horizon(settings, progress.best_epoch)  # later if the last epoch was the best
        return progress.epoch >= last or without_gain >= settings.patience

    def _validates(self) -> bool:
        """Whether the metric is measured after this epoch."""
        done = self.progress.epoch + 1
        settings = self.config.train
        return done % settings.judge_every == 0 or done == horizon(settings, self.progress.epoch)

    def _run_epoch(self) -> None:
        """Train on the remaining batches of the epoch."""
        progress = self.progress
        batches = self.objective.batches(self._seed(progress.epoch), progress.epoch)
        losses: list[Tensor] = []
        for number in range(progress.batch, len(batches)):
            first = progress.epoch == 0 and number == 0
            seed = self._seed(progress.step)
            losses.append(self.update(batches[number], seed, self._learning_rate(), first))
            progress.batch = number + 1
            progress.step += 1
            if progress.step % LOG_EVERY == 0:
                loss = float(torch.stack(losses).mean())
                losses.clear()
                self._log({"train_loss": loss, "learning_rate": self._learning_rate()})
                self._report(len(batches))
                if time.monotonic() - self.saved_at >= self.config.train.checkpoint_every_s:
                    self._save()

    def _validate(self, queries: HeldOutQueries) -> None:
        """Measure the averaged towers on the validation slice, and note the best epoch."""
        progress = self.progress
        done = progress.epoch + 1
        metric = self.config.train.chosen_by
        with self.update.autocast:
            value = queries.score(self.average, self.prepared, self.ranks)
        self._log({f"valid_{metric}": value, "train_epoch": done})
        log.info("epoch %d: %s %.4f on the validation slice", done, metric, value)
        if value > progress.best_value:
            progress.best_value = value
            progress.best_epoch = done
            if (last := horizon(self.config.train, done)) > horizon(self.config.train, done - 1):
                log.info("the last epoch is the best: going on to epoch %d", last)
            if not self.config.train.refit:
                self.best = {key: part.clone() for key, part in self.average.state_dict().items()}

    def _learning_rate(self) -> float:
        settings = self.config.train
        epoch = self.progress.epoch
        done = epoch * self.steps_per_epoch + self.progress.batch
        return learning_rate(settings, done, horizon(settings, epoch) * self.steps_per_epoch)

    def _seed(self, number: int) -> int:
        """A seed for the step or the epoch of this number in this phase."""
        parts = [self.config.seed, self.progress.phase == "refit", number]
        sequence = np.random.SeedSequence(parts)
        return int(sequence.generate_state(1)[0])

    def _log(self, values: dict[str, float]) -> None:
        """Add a point to the history and log it. Raises ConfigError if a value is not finite."""
        progress = self.progress
        wrong = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            raise ConfigError(
                f"training diverged {progress.position}, learning rate"
                f" {self._learning_rate():.3g}: {', '.join(wrong)}; {LOWER_RATE}"
            )
        progress.history.append({"step": progress.step, "phase": progress.phase, **values})
        self.logger(values, progress.step)
        log.debug("%s", progress.history[-1])

    def _report(self, batches: int) -> None:
        """Log a line about the progress, at most every EVERY_S seconds."""
        now = time.monotonic()
        if now - self.reported_at < EVERY_S:
            return
        self.reported_at = now
        progress = self.progress
        settings = self.config.train
        log.info(
            "%s: epoch %d of %d, batch %d of %d, loss %.4f",
            progress.phase,
            progress.epoch + 1,
            progress.best_epoch if progress.phase == "refit" else horizon(settings, progress.epoch),
            progress.batch,
            batches,
            progress.history[-1]["train_loss"],
        )

    def _stateful_parts(self) -> dict[str, Any]:
        """Models and optimizers by their name in the checkpoint."""
        optimizers = {
            f"optimizer_{number}": optimizer
            for number, optimizer in enumerate(self.optimizers.members)
        }
        return {"model": self.model, "average": self.average, **optimizers}

    def _save(self) -> None:
        """Write a checkpoint with all that is needed to continue exactly, once for all ranks."""
        if not self.ranks.first:
            return
        states = {name: part.state_dict() for name, part in self._stateful_parts().items()}
        state = {"progress": asdict(self.progress), "best": self.best, **states}
        save_checkpoint(self.checkpoint, state)
        self.saved_at = time.monotonic()
