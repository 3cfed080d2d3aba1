"""Each rule alone, on numbers; then the whole step."""

import dataclasses
import json
import math
import subprocess
import sys

import pytest

from dssm_core.config import Gate, parse_config
from dssm_core.features.ids import Ids
from dssm_core.gate import judge as gate
from dssm_core.gate.champion import drift_since, overlap_note
from dssm_core.gate.rules import Champion, Check, decide, promotion_reason
from dssm_core.registry import versions
from dssm_core.report import verdict
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.runs.gate_report import GateMetrics

RULES = Gate(floor=0.5, min_index_ratio=0.98, champion_tolerance=0.01)


def metrics(served=0.6, exact=0.6, hot=0.3, recent=0.55, **more):
    key = "recall@200"
    known = {
        "served": {key: served},
        "exact": {key: exact},
        "baselines": {"hot": {key: hot}, "recent_hot": {key: recent}},
    }
    return GateMetrics.model_validate(known | more)


def failed(checks):
    return [check.reason for check in checks if not check.passed]


def test_all_pass_and_say_so():
    checks = decide(metrics(), RULES, Champion("3", 0.605))
    assert [check.reason for check in checks] == [
        "served recall@200 is 0.600, at least the floor of 0.500",
        "served recall@200 is 0.600, at least the best baseline, recent_hot, with 0.550",
        "the index keeps 1.000 of the recall@200 of exact search (0.600 of 0.600), "
        "at least the required 0.980",
        "served recall@200 is 0.600, no worse than champion version 3 with 0.605"
        " on the same queries "
        "(tolerance 0.010)",
    ]
    assert not failed(checks)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (
            {"served": 0.499, "exact": 0.499, "recent": 0.1},
            "served recall@200 is 0.499, below the floor of 0.500",
        ),
        ({"hot": 0.7}, "served recall@200 is 0.600, below the best baseline, hot, with 0.700"),
        (
            {"exact": 0.62},
            "the index keeps 0.968 of the recall@200 of exact search (0.600 of 0.620), "
            "below the required 0.980",
        ),
    ],
)
def test_each_rule_alone_fails(numbers, reason):
    assert failed(decide(metrics(**numbers), RULES)) == [reason]


def test_exactly_at_the_line_passes():
    assert not failed(decide(metrics(served=0.5, exact=0.5, recent=0.5), RULES))


def test_worse_than_the_champion_fails_and_the_tolerance_counts():
    assert (
        "is 0.600, worse than champion version 3"
        in failed(decide(metrics(), RULES, Champion("3", 0.62)))[0]
    )
    assert not failed(
        decide(metrics(), Gate(floor=0.5, champion_tolerance=0.03), Champion("3", 0.62))
    )


def test_a_champion_that_cannot_be_run_lets_nobody_pass():
    assert failed(decide(metrics(), RULES, Champion("3", None, "why"))) == [
        "champion version 3 could not be compared: why"
    ]


def test_a_champion_that_is_not_comparable_is_said_and_decides_nothing():
    checks = decide(metrics(), RULES, Champion("3", None, "why", comparable=False))
    assert not failed(checks)
    assert checks[-1].reason == "champion version 3 is not comparable, and is not compared: why"
    measured = {"version": "3", "not_comparable": "why", "recall@200": None}
    assert promotion_reason(metrics(champion=measured), WITH_MARGIN) is None  # a person decides


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_was_not_measured_never_passes(nothing):
    assert len(failed(decide(metrics(served=nothing), RULES, Champion("1", 0.1)))) == 4
    assert len(failed(decide(metrics(exact=nothing), RULES))) == 1
    assert len(failed(decide(metrics(hot=nothing, recent=nothing), RULES))) == 1
    assert len(failed(decide(metrics(served=0.0, exact=0.0), RULES))) == 3


WITH_MARGIN = RULES.model_copy(update={"promote_margin": 0.05})


@pytest.mark.parametrize(
    ("rules", "champion", "why"),
    [
        (RULES, 0.1, None),  # off unless it is asked for
        (
            WITH_MARGIN,
            0.54,
            "served recall@200 is 0.600, 0.060 above champion version 3;"
            " gate.promote_margin is 0.050",
        ),
        (WITH_MARGIN, 0.56, None),
        (WITH_MARGIN, None, None),  # a champion that could not be measured: a person decides
    ],
)
def test_a_margin_promotes_without_a_person(rules, champion, why):
    measured = {"version": "3", "recall@200": champion}
    assert promotion_reason(metrics(champion=measured), rules) == why


def test_without_a_champion_the_margin_is_over_the_best_baseline():
    assert promotion_reason(metrics(recent=0.54), WITH_MARGIN).endswith(
        "0.060 above the best baseline, recent_hot; gate.promote_margin is 0.050"
    )
    assert promotion_reason(metrics(recent=0.56), WITH_MARGIN) is None
    assert promotion_reason(metrics(baselines={}), WITH_MARGIN) is None


def test_overlap_is_said(fabricate):
    early, late = fabricate("a").config, fabricate("b", "2024-01-09").config
    assert overlap_note(early, late) == overlap_note(early, early) == ""
    assert "up to 2024-01-08" in overlap_note(late, early)


def test_overlap_of_other_splits_is_said(fabricate):
    days = fabricate().config
    timeless = {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}
    raw = days.model_dump() | timeless | {"split": {"kind": "last_n"}}
    raw["evaluation"] |= {"baselines": ["hot"]}
    rolling = parse_config(raw)
    assert overlap_note(rolling, rolling) == ""
    assert overlap_note(days, rolling).startswith(
        "it was trained on the split 2024-01-07, which may include test rows of last_n"
    )


def test_judge_writes_the_verdict(fabricate, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: None)
    monkeypatch.setattr(verdict, "log_verdict", lambda run, work, report: logged.append(report))
    outcome = gate.judge(fabricate(floor=1.0), tmp_path, verdict.publish)
    assert outcome.info["passed"] is True
    assert json.loads((tmp_path / "gate.json").read_text()) == outcome.info == logged[0].as_json()
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves["served"]["mean"][199] == pytest.approx(
        outcome.info["metrics"]["served"]["recall@200"]
    )
    assert (tmp_path / "recall_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_champion_answers_the_same_queries(fabricate, tmp_path, monkeypatch):
    """A champion with the same files and no history in its config reaches the same number."""
    run = fabricate()
    folder = tmp_path / "bundle"
    from dssm_core.retrieval.bundle import Bundle, assemble

    assemble(run, folder)
    monkeypatch.setattr(
        versions, "fetch_champion", lambda run, into: versions.FetchedVersion("4", folder)
    )
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    read = Bundle.read
    monkeypatch.setattr(
        Bundle, "read", lambda self, frame: read(self, frame.drop(columns="history"))
    )
    outcome = gate.judge(run, tmp_path, verdict.publish)
    champion, served = outcome.info["metrics"]["champion"], outcome.info["metrics"]["served"]
    assert champion["version"] == "4"
    assert {name: champion[name] for name in served} == served
    assert champion["parts"] == outcome.info["metrics"]["parts"]
    assert outcome.info["reasons"][-1].startswith(
        "served recall@200 is 1.000, no worse than champion version 4"
    )


def test_how_the_window_has_moved_since_the_champions(fabricate, tmp_path, monkeypatch):
    """The champion knows items 10 and 20 only: of ten clicks on known items, five in train and five
    in the test, three are on item 30.
    """
    from dssm_core.data import drift
    from dssm_core.evaluation import queries
    from dssm_core.retrieval.bundle import assemble, open_bundle

    run = fabricate()
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    bundle = dataclasses.replace(bundle, items=Ids(bundle.items.index[:2]))
    data = queries.read_evaluation_data(run)
    assert drift_since(run, data, bundle, None) == {"unknown_items": pytest.approx(3 / 10)}
    run.step("validate_data").mkdir()
    drift.save(drift.Drift([], [30], [], {}, {"os": {"x": 1.0}}), run.step("validate_data"))
    found = drift_since(run, data, bundle, drift.Drift([], [20], [], {}, {"os": {"y": 1.0}}))
    assert found == {
        "volume": 0.5,
        "columns": [["os", 1.0]],
        "unknown_items": pytest.approx(3 / 10),
    }


def test_a_run_that_does_not_pass_has_its_report(fabricate, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: None)
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    run = fabricate(floor=1.0, min_index_ratio=1.0)
    monkeypatch.setattr(gate, "decide", lambda *_: [Check(False, "no")])
    assert gate.judge(run, tmp_path, verdict.publish).info["passed"] is False
    assert "The gate did not pass" in (tmp_path / "report.html").read_text()


def test_a_broken_champion_is_a_reason_and_no_crash(fabricate, tmp_path, monkeypatch):
    monkeypatch.setattr(
        versions,
        "fetch_champion",
        lambda run, into: versions.FetchedVersion("4", tmp_path / "nothing"),
    )
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    outcome = gate.judge(fabricate(), tmp_path, verdict.publish)
    assert not outcome.info["passed"]
    assert "remove the alias champion" in outcome.info["reasons"][-1]


def test_the_rules_load_no_heavy_library():
    heavy = ("torch", "faiss", "matplotlib", "mlflow", "pandas", "duckdb")
    code = f"import sys, dssm_core.gate.rules; print(*set({heavy}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_index_is_loaded_and_exact_search_built_once(fabricate, tmp_path, monkeypatch):
    calls = []
    for name in ("load", "build"):
        original = getattr(FaissFlat, name)

        def counted(self, *arguments, name=name, original=original, **options):
            calls.append(name)
            return original(self, *arguments, **options)

        monkeypatch.setattr(FaissFlat, name, counted)
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: None)
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)
    run = fabricate()  # builds and saves the index that is served
    calls.clear()
    gate.judge(run, tmp_path, verdict.publish)
    assert sorted(calls) == ["build", "load"]
