"""Addresses of databases. They hold passwords, so a config names the environment variable that
holds the address, and nothing shows or stores what the variable holds.
"""

from __future__ import annotations

import json
import os
import re
from urllib.parse import quote, unquote, urlsplit

from dssm_core.errors import ConfigError, masked

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OF_AIRFLOW = "AIRFLOW_CONN_"


def is_variable(name: str) -> bool:
    """Whether a text can be the name of an environment variable."""
    return bool(VARIABLE.fullmatch(name))


def address_in(variable: str) -> str:
    """The address that an environment variable holds: a URL, or JSON as Airflow writes it for its
    connections (AIRFLOW_CONN_*). Raises ConfigError naming the variable, without its value.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        raise ConfigError(
            f"the environment variable {variable} is not set, which data.source.connection names:"
            f" export {variable}=postgresql://USER:PASSWORD@HOST/DATABASE before the run"
        )
    address = _from_json(variable, text) if text.startswith("{") else text
    if "://" not in address:
        raise ConfigError(
            f"the environment variable {variable} holds no address: write it as"
            " postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:////path/of/the/file.db"
        )
    if not _is_encoded(address):
        raise ConfigError(
            f"the address in {variable} cannot be taken apart: write the characters / ? # @ : of"
            " its user and password as %2F %3F %23 %40 %3A"
        )
    return address


def _is_encoded(address: str) -> bool:
    """Whether a password in an address ends where its owner thinks that it ends."""
    try:
        parts = urlsplit(address)
        return parts.netloc.count("@") <= 1 and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _from_json(variable: str, text: str) -> str:
    """The URL of a connection of Airflow."""
    try:
        fields = json.loads(text)
        user = ":".join(quote(fields[key], "") for key in ("login", "password") if fields.get(key))
        port = f":{fields['port']}" if fields.get("port") else ""
        place = f"{fields.get('host') or ''}{port}/{fields.get('schema') or ''}"
        return f"{fields['conn_type']}://{user}{'@' if user else ''}{place}"
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"the environment variable {variable} holds no connection of Airflow: its JSON needs"
            " conn_type, host, login, password and schema, as `airflow connections export` writes"
        ) from None


def scheme_of(address: str) -> str:
    """`postgresql` of `postgresql+psycopg2://…`."""
    return address.partition("://")[0].partition("+")[0].lower()


def without_secrets(message: object, address: str) -> str:
    """A message of a driver without the address and its password."""
    text = str(message).replace(address, "the address")
    password = urlsplit(address).password or ""
    for written in {password, unquote(password)} - {""}:
        text = text.replace(written, "***")
    return masked(text)
