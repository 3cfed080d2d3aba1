"""A tiny log, and one run of the whole pipeline on it for each module of tests that asks for it."""

from __future__ import annotations

import pytest

from dssm_core.config import parse_config
from dssm_core.runs import pipeline
from dssm_core.runs.run import create_run
from tests.conftest import small_config


def tiny(**changes):
    raw = small_config(**changes)
    raw["data"]["source"] |= {"users": 600, "clicks": 12_000}
    return parse_config(raw)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def first(runs):
    """A run of the whole pipeline, and its summary."""
    run = create_run(tiny(), runs, "first")
    return run, pipeline.run_pipeline(run)
