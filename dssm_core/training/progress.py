"""How far a training has come, and the loss and metric of each logged step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Progress:
    """How far a training has come.

    phase: `select` chooses the number of epochs on the validation slice, `refit` trains on all
    interactions. step: the number of batches over both phases. batch: the next batch of the epoch.
    best_epoch, best_value: the epoch of the best validation metric (from 1), and that metric.
    history: the logged points.
    """

    phase: Literal["select", "refit"] = "select"
    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_value: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def position(self) -> str:
        """Where the training is, for messages."""
        return (
            f"in the {self.phase} phase at step {self.step}, epoch {self.epoch + 1}, batch"
            f" {self.batch}"
        )
