"""Checks of a request that MLflow's scoring server does not make, and a faster encoding of answers.

The server parses a body of any size, needs 26 times its size in memory, and drops columns and
parameters that the signature does not have. It encodes an answer in Python, which takes longer than
the search. MLflow has no hook for that: `install` replaces two of its functions in the process that
serves the model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TextIO

import mlflow
import pandas as pd

from dssm_core.errors import DataError, shorten
from dssm_core.families import did_you_mean
from dssm_core.retrieval.requests import check_size

SERVER = "mlflow.pyfunc.scoring_server"
JSON_TYPE = "application/json"
MAX_BYTES = 8 * 2**20
FORMS = ("dataframe_records", "dataframe_split")
PARAMS = "params"


def install() -> None:
    """Replace the functions of the scoring server in this process; elsewhere do nothing."""
    server: Any = sys.modules.get(SERVER)
    if server is not None and not hasattr(server.invocations, "__wrapped__"):
        server.invocations = limited(server.invocations, server.InvocationsResponse)
        server.predictions_to_json = write_answer


def limited(invocations: Callable[..., Any], response: Callable[..., Any]) -> Callable[..., Any]:
    """MLflow's `invocations` after the checks. response: makes an answer with a status."""

    @wraps(invocations)
    def checked(data: bytes, content_type: str, model: Any, input_schema: Any) -> Any:
        kind = (content_type or "").partition(";")[0].strip()
        if kind != JSON_TYPE:
            message = f"content type {shorten(content_type)!r} is not supported: send {JSON_TYPE}"
            return response(message, 415, "text/plain")
        if len(data) > MAX_BYTES:
            return response(_too_large(len(data)), 413, "text/plain")
        parameters = model.metadata.get_params_schema()
        try:
            body = read_body(
                data, input_schema.input_names(), [param.name for param in parameters.params]
            )
        except DataError as error:
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from error
        return invocations(body, content_type, model, input_schema)

    return checked


def write_answer(answer: pd.DataFrame, output: TextIO) -> None:
    """Write an answer as MLflow's `predictions_to_json` does."""
    columns = [answer[name].tolist() for name in answer]
    rows = [dict(zip(answer.columns, row, strict=True)) for row in zip(*columns, strict=True)]
    output.write(json.dumps({"predictions": rows}))


def read_body(data: bytes, columns: list[str], parameters: list[str]) -> dict[str, Any]:
    """The parsed body of a request.

    columns, parameters: the names that the model has. Raises DataError if the body is not JSON, is
    nested too deeply, has too many rows, or an unknown column, parameter or key.
    """
    try:
        body: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"the body is not valid JSON ({shorten(error)}): send, for example,"
            ' {"dataframe_records": [{"user_id": "u1"}], "params": {"k": 20}}'
        ) from error
    forms = [form for form in FORMS if isinstance(body, dict) and form in body]
    if len(forms) != 1:
        raise DataError(
            "the body must be a JSON dictionary with exactly one of the input fields"
            f" {' and '.join(FORMS)}"
        )
    _check_names("field", body, [forms[0], PARAMS])
    given = body.get(PARAMS)
    if given is not None and not isinstance(given, dict):
        raise DataError(f'{PARAMS} is {shorten(given)}: give a dictionary such as {{"k": 20}}')
    _check_names("parameter", given or {}, parameters)
    rows, names = _shape(body[forms[0]], forms[0])
    check_size(rows)
    _check_names("column", names, columns)
    return body


def _shape(table: Any, form: str) -> tuple[int, Iterable[Any]]:
    """The number of rows and the columns of a table in one of the FORMS."""
    if form == "dataframe_records" and isinstance(table, list):
        if all(isinstance(row, dict) for row in table):
            return len(table), dict.fromkeys(name for row in table for name in row)
    elif isinstance(table, dict) and isinstance(table.get("data"), list):
        names = table.get("columns", [])
        if isinstance(names, list) and set(table) <= {"columns", "data", "index"}:
            return len(table["data"]), names
    raise DataError(
        f"{form} must be "
        + (
            'a list of dictionaries, such as [{"user_id": "u1"}]'
            if form == "dataframe_records"
            else 'a dictionary such as {"columns": ["user_id"], "data": [["u1"]]}'
        )
    )


def _check_names(what: str, names: Iterable[Any], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise DataError(
                f"the request has an unknown {what} {shorten(name)!r}:"
                f" {did_you_mean(str(name), known)}"
            )


def _too_large(size: int) -> str:
    return (
        f"the request has {size:,} bytes, and {MAX_BYTES:,} are allowed: send several requests, or"
        " write the lists of all users with `dssm recommend`"
    )
