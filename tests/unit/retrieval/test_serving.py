"""`mlflow models serve`, really running, on a registered model of whole-number ids: what it
answers, and what it refuses and why.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request

import pytest

from dssm_core.registry.check import check_version
from dssm_core.registry.registration import register_model
from tests.conftest import served_model
from tests.unit.conftest import PASSED, fabricated, finish


def send(url, body, kind="application/json"):
    """Status and answer of a request; body: JSON or bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, {"Content-Type": kind}), timeout=60
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        text = refused.read().decode()
        return refused.code, json.loads(text)["message"] if text.startswith("{") else text


@pytest.fixture(scope="module")
def module_path(tmp_path_factory):
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def model(module_path):
    """A registered run as `fabricate` makes it: name, runs folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        run = fabricated(module_path)
        finish(run, "recall_gate", info=PASSED)
        run.step("x").mkdir()
        register_model(run, run.step("x"))
    return run.config.model_name, run.runs


@pytest.fixture(scope="module")
def served(model, module_path):
    """The address of a server of the registered model; ended with its processes afterwards."""
    name, runs = model
    with served_model(
        f"models:/{name}/1",
        module_path,
        os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{runs / 'mlflow.db'}"},
    ) as url:
        yield url


def rows(columns, data, **params):
    return {"dataframe_split": {"columns": columns, "data": data}} | (
        {"params": params} if params else {}
    )


def test_the_schema_is_stated(model):
    import mlflow

    name, runs = model
    mlflow.set_tracking_uri(f"sqlite:///{runs / 'mlflow.db'}")
    signature = mlflow.models.get_model_info(f"models:/{name}/1").signature
    assert [(column.name, str(column.type), column.required) for column in signature.inputs] == [
        ("user_id", "Any", False),
        ("history", "Array(Any)", False),
        ("exclude", "Array(Any)", False),
    ]
    assert [column.name for column in signature.outputs] == ["item_ids", "scores", "source"]
    assert [(param.name, param.default) for param in signature.params] == [
        ("k", 200),
        ("exclude_seen", False),
        ("filters", []),
        ("as_of", ""),
    ]


@pytest.mark.parametrize("user", [3, 3.0, "3", "3.0"])
def test_an_id_of_any_type_is_found(served, user):
    status, answer = send(served, rows(["user_id", "exclude"], [[user, ["10", 20.0]]], k=4))
    assert status == 200
    (row,) = answer["predictions"]
    assert (row["item_ids"], row["source"]) == ([30, 40], "user")


@pytest.mark.parametrize("user", ["abc", None, 3.5])
def test_what_is_no_id_is_an_unknown_user(served, user):
    status, answer = send(served, rows(["user_id"], [[user], [3]], k=1))
    assert status == 200
    assert [row["item_ids"] for row in answer["predictions"]] == [[40], [30]]


def test_who_is_known_and_who_is_not_are_answered(served):
    status, answer = send(served, rows(["user_id"], [[3], [99]], k=2))
    assert status == 200
    assert [row["item_ids"][0] for row in answer["predictions"]] == [30, 40]
    assert [row["source"] for row in answer["predictions"]] == ["user", "context"]
    assert all(len(row["scores"]) == 2 for row in answer["predictions"])


@pytest.mark.parametrize(
    "body", [rows(["history"], [[[]]]), rows(["history"], [[None]]), rows(["history"], [[[77]]])]
)
def test_who_has_nothing_yet_is_answered(served, body):
    status, answer = send(served, body)
    assert (status, answer["predictions"][0]["item_ids"][0]) == (
        200,
        40,
    )  # the unknown user's vector points at item 40


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (rows(["x"], [[3]]), "unknown column 'x': choose one of exclude, history, user_id"),
        (rows(["user_id", "histroy"], [[3, []]]), "unknown column 'histroy': did you mean 'hist"),
        ({"dataframe_records": [{"user_id": 3}, {"usr_id": 3}]}, "did you mean 'user_id'"),
        (rows(["user_id"], []), "the input has no rows: give one row for each user"),
        (rows([], []), "give one row for each user, with 'user_id', 'history' or both"),
        (rows([], [[]]), "give 'user_id', 'history'"),
        (rows(["user_id"], [[3]] * 10_001), "has 10,001 rows, and a request may have 10,000"),
        (rows(["history"], [[[10] * 600_000], [[10] * 600_000]]), "1,200,000 item ids"),
        (rows(["user_id"], [[3]], top=1), "unknown parameter 'top': choose one of as_of, exclude"),
        (rows(["user_id"], [[3]], filter=["a == 1"]), "did you mean 'filters'"),
        (rows(["user_id"], [[3]], filters=["color == 'red'"]), "'color', which is no item column"),
        (rows(["user_id"], [[3]], filters=["1 +"]), "condition '1 \\+' is not an expression"),
        (rows(["user_id"], [[3]], as_of="soon"), "as_of is 'soon': give a time in ISO form"),
        ({**rows(["user_id"], [[3]]), "parms": {"k": 3}}, "unknown field 'parms': did you mean"),
        (b'{"dataframe_split": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON"),
        (rows(["history"], [["10,20"]]), "history"),
        (rows(["history"], [[10]]), "history"),
        (rows(["history"], [[[[10]]]]), "history"),
        (rows(["user_id"], [[3]], k=0), "k is 0, but it must be a whole number from 1 to 10,000"),
        (rows(["user_id"], [[3]], k=-1), "k is -1, but it must"),
        (rows(["user_id"], [[3]], k=10**12), "k is 1000000000000, but it must"),
        (rows(["user_id"], [[3]], k=None), "k is None, but it must"),
        (rows(["user_id"], [[3]], k="a"), "'k': long.*for value `a`"),
        (rows(["user_id"], [[3]], k=1.5), "'k': long.*for value `1.5`"),
        (rows(["user_id"], [[3]], k=[]), "k"),
        ({"user_id": 3}, "must be a JSON dictionary with exactly one of the input fields"),
        (b"hello", "valid JSON"),
    ],
)
def test_bad_input_is_a_400_that_names_it(served, body, named):
    status, message = send(served, body)
    assert status == 400
    assert re.search(named, message, re.DOTALL), message


def test_another_content_type_is_a_415_that_names_those_there_are(served):
    status, message = send(served, b"<a/>", "text/xml")
    assert status == 415
    assert "application/json" in message


def test_a_body_that_is_too_large_is_a_413_that_names_the_limit(served):
    status, message = send(served, rows(["history"], [[[10] * 3_000_000]]))
    assert status == 413
    assert "8,388,608 are allowed" in message


def test_a_request_chooses_what_its_lists_hold(served):
    """User 1 has seen items 30 and 10 of 10, 20, 30 and 40."""
    body = rows(["user_id", "exclude"], [[1, [40]], [1, []]], exclude_seen=True)
    _, answer = send(served, body)
    assert [sorted(row["item_ids"]) for row in answer["predictions"]] == [[20], [20, 40]]
    _, answer = send(served, rows(["user_id"], [[1]]))
    assert sorted(answer["predictions"][0]["item_ids"]) == [10, 20, 30, 40]


def test_a_version_of_whole_number_ids_answers_before_it_is_promoted(model):
    name, runs = model
    check_version(name, "1", runs)
