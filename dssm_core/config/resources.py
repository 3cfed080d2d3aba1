"""What a step may use of the machine."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dssm_core.config.base import Section


class Resources(Section):
    """What a step may use of the machine. It changes no number of a run, and runs that differ only
    in it reuse each other's steps."""

    memory_gib: Annotated[float, Field(ge=1)] | None = None
    """Memory that a step plans with, up to sample_negatives: DuckDB gets half of it and writes the
    rest of its data to disk, and logs are judged and coded in parts that fit. null takes half of
    what the machine or its container has, and at least 1."""
