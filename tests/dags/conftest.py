"""Tasks outside of Airflow: their outcomes are kept in a list."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def outcomes(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("tasks.outcomes.push", lines.append)
    return lines
