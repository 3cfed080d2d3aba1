"""Lines about how far long work is."""

import logging

import pytest

from dssm_core.config import Resources
from dssm_core.data.database import connect
from dssm_core.runs import progress_log
from dssm_core.runs.progress_log import logged, watched
from tests.conftest import wait_until


@pytest.fixture
def lines(monkeypatch, caplog):
    """The lines of work that is long from its beginning."""
    monkeypatch.setattr(progress_log, "EVERY_S", 0)
    caplog.set_level(logging.INFO, progress_log.__name__)
    return lambda: caplog.messages


def test_parts_are_counted(lines):
    assert list(logged("abcd", "spelling")) == list("abcd")
    assert lines() == [f"spelling: {done} %" for done in (0, 25, 50, 75)]


def test_short_work_logs_nothing(caplog):
    caplog.set_level(logging.INFO)
    assert list(logged("abcd", "spelling")) == list("abcd")
    with watched(lambda: 50.0, "spelling"):
        pass
    assert caplog.messages == []


def test_work_that_has_ended_is_watched_no_more(lines):
    asked = iter([-1.0, 10.0, 60.0])
    with watched(lambda: next(asked, -1.0), "spelling"):
        wait_until(lambda: len(lines()) == 2, "both are logged")
    assert lines() == ["spelling: 10 %", "spelling: 60 %"]


def test_a_query_is_watched(lines, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(progress_log, "EVERY_S", 0.01)
    with connect(tmp_path / "x", Resources()) as con:
        con.execute("SELECT count(DISTINCT hash(range)) FROM range(5000000)").fetchall()
    assert lines()
    assert all(line.startswith("the current query: ") for line in lines())
    assert capfd.readouterr() == ("", "")
