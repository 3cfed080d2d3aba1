"""Who answers a review: a person, or the gate where there is nothing to decide."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator

from tasks.review import Review

ASKED = object()


@pytest.fixture
def answer(monkeypatch):
    monkeypatch.setattr(HITLOperator, "execute", lambda self, context: ASKED)
    review = Review(
        task_id="review", subject="Promote?", options=["Promote", "Keep as challenger", "Reject"]
    )
    pull = lambda alone: SimpleNamespace(xcom_pull=lambda task_ids, key: {"alone": alone})  # noqa: E731
    return lambda alone: review.execute({"ti": pull(alone)})


def test_a_person_is_asked(answer):
    assert answer({"Promote": None, "Keep as challenger": None}) is ASKED


@pytest.mark.parametrize("option", ["Promote", "Keep as challenger"])
def test_the_gate_answers_with_its_reason(answer, option):
    alone = {"Promote": None, "Keep as challenger": None} | {option: "that is so"}
    made = answer(alone)
    assert (made["chosen_options"], made["params_input"]) == ([option], {"reason": "that is so"})
    assert made["responded_by_user"]["name"] == "gate"
