"""What a loss is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from dssm_core.sampling.samplers.in_batch import InBatch
from dssm_core.training.logits import BatchVectors, Logits


class Loss(Protocol):
    """A scalar to minimise, from a batch's logits. The fields of a member are its settings."""

    whole_catalogue: ClassVar[bool]
    """Whether the candidates are all items. The sampler is then not used."""
    on_scores: ClassVar[bool]
    """Whether `Logits` holds similarities that are not divided by the temperature."""
    fixed_shapes: ClassVar[bool]
    """Whether no shape depends on values and the means are those of `Logits`, so that a GPU can
    repeat a step: batches are then filled up with events that do not count."""
    ignores: ClassVar[tuple[str, ...]]
    """Settings of the config that have no effect under this loss, by dotted path."""

    @property
    def batch(self) -> InBatch | None:
        """The sampler of the batch's own positives, if these join the sampler's candidates."""
        ...

    def __call__(self, batch: Logits) -> Tensor:
        """Mean loss over the batch's events. → []."""
        ...

    def fused(self, compared: BatchVectors) -> Tensor | None:
        """The same number, with the same gradients, without holding all logits; None if the loss
        has no such form. Called if all events of a batch share their candidates. → [].
        """
        ...
