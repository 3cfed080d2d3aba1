"""Answers are encoded as MLflow encodes them."""

import io

import pandas as pd
import pytest
from mlflow.pyfunc import scoring_server as mlflow_server

from dssm_core.registry.scoring_server import write_answer
from dssm_core.retrieval.bundle import ANSWER


@pytest.mark.parametrize("ids", [["i1", "é€"], [7, 2**60], []])
def test_an_answer_is_encoded_as_by_mlflow(ids):
    scores = [0.5, 0.123456789][: len(ids)]
    rows = [[ids, scores, "user"], [[], [], "hot"]]
    answer = pd.DataFrame(rows, columns=ANSWER, index=[3, 1], dtype=object)
    ours, theirs = io.StringIO(), io.StringIO()
    write_answer(answer, ours)
    mlflow_server.predictions_to_json(answer, theirs)
    assert ours.getvalue() == theirs.getvalue()
