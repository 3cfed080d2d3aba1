"""What a served list may hold."""

from __future__ import annotations

from pydantic import field_validator

from dssm_core.config.base import Section
from dssm_core.config.conditions import Condition
from dssm_core.errors import DataError


class Serving(Section):
    """What a served list may hold. The gate judges lists with the same filters."""

    filters: tuple[str, ...] = ()
    """Conditions on item columns that an item must meet to be listed, such as `in_stock == true` or
    `category in ['news', 'sport']`. A request can add its own."""
    columns: tuple[str, ...] = ()
    """Columns of the items table that filters may use, beside those of features.columns.item,
    created_at, available_from and available_until."""

    @field_validator("filters")
    @classmethod
    def _check_filters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                Condition(text)
            except DataError as error:
                raise ValueError(str(error)) from error
        return value
