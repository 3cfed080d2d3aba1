"""The connection that a source of kind sql names is looked up where Airflow keeps it."""

from __future__ import annotations

import os

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from dssm_core.config import parse_config
from dssm_core.errors import ConfigError
from tasks.connections import provide_connection
from tests.conftest import small_config

NAME = "AIRFLOW_CONN_DSSM_CLICKS"


def config(variable: str):
    table = {"query": "SELECT * FROM clicks"}
    source = {"kind": "sql", "connection": variable, "interactions": table}
    return parse_config(small_config(data={"source": source}, features={}))


def test_a_connection_of_airflow_is_put_into_the_environment(monkeypatch):
    monkeypatch.setenv(NAME, "")
    monkeypatch.delenv(NAME)
    place = {"host": "db", "port": 5432, "schema": "log", "login": "me", "password": "a/b"}
    kept = {"dssm_clicks": Connection(conn_id="dssm_clicks", conn_type="postgres", **place)}
    monkeypatch.setattr(Connection, "get", kept.__getitem__)
    provide_connection(config(NAME))
    assert os.environ[NAME] == "postgres://me:a%2Fb@db:5432/log"


def test_a_variable_that_is_set_or_is_none_of_airflow_is_left_alone(monkeypatch):
    monkeypatch.setattr(Connection, "get", None)
    monkeypatch.setenv(NAME, "sqlite:////log.db")
    provide_connection(config(NAME))
    provide_connection(config("CLICKS_DB"))
    assert os.environ[NAME] == "sqlite:////log.db"


def test_a_connection_that_airflow_does_not_have_is_named(monkeypatch):
    def get(name):
        raise AirflowNotFoundException(name)

    monkeypatch.setattr(Connection, "get", get)
    with pytest.raises(ConfigError, match="Airflow has no connection 'dssm_none'"):
        provide_connection(config("AIRFLOW_CONN_DSSM_NONE"))
