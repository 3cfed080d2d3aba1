"""`dssm runs --compare`, and runs that are named by the start of their id."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from tests.unit.conftest import PASSED


def dssm(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, list(map(str, arguments)))


@pytest.fixture
def runs(fabricate, finish):
    one, two = fabricate("one-1"), fabricate("two-2", floor=0.7)
    finish(one, "recall_gate", info=PASSED)
    metrics = {"served": {"recall@200": 0.75}}
    finish(two, "recall_gate", info=PASSED | {"metrics": metrics})
    return one.runs


def test_two_runs_differ_in_a_setting_and_in_their_recall(runs):
    out = dssm("runs", "--compare", "one", "two", "--runs", runs).stdout
    lines = [line.split() for line in out.splitlines()]
    assert ["gate.floor", "0.1", "0.7"] in lines
    assert ["recall@200", "1", "0.75", "-0.25"] in lines
    equal = ("train.batch_size", "recall@200_champion", "recall@200_best_baseline")
    assert not any(line[:1] == [name] for line in lines for name in equal)
    assert "not comparable" not in out


def test_numbers_of_different_test_rows_are_not_comparable(runs, fabricate, finish):
    other = fabricate("three-3", "2024-01-08")
    finish(other, "recall_gate", info=PASSED)
    out = dssm("runs", "--compare", "one", "three", "--runs", runs).stdout
    assert "all numbers are equal" in out
    assert "not comparable: the runs were judged on different test rows" in " ".join(out.split())


def test_an_id_that_is_no_id_or_that_of_several_runs_is_refused(runs, fabricate, monkeypatch):
    fabricate("one-2")
    out = dssm("runs", "--compare", "one", "two", "--runs", runs)
    assert out.exit_code != 0
    assert "'one' is the start of several runs (" in out.stderr
    monkeypatch.setenv("DSSM_RUNS", str(runs))
    assert "is not a run folder" in dssm("report", "--run", "zzz").output
    assert (runs / dssm("report", "--run", "two").stdout.strip()).is_file()
