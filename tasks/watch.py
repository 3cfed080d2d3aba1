"""Watches the alias `champion` in MLflow. It runs in Airflow's triggerer: its imports are light and
its calls are asynchronous.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from tenacity import AsyncRetrying, retry_if_result, wait_fixed

from tasks.settings import mlflow_address, mlflow_credentials

POLL_S = 5.0
# MLflow's error codes for a model or an alias that does not exist.
NO_CHAMPION = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class ChampionTrigger(BaseEventTrigger):
    """Emits an event for the current champion of a model, and one each time that another version
    becomes champion.
    """

    def __init__(self, model: str, poll_s: float = POLL_S) -> None:
        super().__init__()
        self.model, self.poll_s = model, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, as Airflow stores them."""
        return "tasks.watch.ChampionTrigger", {"model": self.model, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll MLflow until the trigger is stopped. A failed call is retried at the next poll."""
        version = None
        async with httpx.AsyncClient(
            base_url=mlflow_address(), timeout=10, **mlflow_credentials()
        ) as client:
            while True:
                version = await self._next_champion(client, version)
                yield TriggerEvent({"model": self.model, "version": version})

    async def _next_champion(self, client: httpx.AsyncClient, last: str | None) -> str:
        """Wait until a version other than `last` is champion."""
        polling = AsyncRetrying(
            retry=retry_if_result(lambda version: version in (None, last)),
            wait=wait_fixed(self.poll_s),
        )
        return str(await polling(self._champion, client))

    async def _champion(self, client: httpx.AsyncClient) -> str | None:
        """The champion's version; None if there is none, or if MLflow does not answer."""
        path = "/api/2.0/mlflow/registered-models/alias"
        query = {"name": self.model, "alias": "champion"}
        try:
            answer = await client.get(path, params=query)
            if answer.status_code in (400, 404) and answer.json().get("error_code") in NO_CHAMPION:
                return None
            return str(answer.raise_for_status().json()["model_version"]["version"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self.log.warning("cannot read the champion of %s from MLflow: %s", self.model, error)
            return None
