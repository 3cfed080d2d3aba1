"""The columns of a log that a config uses as numbers or compares."""

from __future__ import annotations

from collections.abc import Iterator

from dssm_core.columns import LABEL
from dssm_core.config.conditions import Condition
from dssm_core.config.config import Config
from dssm_core.config.row_conditions import (
    is_met_without_label,
    number_names,
    read_row_condition,
    text_names,
)


def number_columns(config: Config) -> set[str]:
    """The columns that must be numbers: those that are compared with numbers, numeric features and
    targets of means.
    """
    columns = config.features.columns
    numeric = {
        feature.column
        for feature in (*columns.user, *columns.item, *columns.context)
        if feature.kind == "numeric"
    }
    compared = set().union(*map(number_names, _conditions(config)))
    return numeric | set(columns.targets()) | compared


def text_columns(config: Config) -> set[str]:
    """The columns of interactions that are compared with texts."""
    return set().union(*map(text_names, _conditions(config)))


def compared_columns(config: Config) -> set[str]:
    """The columns of interactions in data.positive, data.negative and split.relevant."""
    leaves = (leaf for condition in _conditions(config) for leaf in condition.leaves())
    return {leaf.column for leaf in leaves}


def label_is_optional(config: Config) -> bool:
    """Whether a log may lack the column `label`: then every row is a positive."""
    positive = read_row_condition(config.data.positive)
    return is_met_without_label(positive) or LABEL not in compared_columns(config)


def _conditions(config: Config) -> Iterator[Condition]:
    for text in (config.data.positive, config.data.negative, config.split.relevant):
        if text:
            yield read_row_condition(text)
