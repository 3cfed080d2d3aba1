"""Steps as transactions: what is left of a failed attempt, and what a step is called with."""

import json
import sys

import pytest

from dssm_core.config import parse_config
from dssm_core.errors import ConfigError, DataError, LostAnswer
from dssm_core.runs import transaction
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import create_run, find_twins
from dssm_core.runs.table import Step
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

HERE = "tests.unit.runs.test_transaction"


def work(run, folder, note):
    """A step's function that fails as the run's notes say."""
    notes = run.root / "notes.json"
    text, error = json.loads(notes.read_text()) if notes.is_file() else ["", None]
    (folder / "page.txt").write_text(note() + text)
    if error:
        raise {"data": DataError, "config": ConfigError}[error]("row 3 is wrong")
    return Outcome({"rows": 1})


def greeting():
    return "hello "


@pytest.fixture
def run(tmp_path, monkeypatch):
    step = Step("one", f"{HERE}:work", "a step", (), passes={"note": f"{HERE}:greeting"})
    monkeypatch.setattr(transaction, "find_step", lambda name: step)
    monkeypatch.setattr(transaction, "step_key", lambda run, step: "key")
    return create_run(parse_config(small_config()), tmp_path, "one")


def note(run, text, error=None):
    (run.root / "notes.json").write_text(json.dumps([text, error]))


def test_a_step_is_called_with_the_functions_that_the_table_passes(run):
    manifest = execute(run, "one")
    assert list(manifest.files) == ["page.txt"]
    assert (run.step("one") / "page.txt").read_text() == "hello "


def test_the_output_of_a_step_that_the_data_fail_is_kept_until_the_next_attempt(run):
    for text in ("first", "second"):
        note(run, text, "data")
        with pytest.raises(DataError, match=r"row 3 is wrong\nWhat the step wrote .*one\.failed"):
            execute(run, "one")
        assert (run.failed("one") / "page.txt").read_text() == f"hello {text}"
        assert [file.name for file in run.failed("one").iterdir()] == ["page.txt"]
        assert not run.step("one").exists()
    note(run, "third")
    execute(run, "one")
    assert not run.failed("one").exists()
    assert (run.step("one") / "page.txt").read_text() == "hello third"


def test_an_attempt_that_other_settings_of_the_machine_can_resume_is_not_moved(run):
    note(run, "checkpoint", "config")
    with pytest.raises(ConfigError, match=r"^row 3 is wrong$"):
        execute(run, "one")
    assert (run.root / ".one.part" / "page.txt").read_text() == "hello checkpoint"
    assert not run.failed("one").exists()


@pytest.mark.parametrize(("lost", "calls"), [(2, 3), (3, 3)])
def test_a_step_that_loses_an_answer_is_called_three_times_at_most(run, monkeypatch, lost, calls):
    """Its output so far is still there."""
    seen = []

    def step(run, folder, note):
        seen.append((folder / "page.txt").is_file())
        (folder / "page.txt").write_text("x")
        if len(seen) <= lost:
            raise LostAnswer("the service ended")
        return Outcome({"rows": len(seen)})

    monkeypatch.setattr(sys.modules[HERE], "work", step)
    if lost < calls:
        assert execute(run, "one").rows == {"rows": calls}
    else:
        with pytest.raises(LostAnswer, match="the service ended"):
            execute(run, "one")
    assert seen == [False, True, True]


def test_a_twin_is_looked_for_in_runs_of_the_same_dataset_and_day_only(tmp_path, monkeypatch):
    one, two = (create_run(parse_config(small_config()), tmp_path, name) for name in ("one", "two"))
    for other in ("small/2024-03-06/other", "other/2024-03-07/other"):
        (tmp_path / other).mkdir(parents=True)
        (tmp_path / other / "config.json").mkdir()  # reading it would raise
    assert find_twins(one) == [two]
