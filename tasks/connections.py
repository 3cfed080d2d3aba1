"""Connections of Airflow for sources that read a database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dssm_core.errors import ConfigError

if TYPE_CHECKING:
    from dssm_core.config import Config

PREFIX = "AIRFLOW_CONN_"


def provide_connection(config: Config) -> None:
    """Put the connection that the config's source names into the environment of this process, where
    the source looks for it. Airflow may keep it in its database or in a secrets backend.

    ConfigError if Airflow has no such connection.
    """
    variable = str(config.data.source.settings.get("connection", ""))
    if not variable.startswith(PREFIX) or variable in os.environ:
        return
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    name = variable.removeprefix(PREFIX).lower()
    try:
        os.environ[variable] = Connection.get(name).get_uri()
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"Airflow has no connection {name!r}, which data.source.connection {variable} names:"
            " add it under Admin, Connections, or with `airflow connections add`"
        ) from error
