"""Settings that do not go together, or that have no effect beside the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dssm_core import families
from dssm_core.config.config import Config
from dssm_core.config.data import DriftRefusals
from dssm_core.families import BASELINES, LOSSES, SOURCES, TOWERS


def problems_of(config: Config) -> list[str]:
    """A sentence for each setting that does not go with the others, and what to do instead."""
    return [
        *_gate_problems(config),
        *_time_problems(config),
        *_history_problems(config),
        *_needs_times(config),
        *_tower_problems(config),
        *_misfits(config),
    ]


def _gate_problems(config: Config) -> list[str]:
    k, problems = config.gate.k, []
    if k not in config.evaluation.ks:
        problems.append(f"evaluation.ks must hold {k}: the gate judges recall@{k} (gate.k)")
    if config.gate.protocol == "rolling" and config.evaluation.rolling is None:
        problems.append(
            "gate.protocol is 'rolling' but nothing rolls: set evaluation.rolling.refresh_h, such as 1, or take daily"
        )
    if config.evaluation.rolling and config.split.kind != "days":
        problems.append(
            f"evaluation.rolling goes through test days, which split {config.split.kind!r} has not: leave it out"
        )
    return problems


def _history_problems(config: Config) -> list[str]:
    """Settings of history, target and similarity that would have no effect, or nothing to work on."""
    problems, history, kind = [], config.features.history, config.tower.kind
    if not history.length and kind in ("sequence", "recurrent"):
        problems.append(
            f"tower {kind!r} reads histories, but features.history.length is 0: give it 20 or more, or take tower mlp"
        )
    if "decay" in history.pools and not history.decays:
        problems.append(
            "features.history.pools names decay, but features.history.decays is empty: give a decay such as 0.7"
        )
    if history.learn_decays and "decay" not in history.pools:
        problems.append(
            "features.history.learn_decays has nothing to learn: add decay to features.history.pools"
        )
    target = config.train.target
    if target != "next" and config.features.activity.enabled:
        problems.append(
            f"train.target {target!r} is for training by place: set features.activity.enabled to false, or target to next"
        )
    if target == "rest" and config.features.columns.context:
        problems.append(
            "train.target 'rest' knows no latest context: leave features.columns.context out, or set target to next"
        )
    if config.train.id_dropout and not config.features.item_ids:
        problems.append(
            "train.id_dropout hides item ids, which features.item_ids leaves out already: set it to 0"
        )
    if config.model.similarity == "dot" and config.index.kind == "annoy":
        problems.append(
            "index 'annoy' ranks by cosine, not by model.similarity 'dot': take a faiss index, or cosine"
        )
    return problems


def _time_problems(config: Config) -> list[str]:
    """What goes by the clock, where the split has no cutoff."""
    if config.split.by_time:
        return []
    problems, no_cutoff = [], f"split {config.split.kind!r} has no cutoff in time"
    if config.validation.drift.fail != DriftRefusals():
        problems.append(f"{no_cutoff} and so no days to compare: leave validation.drift.fail out")
    if config.features.activity.enabled:
        problems.append(
            f"{no_cutoff}: set features.activity.enabled to false and sampler.kind to another than active"
        )
    known = [member for member in config.evaluation.baselines if member.kind in BASELINES]
    if timed := [
        member.name
        for member in known
        if getattr(families.load(BASELINES, member.kind), "needs_time", False)
    ]:
        problems.append(
            f"{no_cutoff}: leave {', '.join(timed)} out of evaluation.baselines, such as [hot]"
        )
    return problems


def _needs_times(config: Config) -> list[str]:
    """What the config asks of time where the source has none: an order is enough for histories, but
    not for hours.
    """
    source = families.load(SOURCES, config.data.source.kind)
    if not config.features.activity.enabled or getattr(source, "timed", True):
        return []
    return [
        f"source {config.data.source.kind!r} has no times, which item activity is counted by: set features.activity.enabled to false"
    ]


def _tower_problems(config: Config) -> list[str]:
    """Attention heads that cannot share the width of a history."""
    heads, width = getattr(families.build(TOWERS, config.tower), "heads", 1), config.features.id_dim
    return (
        [f"tower.heads {heads} does not divide features.id_dim {width}, the width it works in"]
        if width % heads
        else []
    )


def _misfits(config: Config) -> list[str]:
    """Why this loss, this sampler and these features cannot work together; each with what to do
    instead.
    """
    loss, sampler = families.build(LOSSES, config.loss), config.sampler
    if (
        loss.whole_catalogue
    ):  # compares with every item: the sampler, which the form always names, is not asked
        return []
    kinds, problems = _kinds(sampler.model_dump()), []
    if config.train.target != "next" and (loss.in_batch or "in_batch" in kinds):
        target = config.train.target
        problems.append(
            f"in-batch candidates have no exact log-Q under train.target {target!r}: take sampler uniform, or target next"
        )
    if (
        config.model.similarity == "dot"
        and loss.on_scores
        and config.loss.kind in ("ccl", "triplet")
    ):
        problems.append(
            f"loss {config.loss.kind!r} has its margin in cosines: set model.similarity to cosine"
        )
    if "active" in kinds and not config.features.activity.enabled:
        problems.append(
            "sampler 'active' draws by activity: set features.activity.enabled to true or take another sampler"
        )
    if config.loss.kind == "gbce" and kinds - {"uniform", "unseen", "mixed"}:
        problems.append(
            f"loss 'gbce' is calibrated for uniform negatives, not for sampler {sampler.kind!r}: take sampler 'uniform' or loss 'bce'"
        )
    if config.loss.kind == "bce" and loss.log_q and not _draws_positives(sampler.model_dump()):
        problems.append(
            f"loss 'bce' corrects a positive by how often sampler {sampler.kind!r} draws it, which is never: set loss.log_q to false"
        )
    if loss.in_batch and sampler.kind == "in_batch" and sampler.settings:
        problems.append(
            f"loss {config.loss.kind!r} brings the batch with settings of its own: move those of sampler 'in_batch' to loss"
        )
    return problems


def _draws_positives(sampler: Mapping[str, Any]) -> bool:
    """Whether a user's own positives can be drawn for that user."""
    parts = sampler.get("parts", [])
    return (
        any(map(_draws_positives, parts))
        if parts
        else sampler["kind"] not in ("exposed", "hard", "unseen")
    )


def _kinds(sampler: Mapping[str, Any]) -> set[str]:
    """A sampler's kind and those that it draws through (`of`, `parts`)."""
    inner = [*sampler.get("parts", []), *([sampler["of"]] if "of" in sampler else [])]
    return {sampler["kind"]}.union(*map(_kinds, inner))
