"""The step `train_towers`: choose the number of epochs on the last train day, then train on all days for that many."""

from __future__ import annotations

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
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dssm_core import families
from dssm_core.artifacts import Run, write_atomically
from dssm_core.batches import Events, epoch_batches, training_events
from dssm_core.checkpoint import load_checkpoint, save_checkpoint
from dssm_core.config import Config
from dssm_core.errors import ConfigError, DataError
from dssm_core.features import item_inputs, users_as_of
from dssm_core.logits import Logits, logits, mask_accidental_hits
from dssm_core.losses import LOSSES
from dssm_core.prepare import Prepared, bucket_times, load_prepared, load_sampler_tables, validation_start
from dssm_core.samplers import SAMPLERS
from dssm_core.samplers.in_batch import InBatch
from dssm_core.samplers.protocol import Tables
from dssm_core.steps import Outcome
from dssm_core.two_tower import TwoTower
from dssm_core.validation import Validation

log = logging.getLogger(__name__)

Logger = Callable[[dict[str, float], int], None]
LOG_EVERY = 20  # steps between logged losses
TELL_EVERY_S = 10.0
K = 200


@dataclass
class Progress:
    """How far training has come. `step` counts batches over both phases; `batch` is the next one of the epoch."""

    phase: str = "select"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_recall: float = -1.0
    history: list[dict[str, float]] = field(default_factory=list)


def train(run: Run, work: Path) -> Outcome:
    """Step function. Writes towers.safetensors and history.jsonl; resumes from `work`'s checkpoint after a kill."""
    from dssm_core.registry import live_logger  # the only import of MLflow's module, and a heavy one

    device = choose_device(run.config.train.device)
    prepared = load_prepared(run.step("sample_negatives"))
    trainer = Trainer(run.config, prepared, run.step("sample_negatives"), device, work / "checkpoint.pt", live_logger(run))
    model = trainer.fit()
    save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, work / "towers.safetensors")
    progress = trainer.progress
    write_atomically(work / "history.jsonl", "".join(json.dumps(point) + "\n" for point in progress.history).encode())
    (work / "checkpoint.pt").unlink(missing_ok=True)
    info = {
        "best_epoch": progress.best_epoch,
        "validation_recall@200": round(progress.best_recall, 6),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(device),
        "temperature": round(model.temperature.item(), 6),
    }
    return Outcome({"events": trainer.seen_events, "steps": progress.step}, info)


def choose_device(name: str) -> torch.device:
    """The device of `train.device`; ConfigError where a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is 'cuda' but torch sees no GPU: set train.device to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Trainer:
    """The loop: step, schedule, clip, average, log, evaluate, checkpoint. `fit` is all there is to call."""

    def __init__(
        self, config: Config, prepared: Prepared, samples: Path, device: torch.device, checkpoint: Path, logger: Logger
    ) -> None:
        self.config, self.samples, self.device, self.checkpoint, self.logger = config, samples, device, checkpoint, logger
        self.log, self.users, self.items = prepared.log.to(device), prepared.users.to(device), prepared.items.to(device)
        self.scale, self.schema = prepared.scale.to(device), prepared.schema
        self.times = bucket_times(config, prepared.log).to(device)
        self.sampler, self.loss = families.build(SAMPLERS, config.sampler), families.build(LOSSES, config.loss)
        bf16 = config.train.precision == "bf16" or (config.train.precision == "auto" and device.type == "cuda")
        self.autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)
        self.generator = torch.Generator(device)
        self.progress = Progress()
        self.seen_events = 0

    def fit(self) -> TwoTower:
        """Select the number of epochs, train anew on every day for that many, return the averaged towers."""
        state = load_checkpoint(self.checkpoint)
        if state:
            self.progress = Progress(**state["progress"])
            log.info("resuming %s at epoch %d, batch %d", self.progress.phase, self.progress.epoch + 1, self.progress.batch)
        if self.progress.phase == "select":
            self._phase("select", state)
            best = self.progress
            self.progress = replace(best, phase="refit", epoch=0, batch=0)
            state = None
        return self._phase("refit", state)

    def _phase(self, phase: str, state: dict[str, Any] | None) -> TwoTower:
        self._load_phase(phase)
        self._start(state)
        if phase == "select":
            self.validation = Validation(self.log, validation_start(self.config, self.log))
        while not self._finished():
            self._epoch()
            if phase == "select":
                self._judge_epoch()
            self.progress.epoch, self.progress.batch = self.progress.epoch + 1, 0
            self._save()
        return self._averaged()

    def _averaged(self) -> TwoTower:
        return cast(TwoTower, self.average.module).eval()

    def _load_phase(self, phase: str) -> None:
        """The events and sampler tables that a phase may know."""
        known = self.log.before(validation_start(self.config, self.log)) if phase == "select" else self.log
        self.known = known
        self.events = training_events(known, self.times, self.config.features.activity.enabled)
        if not len(self.events.user):
            raise DataError(
                f"no event is left to train on in the {phase} phase: every item of the window was first clicked after the "
                "refresh before it; give more split.train_days or a smaller features.activity.refresh_h"
            )
        self.seen_events = len(self.events.user)
        self.tables = self._tables(phase, "sampler")
        self.batch_tables = self._tables(phase, "in_batch") if self.loss.in_batch else {}
        self.buckets = self.events.bucket.cpu()
        self.steps_per_epoch = len(epoch_batches(self.buckets, self.config.train.batch_size, 0))

    def _tables(self, phase: str, sampler: str) -> Tables:
        return {name: table.to(self.device) for name, table in load_sampler_tables(self.samples, phase, sampler).items()}

    def _start(self, state: dict[str, Any] | None) -> None:
        """Fresh parameters from the seed, or those of a checkpoint."""
        torch.manual_seed(self.config.seed)
        self.model = TwoTower(self.config, self.schema).to(self.device)
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.config.train.ema_decay))
        settings = self.config.train
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.saved_at = self.told_at = time.monotonic()
        if state:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])

    def _finished(self) -> bool:
        progress = self.progress
        if progress.phase == "refit":
            return progress.epoch >= progress.best_epoch
        return progress.epoch >= self.config.train.epochs or progress.epoch - progress.best_epoch >= self.config.train.patience

    def _epoch(self) -> None:
        progress = self.progress
        batches = epoch_batches(self.buckets, self.config.train.batch_size, self._seed(progress.epoch))
        losses: list[Tensor] = []
        for place in range(progress.batch, len(batches)):
            losses.append(self._step(batches[place].to(self.device)))
            progress.batch, progress.step = place + 1, progress.step + 1
            if progress.step % LOG_EVERY == 0:
                self._log({"train_loss": float(torch.stack(losses).mean()), "learning_rate": self._learning_rate()})
                losses.clear()
                self._tell(len(batches))
            if time.monotonic() - self.saved_at >= self.config.train.checkpoint_every_s and not losses:
                self._save()

    def _step(self, rows: Tensor) -> Tensor:
        """One update from the events at `rows` [B]; the loss, detached, without waiting for the device. → []."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.generator.manual_seed(self._seed(self.progress.step))
        with self.autocast:
            loss: Tensor = self.loss(self._logits(rows))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_norm)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        return loss.detach()

    def _logits(self, rows: Tensor) -> Logits:
        """A batch's logits: every event against its own item and the candidates they share."""
        events = Events(*(getattr(self.events, name)[rows] for name in ("user", "item", "bucket", "as_of")))
        bucket = int(self.buckets[rows[0].cpu()])
        as_of = int(self.times[bucket])
        distinct, place = torch.unique(events.item, return_inverse=True)
        candidates, log_count = self._candidates(bucket, events.item)
        codes = torch.cat([distinct, candidates])
        embedded = self.model.items(item_inputs(self.known, self.items, codes, as_of, self.config.features, self.scale))
        users = self.model.users(users_as_of(self.known, self.users, events.user, events.as_of, self.config.features))
        own, others = embedded[: len(distinct)][place], embedded[len(distinct) :]
        positive, negative = logits(users.float(), own.float(), others.float(), self.model.temperature)
        negative = mask_accidental_hits(negative, events.item, candidates)
        return Logits(positive, negative, log_count(distinct)[place], log_count(candidates))

    def _candidates(self, bucket: int, positives: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The batch's candidates, and the log of how often they are expected to hold an item."""
        drawn = self.sampler.draw(self.tables, bucket, self.config.train.negatives, positives, self.generator)

        def log_drawn(items: Tensor) -> Tensor:
            log_q: Tensor = self.sampler.log_q(self.tables, bucket, items)
            return math.log(len(drawn)) + log_q

        def log_either(items: Tensor) -> Tensor:
            of_batch = math.log(len(positives)) + InBatch().log_q(self.batch_tables, bucket, items)
            return torch.logaddexp(log_drawn(items), of_batch)

        if not self.loss.in_batch:
            return drawn, log_drawn
        if isinstance(self.sampler, InBatch):
            return positives, log_drawn
        return torch.cat([drawn, positives]), log_either

    def _judge_epoch(self) -> None:
        """Recall of the averaged towers on the validation day; the best epoch is the one with the most."""
        with self.autocast:
            value = self.validation.recall(
                self._averaged(), self.users, self.items, self.config.features, self.scale, K
            )
        self._log({f"valid_recall@{K}": value, "epoch": self.progress.epoch + 1})
        if value > self.progress.best_recall:
            self.progress.best_recall, self.progress.best_epoch = value, self.progress.epoch + 1

    def _learning_rate(self) -> float:
        """Linear warm-up, then a half cosine to zero over the epochs that were asked for."""
        settings, total = self.config.train, self.config.train.epochs * self.steps_per_epoch
        done = self.progress.epoch * self.steps_per_epoch + self.progress.batch
        warm = max(1.0, settings.warmup_share * total)
        if done < warm:
            return settings.learning_rate * (done + 1) / warm
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - warm) / max(1.0, total - warm)))

    def _seed(self, number: int) -> int:
        """A seed for the numbered step or epoch of this run."""
        return int(np.random.SeedSequence([self.config.seed, self.progress.phase == "refit", number]).generate_state(1)[0])

    def _log(self, values: dict[str, float]) -> None:
        point = {"step": self.progress.step, **values}
        self.progress.history.append(point)
        self.logger(values, self.progress.step)
        log.debug("%s", point)
        if f"valid_recall@{K}" in values:
            log.info("epoch %d: recall@%d %.4f on the validation day", values["epoch"], K, values[f"valid_recall@{K}"])

    def _tell(self, batches: int) -> None:
        """A line for people now and then."""
        if time.monotonic() - self.told_at < TELL_EVERY_S:
            return
        self.told_at, progress = time.monotonic(), self.progress
        last = next(point["train_loss"] for point in reversed(progress.history) if "train_loss" in point)
        epochs = progress.best_epoch if progress.phase == "refit" else self.config.train.epochs
        text = "%s: epoch %d of %d, batch %d of %d, loss %.4f"
        log.info(text, progress.phase, progress.epoch + 1, epochs, progress.batch, batches, last)

    def _save(self) -> None:
        """Everything needed to go on exactly."""
        state = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_checkpoint(self.checkpoint, state)
        self.saved_at = time.monotonic()
