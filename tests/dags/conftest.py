"""Tasks outside of Airflow: the outcomes that they tell are kept in a list."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def told(monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("tasks.outcomes.push", lines.append)
    return lines
