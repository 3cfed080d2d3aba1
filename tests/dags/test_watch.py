"""The watcher of the alias `champion`: what it reads of MLflow's answers, and what it says where
there is none.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tasks.settings import mlflow_credentials
from tasks.watch import ChampionTrigger


def champion(status, told, asked=None):
    """Who the trigger takes for champion, of an MLflow that answers so."""

    def answer(request):
        if asked is not None:
            asked.append(request.headers.get("Authorization"))
        return httpx.Response(status, **told)

    async def ask():
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(answer), base_url="http://mlflow", **mlflow_credentials()
        ) as client:
            return await ChampionTrigger("dssm-made")._champion(client)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("status", "told", "wanted", "said"),
    [
        (200, {"json": {"model_version": {"version": 7}}}, "7", None),
        (404, {"json": {"error_code": "RESOURCE_DOES_NOT_EXIST"}}, None, None),
        (400, {"json": {"error_code": "INVALID_PARAMETER_VALUE"}}, None, None),
        (401, {"text": "You are not authenticated."}, None, "401 Unauthorized"),
        (403, {"json": {"error_code": "PERMISSION_DENIED"}}, None, "403 Forbidden"),
        (502, {"text": "<html>"}, None, "502 Bad Gateway"),
        (200, {"text": "<html>"}, None, "cannot read the champion of dssm-made"),
    ],
)
def test_what_mlflow_says_is_read_and_a_refusal_is_no_silence(capsys, status, told, wanted, said):
    assert champion(status, told) == wanted
    logged = capsys.readouterr().out
    assert (said in logged) if said else not logged


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({}, None),
        ({"USERNAME": "ann", "PASSWORD": "secret"}, "Basic YW5uOnNlY3JldA=="),
        ({"TOKEN": "abc"}, "Bearer abc"),
    ],
)
def test_it_asks_with_the_credentials_of_mlflows_own_clients(monkeypatch, names, wanted):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in names.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    asked = []
    champion(200, {"json": {"model_version": {"version": 1}}}, asked)
    assert asked == [wanted]
