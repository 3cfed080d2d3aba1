"""Watches where MLflow's alias `champion` points. Runs in Airflow's triggerer: light, and never
blocking its loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from tasks.settings import mlflow_credentials

POLL_S = 5.0
NO_CHAMPION = (
    "RESOURCE_DOES_NOT_EXIST",
    "INVALID_PARAMETER_VALUE",
)  # what MLflow says where the model or the alias is not there


class ChampionTrigger(BaseEventTrigger):
    """An event each time that `champion` of a model names another version than before; one at the
    start for today's.
    """

    def __init__(self, model: str, poll_s: float = POLL_S) -> None:
        super().__init__()
        self.model, self.poll_s = model, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """As Airflow keeps it."""
        return "tasks.watch.ChampionTrigger", {"model": self.model, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for ever; an MLflow that is away is asked again."""
        seen = None
        async with httpx.AsyncClient(
            base_url=os.environ.get("MLFLOW_TRACKING_URI", ""), timeout=10, **mlflow_credentials()
        ) as client:
            while True:
                version = await self._champion(client)
                if version and version != seen:
                    seen = version
                    yield TriggerEvent({"model": self.model, "version": version})
                await asyncio.sleep(self.poll_s)

    async def _champion(self, client: httpx.AsyncClient) -> str | None:
        path, asked = (
            "/api/2.0/mlflow/registered-models/alias",
            {"name": self.model, "alias": "champion"},
        )
        try:
            answer = await client.get(path, params=asked)
            if answer.status_code in (400, 404) and answer.json().get("error_code") in NO_CHAMPION:
                return None
            return str(answer.raise_for_status().json()["model_version"]["version"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self.log.warning("MLflow did not say who is champion of %s: %s", self.model, error)
            return None
