"""What the terminal shows of a run."""

import pytest
from rich.console import Console

from dssm_core.cli import screen
from dssm_core.runs.manifest import Manifest

SCORES = {"recall@20": 0.5, "recall@200": 0.75, "ndcg@200": 0.25, "coverage@200": 1.0}
NOTHING = dict.fromkeys(SCORES)


@pytest.fixture
def out(monkeypatch):
    console = Console(width=200, record=True)
    monkeypatch.setattr(screen, "console", console)
    return console


def summary(served=SCORES, **metrics):
    answers = {"served": served, "exact": served, "baselines": {"hot": {"recall@200": 0.125}}}
    counts = {"queries": {"warm": 1234, "all": 2345}}
    return {
        "run": "runs/a",
        "test_day": "2024-03-07",
        "metrics": answers | counts | metrics,
        "gate": {"passed": False, "reasons": ["not enough to judge"], "k": 200},
        "seconds": {},
        "version": None,
    }


def test_both_populations_are_shown_with_the_champion(out):
    everyone = {"served": {"recall@200": 0.375}, "baselines": {"hot": {"recall@200": 0.0625}}}
    champion = SCORES | {"recall@200": 0.875, "version": "3", "all": {"recall@200": 0.4375}}
    screen.print_summary(summary(all=everyone, champion=champion), out)
    warm, traffic = out.export_text().split("all traffic, with new users and items (2,345 queries)")
    assert "users and items in the training set (1,234 queries)" in warm
    assert all(value in warm for value in ("0.7500", "0.1250", "0.8750"))
    assert all(value in traffic for value in ("0.3750", "0.0625", "0.4375"))
    assert "champion, version 3" in traffic


def test_the_verdict_and_what_was_not_measured(out):
    screen.print_summary(summary(NOTHING), out)
    text = out.export_text()
    assert "gate: did not pass\n  not enough to judge\nnothing was registered" in text
    assert "not measured" in text
    assert "nan" not in text.lower()


def test_a_run_that_measured_nothing_is_listed(fabricate, finish):
    run = fabricate()
    info = {"passed": False, "reasons": [], "metrics": {"served": NOTHING}}
    finish(run, "recall_gate", info=info)
    console = Console(width=200, record=True)
    console.print(screen.runs_table([run]))
    assert "not measured (recall@200)" in (text := console.export_text())
    assert "did not pass" in text


@pytest.mark.parametrize("reused_from", [None, "another"])
def test_the_notes_of_a_reused_step_are_shown_again(out, reused_from):
    manifest = Manifest(
        step="train_towers",
        key="k",
        files={},
        rows={"events": 3},
        info={"notes": ["raise train.epochs"]},
        seconds=1.0,
        seed=1,
        reused_from=reused_from,
    )
    screen.print_step_end(manifest)
    assert ("raise train.epochs" in out.export_text()) is bool(reused_from)
