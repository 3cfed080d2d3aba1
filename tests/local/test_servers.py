"""The settings and the shell of the local servers, without starting any."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from local import processes, servers


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name in ("DSSM_CONFIG", "DSSM_SCHEDULE"):
        monkeypatch.delenv(name, raising=False)
    return servers.open_site(tmp_path / "state")


def running(monkeypatch, environ):
    monkeypatch.setattr(
        processes, "leader", lambda state, part: SimpleNamespace(environ=lambda: environ)
    )


def test_servers_that_run_with_other_settings_are_refused(site, monkeypatch):
    servers.check_settings(site)  # none runs
    running(monkeypatch, servers.environment(site) | {"HOME": "/elsewhere"})
    servers.check_settings(site)
    monkeypatch.setenv("DSSM_CONFIG", "my-log")
    with pytest.raises(
        servers.ServerError, match=r"with another DSSM_CONFIG: `make down`, then `make up` again"
    ):
        servers.check_settings(site)
    running(monkeypatch, servers.environment(site) | {"DSSM_SCHEDULE": "@daily"})
    with pytest.raises(servers.ServerError, match="another DSSM_SCHEDULE"):
        servers.check_settings(site)


def test_the_commands_of_a_shell_use_the_site(site, monkeypatch):
    monkeypatch.setenv("SHELL", "/bin/sh")
    command = [sys.executable, "-m", "local.servers", "shell", "--state", str(site.state)]
    asked = "echo $MLFLOW_TRACKING_URI; echo $AIRFLOW_HOME; command -v dssm"
    done = subprocess.run(
        command, input=asked, capture_output=True, text=True, check=True, cwd=servers.REPO
    )
    uri, home, dssm = done.stdout.splitlines()
    assert (uri, home) == (site.mlflow_url, str(site.state / "airflow"))
    assert dssm.startswith(str(servers.Path(sys.executable).parent))


def test_each_server_gets_only_its_own_secrets(site):
    env = servers.environment(site) | {"DSSM_PUBLISH": "redis://:hunter2@cache"}
    secrets = {"AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY", "DSSM_PUBLISH"}
    assert servers.own(env, "scheduler") == env
    assert not any(name.startswith("AIRFLOW_") for name in servers.own(env, "mlflow"))
    assert servers.own(env, "mlflow")["DSSM_RUNS"] == env["DSSM_RUNS"]
    for part in set(servers.AIRFLOW_PARTS) - {"scheduler"}:
        assert secrets - set(servers.own(env, part)) == {"DSSM_PUBLISH"}
