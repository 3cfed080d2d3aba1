"""Clients of the servers that the tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import TRAINING, wait_until
from tests.e2e.airflow_runs import INGEST, LOOKALIKE, REFRESH, SWEEP


@pytest.fixture(scope="session")
def airflow(site):
    client = site.airflow()
    dags = (TRAINING, INGEST, LOOKALIKE, REFRESH, SWEEP)
    wait_until(lambda: all(client.offers(dag, "small") for dag in dags), "the Dags are parsed")
    return client


@pytest.fixture(scope="session")
def mlflow(site) -> MlflowClient:
    return MlflowClient(tracking_uri=site.mlflow_url)


@pytest.fixture(scope="session")
def root(site) -> Path:
    """The folder of the servers' configs, logs and runs."""
    return site.state.parent
