"""The step `train_towers`: choose the number of epochs on the last train day, then train on all
days for that many.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from dssm_core.config import Config, Train
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.dataset import Prepared, load_prepared, selection_log
from dssm_core.features.tensors import save_tensors
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import CHECKPOINT_FILE, HISTORY_FILE, TOWERS_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run
from dssm_core.training.checkpoint import load_checkpoint, save_checkpoint
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.objective import Objective

log = logging.getLogger(__name__)

Logger = Callable[[dict[str, float], int], None]
LOG_EVERY = 20  # steps between logged losses
TELL_EVERY_S = 10.0


@dataclass
class Progress:
    """How far training has come. `step` counts batches over both phases; `batch` is the next one of
    the epoch.
    """

    phase: str = "select"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)


def train_towers(run: Run, work: Path, live_logger: Callable[[Run], Logger]) -> Outcome:
    """Step function. Writes towers.safetensors and history.jsonl; resumes from the checkpoint in
    `work` after a kill.

    live_logger: returns the function that is called with (metrics, step) during training.
    """
    samples = run.step("sample_negatives")
    device = choose_device(run.config.train.device)
    trainer = Trainer(
        run.config,
        load_prepared(samples),
        samples,
        device,
        work / CHECKPOINT_FILE,
        live_logger(run),
    )
    model, progress = trainer.fit(), trainer.progress
    save_tensors(work / TOWERS_FILE, model.state_dict())
    write_atomically(
        work / HISTORY_FILE,
        "".join(json.dumps(point) + "\n" for point in progress.history).encode(),
    )
    (work / CHECKPOINT_FILE).unlink(missing_ok=True)
    info = {
        "best_epoch": progress.best_epoch,
        f"validation_{run.config.train.metric}": round(progress.best_value, 6),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(device),
        "temperature": round(model.temperature.item(), 6),
    }
    return Outcome({"events": trainer.objective.examples.count, "steps": progress.step}, info)


def choose_device(name: str) -> torch.device:
    """The device of `train.device`; ConfigError where a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device is 'cuda' but torch sees no GPU: set train.device to auto or cpu"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def learning_rate(settings: Train, done: int, total: int) -> float:
    """Linear warm-up over warmup_share of `total` steps, then a half cosine to zero; `done` steps
    are behind.
    """
    warm = max(1.0, settings.warmup_share * total)
    if done < warm:
        return settings.learning_rate * (done + 1) / warm
    return (
        settings.learning_rate
        * 0.5
        * (1 + math.cos(math.pi * (done - warm) / max(1.0, total - warm)))
    )


def _share_large_tables(model: TwoTower, average: TwoTower, rows: int) -> list[Tensor]:
    """Give embedding tables of more than `rows` rows sparse gradients, and both models one copy of
    them; these tables.

    Their cost then follows the batch, not the vocabulary; an average over steps would touch every
    row.
    """
    large: list[Tensor] = []
    for one, other in zip(model.modules(), average.modules(), strict=True):
        if (
            isinstance(one, torch.nn.Embedding)
            and isinstance(other, torch.nn.Embedding)
            and one.num_embeddings > rows
        ):
            one.sparse, other.weight = True, one.weight
            large.append(one.weight)
    return large


def _without(model: TwoTower, tables: list[Tensor]) -> list[Tensor]:
    return [
        parameter
        for parameter in model.parameters()
        if all(parameter is not table for table in tables)
    ]


def _decayed(parameters: list[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay; biases, gains and the temperature do not."""
    matrices, others = (
        [p for p in parameters if (p.ndim > 1) == wanted] for wanted in (True, False)
    )
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


class Trainer:
    """The loop: step, schedule, clip, average, log, evaluate, checkpoint. `fit` is all there is to
    call.

    Nothing random is carried from step to step: epochs and steps are seeded by their number, so
    that a run that was killed goes on from its checkpoint to the very same towers.
    """

    def __init__(
        self,
        config: Config,
        prepared: Prepared,
        samples: Path,
        device: torch.device,
        checkpoint: Path,
        logger: Logger,
    ) -> None:
        self.config, self.samples, self.device, self.checkpoint, self.logger = (
            config,
            samples,
            device,
            checkpoint,
            logger,
        )
        self.prepared = prepared.to(device)
        bf16 = config.train.precision == "bf16" or (
            config.train.precision == "auto" and device.type == "cuda"
        )
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
        self.generator = torch.Generator(device)
        self.progress = Progress()

    def fit(self) -> TwoTower:
        """Select the number of epochs, train anew on everything for that many, return the averaged
        towers.

        With train.refit off, the averaged towers of the best epoch of the selection.
        """
        state = load_checkpoint(self.checkpoint)
        if state:
            self.progress = Progress(**state["progress"])
            log.info(
                "resuming %s at epoch %d, batch %d",
                self.progress.phase,
                self.progress.epoch + 1,
                self.progress.batch,
            )
        if self.progress.phase == "select":
            best = self._phase(selection_log(self.config, self.prepared.log), state)
            if not self.config.train.refit:
                return best
            self.progress = replace(self.progress, phase="refit", epoch=0, batch=0)
            state = None
        return self._phase(self.prepared.log, state)

    def _phase(self, known: Any, state: dict[str, Any] | None) -> TwoTower:
        phase = self.progress.phase
        self.objective = Objective(self.config, self.prepared, known, self.samples, phase)
        if not self.objective.examples.count:
            raise DataError(
                f"no event is left to train on ({phase}): nobody has two interactions in the train window, or every item was first "
                "clicked after the refresh before its clicks; give more split.train_days or a smaller features.activity.refresh_h"
            )
        self.steps_per_epoch = len(
            self.objective.examples.batches(self.config.train.batch_size, seed=0)
        )
        self._start(state)
        validation = HeldOutQueries(self.config, self.prepared.log) if phase == "select" else None
        while not self._finished():
            self._epoch()
            if validation and self._to_be_judged():
                self._judge(validation)
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
            self._save()
        model = self.average
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise ConfigError(
                f"training diverged at the end of the {phase} phase: lower train.learning_rate or train.clip_norm"
            )
        if phase == "select" and not self.config.train.refit:
            model.load_state_dict(self.best)
        return model

    def _start(self, state: dict[str, Any] | None) -> None:
        """Fresh parameters from the seed, or those of a checkpoint."""
        settings = self.config.train
        torch.manual_seed(self.config.seed)
        self.model = TwoTower(self.config, self.prepared.schema, self.prepared.items).to(
            self.device
        )
        self.average = copy.deepcopy(self.model).eval()
        large = _share_large_tables(self.model, self.average, settings.sparse_rows)
        self.dense, self.averaged = _without(self.model, large), _without(self.average, large)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(_decayed(self.dense, settings.weight_decay), fused=True)
        ]
        if large:
            self.optimizers.append(torch.optim.SparseAdam(large))
        self.saved_at = self.told_at = time.monotonic()
        self.best: dict[str, Tensor] = state["best"] if state else {}
        for name, part in self._parts().items() if state else ():
            part.load_state_dict(cast(dict[str, Any], state)[name])

    def _finished(self) -> bool:
        progress = self.progress
        if progress.phase == "refit":
            return progress.epoch >= progress.best_epoch
        return (
            progress.epoch >= self.config.train.epochs
            or self._stale() >= self.config.train.patience
        )

    def _to_be_judged(self) -> bool:
        done = self.progress.epoch + 1
        return done % self.config.train.judge_every == 0 or done == self.config.train.epochs

    def _stale(self) -> int:
        """Judgements since the best epoch."""
        return (self.progress.epoch - self.progress.best_epoch) // self.config.train.judge_every

    def _epoch(self) -> None:
        progress = self.progress
        batches = self.objective.examples.batches(
            self.config.train.batch_size, self._seed(progress.epoch)
        )
        losses: list[Tensor] = []
        for place in range(progress.batch, len(batches)):
            losses.append(self._step(batches[place]))
            progress.batch, progress.step = place + 1, progress.step + 1
            if progress.step % LOG_EVERY == 0:
                self._log(
                    {
                        "train_loss": float(torch.stack(losses).mean()),
                        "learning_rate": self._learning_rate(),
                    }
                )
                losses.clear()
                self._tell(len(batches))
                if time.monotonic() - self.saved_at >= self.config.train.checkpoint_every_s:
                    self._save()

    def _step(self, rows: Tensor) -> Tensor:
        """One update from the events at `rows` [B]; the loss, detached, without waiting for the
        device. → [].
        """
        rate, seed = self._learning_rate(), self._seed(self.progress.step)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = rate
        self.generator.manual_seed(seed)
        torch.manual_seed(seed)  # for dropout
        with self.autocast:
            loss = self.objective(self.model, rows, self.generator)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.dense, self.config.train.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the averaged weights towards the latest; the first step's are taken as they are."""
        first = self.progress.epoch == self.progress.batch == 0
        weight = 1.0 if first else 1 - self.config.train.ema_decay
        torch._foreach_lerp_(self.averaged, self.dense, weight)

    def _judge(self, validation: HeldOutQueries) -> None:
        """Ask the averaged towers on the validation slice; the best epoch is the one with the most."""
        progress, name = self.progress, self.config.train.metric
        with self.autocast:
            value = validation.score(self.average, self.prepared)
        self._log({f"valid_{name}": value, "epoch": progress.epoch + 1})
        log.info("epoch %d: %s %.4f on the validation slice", progress.epoch + 1, name, value)
        if value > progress.best_value:
            progress.best_value, progress.best_epoch = value, progress.epoch + 1
            if not self.config.train.refit:
                self.best = {key: part.clone() for key, part in self.average.state_dict().items()}

    def _learning_rate(self) -> float:
        done = self.progress.epoch * self.steps_per_epoch + self.progress.batch
        return learning_rate(
            self.config.train, done, self.config.train.epochs * self.steps_per_epoch
        )

    def _seed(self, number: int) -> int:
        """A seed for the numbered step or epoch of this phase."""
        return int(
            np.random.SeedSequence(
                [self.config.seed, self.progress.phase == "refit", number]
            ).generate_state(1)[0]
        )

    def _log(self, values: dict[str, float]) -> None:
        if not all(map(math.isfinite, values.values())):
            progress, rate = self.progress, self._learning_rate()
            raise ConfigError(
                f"training diverged in the {progress.phase} phase at step {progress.step}, epoch {progress.epoch + 1}, "
                f"batch {progress.batch}, learning rate {rate:.3g} ({values}): lower train.learning_rate or train.clip_norm"
            )
        self.progress.history.append(
            {"step": self.progress.step, "phase": self.progress.phase, **values}
        )
        self.logger(values, self.progress.step)
        log.debug("%s", self.progress.history[-1])

    def _tell(self, batches: int) -> None:
        """A line for people now and then."""
        if time.monotonic() - self.told_at < TELL_EVERY_S:
            return
        self.told_at, progress = time.monotonic(), self.progress
        epochs = progress.best_epoch if progress.phase == "refit" else self.config.train.epochs
        text = "%s: epoch %d of %d, batch %d of %d, loss %.4f"
        log.info(
            text,
            progress.phase,
            progress.epoch + 1,
            epochs,
            progress.batch,
            batches,
            progress.history[-1]["train_loss"],
        )

    def _parts(self) -> dict[str, Any]:
        optimizers = {
            f"optimizer_{place}": optimizer for place, optimizer in enumerate(self.optimizers)
        }
        return {"model": self.model, "average": self.average, **optimizers}

    def _save(self) -> None:
        """Everything needed to go on exactly."""
        states = {name: part.state_dict() for name, part in self._parts().items()}
        save_checkpoint(
            self.checkpoint, {"progress": asdict(self.progress), "best": self.best, **states}
        )
        self.saved_at = time.monotonic()
