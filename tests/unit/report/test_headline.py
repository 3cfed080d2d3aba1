"""The numbers that people compare first, and the lines that say the verdict."""

from __future__ import annotations

import pytest

from dssm_core.gate.rules import verdict_line
from dssm_core.report.headline import headline, rivals_table
from dssm_core.runs.gate_report import GateReport

METRICS = {
    "served": {"recall@200": 0.6, "recall@200_low": 0.58, "recall@200_high": 0.62, "ndcg@200": 0.3},
    "exact": {"recall@200": 0.61},
    "baselines": {"hot": {"recall@200": 0.3}, "itemcf": {"recall@200": 0.4}},
    "all": {"served": {"recall@200": 0.5}},
    "champion": {"version": "3", "recall@200": 0.61},
    "against_baseline": {
        "rival": "itemcf", "mean": 0.2, "low": 0.1, "high": 0.3, "confidence": 0.95
    },
    "against_champion": {
        "rival": "champion version 3", "mean": -0.01, "low": -0.02, "high": 0.005,
        "confidence": 0.95,
    },
}  # fmt: skip
STORED = {"passed": False, "reasons": ["the floor", "worse"], "met": [True, False]}


@pytest.fixture
def report():
    return GateReport.model_validate(STORED | {"metrics": METRICS})


def test_the_headline_has_the_served_index_its_rivals_and_the_costs(fabricate, finish, report):
    run = fabricate()
    finish(run, "build_index", info={"queries_per_s": 500.0})
    numbers = {key.removeprefix("headline."): value for key, value in headline(run, report).items()}
    assert numbers["recall@200"] == 0.6
    assert (numbers["recall@200_low"], numbers["recall@200_high"]) == (0.58, 0.62)
    assert numbers["recall@200_best_baseline"] == 0.4
    assert numbers["recall@200_champion"] == 0.61
    assert numbers["recall@200_all_traffic"] == 0.5
    assert numbers["recall@200_exact_search"] == 0.61
    assert (numbers["gain_over_champion"], numbers["gain_over_champion_low"]) == (-0.01, -0.02)
    assert numbers["gain_over_best_baseline_high"] == 0.3
    assert numbers["ms_per_query"] == 2.0


def test_the_table_of_rivals_has_paired_gains(fabricate, report):
    lines = rivals_table(report.metrics, fabricate().config.gate).splitlines()
    assert lines[0] == "| the same queries | recall@200 | gain of served, paired interval |"
    assert lines[2:] == [
        "| served | 0.600 |  |",
        "| champion version 3 | 0.610 | -0.010 (-0.020 to +0.005) |",
        "| best baseline, itemcf | 0.400 | +0.200 (+0.100 to +0.300) |",
    ]


def test_reasons_are_marked_and_the_verdict_is_one_line(fabricate, report):
    gate = fabricate().config.gate
    assert report.marked == ["✓ the floor", "✗ worse"]
    assert verdict_line(report, gate) == "gate: did not pass: worse"
    passed = report.model_copy(update={"passed": True})
    assert verdict_line(passed, gate) == (
        "gate: passed, recall@200 0.600, -0.010 over champion version 3, +0.200 over itemcf"
    )


def test_a_report_of_an_older_version_has_no_marks():
    old = GateReport.model_validate({"passed": True, "reasons": ["good"], "metrics": METRICS})
    assert old.marked == ["good"]
