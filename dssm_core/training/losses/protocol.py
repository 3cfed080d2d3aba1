"""What a loss is."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from dssm_core.training.logits import Logits


class Loss(Protocol):
    """A scalar to minimise, from a batch's logits. The fields of a member are its settings.

    in_batch: whether the batch's own positives join the sampler's candidates.
    whole_catalogue: whether the candidates are all items instead of a sampler's draw.
    on_scores: whether `Logits` holds similarities themselves, not divided by the temperature.

    A loss may also have `fused(compared: Comparison) -> Tensor`, the same number (and gradients)
    without holding all logits; it is asked where a batch shares its candidates.
    """

    in_batch: ClassVar[bool]
    whole_catalogue: ClassVar[bool]
    on_scores: ClassVar[bool]

    def __call__(self, batch: Logits) -> Tensor:
        """Mean loss over the batch's events. → []."""
        ...
