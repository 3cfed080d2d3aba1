"""The report of the gate as models: older JSON is read, and written with the same content."""

import json
from pathlib import Path

from dssm_core.runs.gate_report import GateReport, find_gate_report, read_gate_report

OLD = Path(__file__).parent / "stored" / "gate.json"  # of a demo run before there were models


def test_an_older_report_survives_the_round_trip():
    stored = json.loads(OLD.read_text())
    assert GateReport.model_validate(stored).as_json() == stored


def test_the_fields_of_an_older_report_are_read():
    report = GateReport.model_validate_json(OLD.read_text())
    served = report.metrics.served
    assert report.passed
    assert served.value("recall@200") == 0.6618484118652899
    assert served.interval("recall@200") == (0.6544114372250379, 0.6692164293694235)
    assert served.value("recall@7") is None
    assert served.interval("ndcg@200") is None
    assert served.recalls == ["recall@200"]
    assert report.metrics.best_baseline("recall@200") == "recent_hot"
    assert report.metrics.parts["fresh_items"].queries == 6432
    assert (report.metrics.champion, report.metrics.rolling) == (None, None)


def test_a_champion_and_rolling_survive_the_round_trip():
    scores = {"recall@20": 0.5, "recall@20_low": 0.4, "recall@20_high": None}
    answers = {"served": scores, "exact": scores, "baselines": {"hot": scores | {"window_h": 3}}}
    refreshed = answers | {"daily": scores, "ceiling": {"recall@20": 0.9}}
    rolling = {"refresh_h": 2, "rows": {"warm": 3}, "warm": refreshed, "by_part": {"x": [None]}}
    champion = scores | {"version": "3", "parts": {}, "drift": {"volume": 0.1}, "rolling": scores}
    metrics = answers | {"rolling": rolling, "champion": champion, "of a later version": [1]}
    stored = {"passed": False, "reasons": ["no"], "metrics": metrics}
    report = GateReport.model_validate(stored)
    assert report.as_json() == stored
    assert report.metrics.champion.scores.value("recall@20") == 0.5
    assert report.metrics.champion.scores.interval("recall@20") is None


def test_a_run_has_a_report_once_its_gate_has_run(fabricate, finish):
    run = fabricate()
    assert find_gate_report(run) is None
    finish(run, "recall_gate", info=json.loads(OLD.read_text()))
    assert find_gate_report(run) == read_gate_report(run)
