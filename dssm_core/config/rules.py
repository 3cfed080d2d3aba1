"""Settings that do not go together, and settings that have no effect beside the others.

What is special about a member of a family is said by the member: by the class variables of its
family's Protocol and by its `problems(config)`. Here are the rules between sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import yaml
from pydantic import TypeAdapter

from dssm_core import families
from dssm_core.config.config import Config
from dssm_core.config.data import Data, DriftRefusals
from dssm_core.config.log_columns import number_columns, text_columns
from dssm_core.config.members import members_in_use
from dssm_core.config.row_conditions import label_column, read_row_condition, value_of_both
from dssm_core.errors import shorten, shown
from dssm_core.families import BASELINES, SOURCES, TOWERS

TRAINS_UNKNOWN_ID = 0.1  # train.id_dropout that a message proposes


def problems_of(config: Config) -> list[str]:
    """A sentence for each setting that does not go with the others or has no effect, and what to do
    instead.
    """
    rules = (
        families.improper_numbers,
        _conditions,
        _gate,
        _time,
        _histories,
        _items,
        _target,
        _members,
        _unused,
    )
    return list(dict.fromkeys(problem for rule in rules for problem in rule(config)))


def _conditions(config: Config) -> Iterator[str]:
    """The columns of data.positive, data.negative and split.relevant beside the other uses of
    columns, and what data.positive and data.negative say of the same row.
    """
    if both := sorted(text_columns(config) & number_columns(config)):
        yield (
            f"column {both[0]!r} is compared with a text, but the config uses it as a number too:"
            " compare it with numbers"
        )
    positive = read_row_condition(config.data.positive)
    labelled = label_column(positive)
    if config.data.negative:
        negative = read_row_condition(config.data.negative)
        allowed = config.data.labels if labelled else None
        if of_both := value_of_both(positive, negative, allowed):
            column, value = of_both
            yield (
                f"a row with {column} {shown(value)} would be a positive and a negative: let"
                f" data.positive `{shorten(positive.text)}` and data.negative"
                f" `{shorten(negative.text)}` meet different rows"
            )
    if not labelled and config.data.labels != Data.model_fields["labels"].default:
        yield (
            "data.labels has no effect: data.positive compares no label with numbers. Leave it out"
        )


def _gate(config: Config) -> Iterator[str]:
    k = config.gate.k
    if k not in config.evaluation.ks:
        yield f"evaluation.ks must hold {k}: the gate judges recall@{k} (gate.k)"
    if config.gate.protocol == "rolling" and config.evaluation.rolling is None:
        yield (
            "gate.protocol is 'rolling' but nothing rolls: set evaluation.rolling.refresh_h,"
            " such as 1, or take daily"
        )


def _time(config: Config) -> Iterator[str]:
    """Settings that need times, for logs and splits that have none."""
    activity = config.features.activity.enabled
    timed = _has_times(config)
    if activity and not timed:
        yield (
            f"source {config.data.source.kind!r} has no times, which item activity is counted by:"
            " set features.activity.enabled to false"
        )
    if config.split.kind == "days" and not timed:
        yield (
            f"source {config.data.source.kind!r} has no times, and so no days: take another"
            " split.kind, such as holdout"
        )
    if config.train.start_from is not None and config.split.kind != "days":
        yield (
            f"train.start_from needs split.kind 'days', not {config.split.kind!r}: the model that"
            " the training starts from must not have seen the test rows. Set it to null"
        )
    if config.evaluation.rolling and config.split.relevant:
        yield (
            "evaluation.rolling counts every positive of the test days, and not those of"
            " split.relevant only: leave one of them out"
        )
    if config.split.by_time:
        return
    no_cutoff = f"split {config.split.kind!r} has no cutoff in time"
    if config.evaluation.rolling:
        yield (
            f"evaluation.rolling goes through test days, which split {config.split.kind!r}"
            " has not: leave it out"
        )
    if config.validation.drift.fail != DriftRefusals():
        yield f"{no_cutoff} and so no days to compare: leave validation.drift.fail out"
    if activity:
        yield (
            f"{no_cutoff}: set features.activity.enabled to false and sampler.kind to another"
            " than active"
        )
    by_time = [
        chosen.name
        for chosen in config.evaluation.baselines
        if families.load(BASELINES, chosen.kind).needs_time
    ]
    if by_time:
        yield f"{no_cutoff}: leave {', '.join(by_time)} out of evaluation.baselines, such as [hot]"


def _has_times(config: Config) -> bool:
    """Whether the log says when an interaction was, and not only in which order."""
    if _log_settings(config).get("time_unit") == "row":
        return False
    return bool(families.load(SOURCES, config.data.source.kind).timed)


def _log_settings(config: Config) -> Mapping[str, Any]:
    """The settings of the files of interactions; empty for a source without such a table."""
    settings = config.data.source.settings.get("interactions")
    return settings if isinstance(settings, Mapping) else {}


def _histories(config: Config) -> Iterator[str]:
    history = config.features.history
    if "decay" in history.pools and not history.decays:
        yield (
            "features.history.pools names decay, but features.history.decays is empty:"
            " give a decay such as 0.7"
        )
    if not history.length and _log_settings(config).get("history"):
        yield (
            "data.source.interactions.history has no effect with features.history.length 0: leave"
            " it out, or give a length"
        )
    if history.learn_decays and "decay" not in history.pools:
        yield (
            "features.history.learn_decays has nothing to learn: add decay to"
            " features.history.pools"
        )


def _items(config: Config) -> Iterator[str]:
    """All that is wrong with the settings that distinguish items, and changes that correct it."""
    if problems := list(_item_problems(config)):
        changes = [
            f"{path}: {written(value)}"
            for path, value in _item_changes(config).items()
            if _at(config, path) != value
        ]
        yield f"{'; '.join(problems)}. Set {', '.join(changes)}"


def _item_problems(config: Config) -> Iterator[str]:
    features = config.features
    described = bool(features.columns.item)
    history = features.history
    if history.length and history.fields and not described:
        yield "features.history.fields shows columns of items, but features.columns.item is empty"
    if not features.item_ids and not described:
        yield (
            "features.item_ids is false and features.columns.item is empty: nothing distinguishes"
            " items"
        )
    if not features.item_ids and history.length and not history.fields:
        yield "without features.item_ids and features.history.fields a history shows nothing"
    if not features.item_ids and config.train.id_dropout:
        yield "train.id_dropout hides item ids, which features.item_ids leaves out already"
    if features.catalogue == "table" and not described:
        yield (
            "features.catalogue 'table' serves items without a positive in train, which only"
            " features.columns.item distinguishes, and it is empty"
        )
    elif features.catalogue == "table" and features.item_ids and not config.train.id_dropout:
        yield (
            "features.catalogue 'table' serves items without a positive in train by the unknown id,"
            " which only train.id_dropout trains, and it is 0"
        )


def _item_changes(config: Config) -> dict[str, Any]:
    """Settings, by path, with which the columns of items that the config names are enough."""
    features = config.features
    if not features.columns.item:
        return {
            "features.item_ids": True,
            "features.history.fields": False,
            "features.catalogue": "positives",
        }
    if not features.item_ids:
        return {
            "features.history.fields": features.history.length > 0,
            "train.id_dropout": 0.0,
        }
    return {"train.id_dropout": TRAINS_UNKNOWN_ID}


def _target(config: Config) -> Iterator[str]:
    target = config.train.target
    if target != "next" and config.features.activity.enabled:
        yield (
            f"train.target {target!r} is for training at every position of a history:"
            " set features.activity.enabled to false, or target to next"
        )
    if target == "rest" and config.features.columns.context:
        yield (
            "train.target 'rest' has no latest context: leave features.columns.context out,"
            " or set target to next"
        )


def _members(config: Config) -> Iterator[str]:
    """What each member says of the config."""
    for _, member in members_in_use(config):
        yield from families.problems(member, config)


def _unused(config: Config) -> Iterator[str]:
    """Settings that are not at their default and have no effect."""
    for name, member in members_in_use(config):
        yield from unused(config, member.ignores, f"under {name}")
    yield from _unused_by_item_side(config)
    history, activity = config.features.history, config.features.activity
    if not history.length:
        names = ("pools", "decays", "learn_decays", "fields")
        paths = [f"features.history.{name}" for name in names]
        yield from unused(config, paths, "with features.history.length 0")
    elif "decay" not in history.pools:
        yield from unused(
            config, ["features.history.decays"], "without decay in features.history.pools"
        )
    if not activity.enabled:
        names = ("activity.windows_h", "activity.refresh_h", "activity.audience", "first_context")
        paths = [f"features.{name}" for name in names]
        yield from unused(config, paths, "without features.activity.enabled")
    elif not config.features.columns.context:
        paths = ["features.activity.audience", "features.first_context"]
        yield from unused(config, paths, "without features.columns.context")


def unused(config: Config, paths: Iterable[str], why: str) -> Iterator[str]:
    """A sentence for each of the settings at dotted `paths` that is not at its default."""
    for path in paths:
        if _at(config, path) != default(path):
            yield (
                f"{path} has no effect {why}: leave it out, or set it to its default"
                f" {written(default(path))}"
            )


def default(path: str) -> Any:
    """The default of the setting at a dotted path."""
    section, _, rest = path.partition(".")
    return _at(Config.model_fields[section].default, rest)


def written(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    plain = TypeAdapter(Any).dump_python(value, mode="json")
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _at(node: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), node)


def _unused_by_item_side(config: Config) -> Iterator[str]:
    """Settings of `item_tower` that only a user side reads."""
    if config.item_tower is None:
        return
    tower = families.build(TOWERS, config.item_tower)
    for name in tower.user_only:
        if getattr(tower, name) != type(tower).model_fields[name].default:
            yield (
                f"item_tower.{name} has no effect: the item side of tower"
                f" {config.item_tower.kind!r} does not read it, leave it out"
            )
