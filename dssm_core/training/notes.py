"""What people should know of a finished training: sentences for the log, terminal and report."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

from dssm_core.aliases import JSON
from dssm_core.config import Train
from dssm_core.errors import DataError
from dssm_core.features.events import BEFORE_FIRST_REFRESH, FIRST_OF_USER, UNKNOWN_ITEM
from dssm_core.training.batches import Examples

log = logging.getLogger(__name__)

HELD_BACK = "held back to choose the number of epochs (train.refit is false)"
MORE_EVENTS = ": give more split.train_days, or a smaller features.activity.refresh_h"
ENOUGH = 0.5  # share of the interactions that should be training events
SOURCES = {
    "impression": "from their impression",
    "earlier": "from what their user was shown earlier only",
    "uniform": "from all items only",
}  # of negatives, by the name in `drawn_from`


def warn(
    settings: Train,
    best_epoch: int,
    examples: Examples,
    positives: int,
    drawn_from: Mapping[str, int],
) -> JSON:
    """Log the notes of a training, and return them with the reasons: `left_out` and `notes`.

    examples: those of the last phase; positives: number of the training set's positives.
    drawn_from: events by source of their negatives; empty for a sampler of one source.
    """
    reasons = left_out(examples, positives)
    found = notes(settings, best_epoch, examples.count, reasons, drawn_from)
    if drawn_from:
        log.info("%s", sources_sentence(drawn_from))
    for note in found:
        log.warning("%s", note)
    return {"left_out": reasons, "notes": found}


def weights_of(weight: Tensor) -> dict[str, float]:
    """Log and return the sum and the range of the weights [n] of the training set's positives."""
    found = {
        "sum": round(float(weight.double().sum()), 6),
        "min": round(float(weight.min()), 6),
        "max": round(float(weight.max()), 6),
    }
    log.info("%s", weights_sentence(found))
    return found


def weights_sentence(weights: Mapping[str, float]) -> str:
    """What `weights_of` found."""
    least, most, total = (f"{weights[name]:,.8g}" for name in ("min", "max", "sum"))
    return f"positives of the training set weigh {least} to {most}, {total} in sum (data.weight)"


def left_out(examples: Examples, positives: int) -> dict[str, int]:
    """Number of the training set's positives that are no event of `examples`, by reason.

    positives: of the whole training set; those that `examples` does not know were held back.
    """
    reasons = {reason: count for reason, count in examples.left_out.items() if count}
    rest = positives - examples.count - sum(reasons.values())
    return reasons | ({HELD_BACK: rest} if rest else {})


def sources_sentence(drawn_from: Mapping[str, int]) -> str:
    """From where training events have negatives."""
    parts = [f"{count:,} {SOURCES[name]}" for name, count in drawn_from.items()]
    return f"training events have negatives: {', '.join(parts)}"


def notes(
    settings: Train,
    best_epoch: int,
    events: int,
    left_out: Mapping[str, int],
    drawn_from: Mapping[str, int] = {},
) -> list[str]:
    """A sentence for each thing that may make the model worse than it could be."""
    found = []
    if best_epoch == settings.last_epoch:
        found.append(
            f"the last epoch ({best_epoch} of {settings.last_epoch}) was the best:"
            " more epochs may be better, raise train.max_epochs"
        )
    if settings.events_per_epoch is not None and settings.events_per_epoch >= events:
        found.append(
            f"train.events_per_epoch is {settings.events_per_epoch:,}, but there are"
            f" {events:,} training events: each epoch took all of them"
        )
    positives = events + sum(left_out.values())
    if events < ENOUGH * positives:
        refreshed = {BEFORE_FIRST_REFRESH, UNKNOWN_ITEM} & left_out.keys()
        found.append(few_events(events, left_out) + (MORE_EVENTS if refreshed else ""))
    total = sum(drawn_from.values())
    if drawn_from.get("impression", total) < ENOUGH * total:
        found.append(
            f"{drawn_from['impression']:,} of {total:,} training events have negatives from their"
            " impression (sampler exposed): check the column impression_id, or set"
            " sampler.shares.impression to 0"
        )
    return found


def no_events(phase: str, left_out: Mapping[str, int]) -> DataError:
    """The error of a phase of the training that has no event. left_out: see Examples."""
    if left_out.get(FIRST_OF_USER):
        return DataError(
            f"there are no events to train on in the {phase} phase: without features.activity"
            " each user's first interaction is none, and no user has two (of a weight above 0)."
            " If users are sessions, set features.activity.enabled to true, with a split by days;"
            " otherwise give more training data"
        )
    return DataError(
        f"there are no events to train on in the {phase} phase: no user has two interactions in the"
        " train window, every item was first clicked after the refresh before its clicks, or all"
        " events are of weight 0 (data.weight). Give more split.train_days, or a smaller"
        " features.activity.refresh_h"
    )


def few_events(events: int, left_out: Mapping[str, int]) -> str:
    """How many of the training set's positives are training events, and why others are not."""
    positives = events + sum(left_out.values())
    reasons = [f"{count:,} are {reason}" for reason, count in left_out.items() if count]
    says = f"{events:,} of {positives:,} positives of the training set are training events"
    return "; ".join([says, *filter(None, [", ".join(reasons)])])
