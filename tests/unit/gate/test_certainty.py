"""How much the gate knows: the number of queries, intervals of differences, both populations."""

import re

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import Gate, parse_config
from dssm_core.evaluation.evaluate import Evaluated
from dssm_core.evaluation.measure import difference
from dssm_core.gate import judge as gate
from dssm_core.gate.champion import MeasuredChampion
from dssm_core.gate.rules import Champion, decide, promotion_reason
from dssm_core.registry import versions
from dssm_core.report import verdict
from dssm_core.report.headline import rivals_table
from dssm_core.retrieval.bundle import Bundle, assemble
from dssm_core.runs.gate_report import ChampionReport, GateMetrics
from tests.conftest import small_config

KEY = "recall@200"


def config(**settings):
    raw = small_config(seed=5)
    raw["gate"] = {"floor": 0.0, "min_queries": 1, "champion_tolerance": 0.0} | settings
    raw["evaluation"] = {"bootstrap": 200}
    return parse_config(raw)


def judged(settings, served, hot, champion=None):
    """The checks on per-query recalls, and the metrics, as the step makes them."""
    recalls = {"served": np.array(served), "hot": np.array(hot)}
    means = {name: {KEY: float(values.mean())} for name, values in recalls.items()}
    metrics = {"served": means["served"], "exact": means["served"]}
    metrics |= {"baselines": {"hot": means["hot"]}, "queries": {"warm": len(served), "all": 1000}}
    evaluated = Evaluated(GateMetrics.model_validate(metrics), {}, recalls)
    measured = None
    if champion is not None:
        mean = float(np.mean(champion))
        report = ChampionReport.model_validate({"version": "3", KEY: mean})
        measured = MeasuredChampion(Champion("3", mean), report, None, np.array(champion))
    found = gate.compare(evaluated, measured, settings)
    compared = measured.compared if measured else None
    return decide(found, settings.gate, compared), found


@pytest.mark.parametrize(("queries", "passed"), [(199, False), (200, True), (1, False)])
def test_fewer_queries_than_required_are_not_enough(queries, passed):
    scores = {KEY: 0.6}
    metrics = {"served": scores, "exact": scores, "queries": {"warm": queries, "all": 1000}}
    checks = decide(GateMetrics.model_validate(metrics), Gate())
    assert [check.passed for check in checks] == [passed, True, True]
    if not passed:
        assert checks[0].reason == (
            f"not enough to judge: {queries} queries of users and items in the training set,"
            " fewer than the required 200 (gate.min_queries)"
        )
    everyone = decide(
        GateMetrics.model_validate(metrics | {"all": metrics}), Gate(population="all")
    )
    assert everyone[0].passed
    assert everyone[0].reason.startswith("1,000 queries of all traffic")


def test_the_interval_of_a_difference_equals_brute_force():
    settings = config(confidence=0.9)
    rng = np.random.default_rng(1)
    served = rng.random(40)
    other = rng.random(40)
    found = difference("hot", served, other, settings)
    draws = np.random.default_rng(5).integers(0, 40, (200, 40))
    means = [np.mean([served[i] - other[i] for i in row]) for row in draws]
    assert found.mean == pytest.approx(np.mean(served) - np.mean(other))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))
    assert found.confidence == 0.9


def test_a_mean_that_few_queries_make_does_not_pass_with_confidence():
    """One query of ten gains 1 and the rest are equal: one in three resamples (0.9 ** 10) lacks it,
    and one query that loses 0.5 makes the lower bound negative.
    """
    served = [1.0, 0.0, *[0.5] * 8]
    hot = [0.0, 0.5, *[0.5] * 8]
    by_mean, metrics = judged(config(), served, hot)
    assert all(check.passed for check in by_mean)
    assert by_mean[2].reason.startswith(
        "served recall@200 is 0.500, at least the best baseline, hot, with 0.450;"
        " gain +0.050, paired 95 % interval -0."
    )
    by_bound, metrics = judged(config(confidence=0.95), served, hot)
    assert [check.passed for check in by_bound] == [True, True, False, True]
    assert metrics.against_baseline.rival == "hot"
    assert metrics.against_baseline.low < 0 < metrics.against_baseline.mean
    assert by_bound[2].reason == (
        "served recall@200 is 0.500, against the best baseline, hot, with 0.450; gain +0.050,"
        f" paired 95 % interval {metrics.against_baseline.low:+.3f} to"
        f" {metrics.against_baseline.high:+.3f}: its lower bound is below 0.000"
    )


def test_differences_are_paired():
    """Recalls of 0 and 1 have a wide interval, but every query gains 0.01 or 0.02 over the champion
    and the baseline: the mean of any resample lies between.
    """
    base = np.array([0.0, 0.98] * 20)
    served = base + np.array([0.01, 0.02] * 20)
    checks, metrics = judged(config(confidence=0.99), served, base, champion=base)
    assert all(check.passed for check in checks)
    for found in (metrics.against_baseline, metrics.against_champion):
        assert 0.01 <= found.low <= found.mean <= found.high <= 0.02
        assert found.mean == pytest.approx(0.015)
    assert metrics.against_champion.rival == "champion version 3"
    # the same resamples
    assert metrics.against_champion.low == metrics.against_baseline.low


@pytest.mark.parametrize(("tolerance", "passed"), [(0.004, False), (0.02, True)])
def test_the_lower_bound_may_be_below_the_champion_by_the_tolerance(tolerance, passed):
    """Half of the queries lose 0.02, half gain 0.02: the means are equal, bounds lie between."""
    base = np.full(40, 0.5)
    served = base + np.array([0.02, -0.02] * 20)
    settings = config(confidence=0.95, champion_tolerance=tolerance)
    checks, metrics = judged(settings, served, base - 0.1, champion=base)
    assert metrics.against_champion.mean == pytest.approx(0)
    assert -0.02 < metrics.against_champion.low < -0.004
    assert checks[-1].passed is passed
    assert f"{'at least' if passed else 'below'} -{tolerance:.3f}" in checks[-1].reason


def test_the_margin_of_a_promotion_is_the_lower_bound():
    base = np.full(40, 0.5)
    served = base + np.array([0.2, 0.0] * 20)  # mean 0.1
    for confidence, margin, passed in ((None, 0.09, True), (0.95, 0.09, False), (0.95, 0.05, True)):
        settings = config(confidence=confidence, promote_margin=margin)
        _, metrics = judged(settings, served, base - 0.2, champion=base)
        reason = promotion_reason(metrics, settings.gate)
        assert (reason is not None) is passed, (confidence, margin)
    assert "0.100 above champion version 3 with a lower bound of 0.0" in reason


def test_without_queries_nothing_is_measured_and_no_sentence_says_nan():
    nothing = {KEY: None}
    metrics = {"served": nothing, "exact": nothing, "baselines": {"hot": nothing}}
    metrics |= {"queries": {"warm": 0, "all": 0}}
    for confidence in (None, 0.95):
        checks = decide(
            GateMetrics.model_validate(metrics), Gate(confidence=confidence), Champion("1", None)
        )
        assert not any(check.passed for check in checks)
        assert [check.reason for check in checks if "nan" in check.reason.lower()] == []
        assert sum("not measured" in check.reason for check in checks) == 4


def test_an_exact_search_that_finds_nothing_is_said():
    nothing = {KEY: 0.0}
    checks = decide(GateMetrics.model_validate({"served": nothing, "exact": nothing}), Gate())
    assert checks[-1].reason == (
        "the index could not be compared with exact search:"
        " exact search finds nothing, its recall@200 is 0"
    )


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(versions, "fetch_champion", lambda run, folder: None)
    monkeypatch.setattr(verdict, "log_verdict", lambda *_: None)


def test_all_traffic_can_decide(fabricate, tmp_path, quiet):
    """Warm users find everything. Of all four, user 3 misses item 99: 3 of 4, for baselines too."""
    run = fabricate(population="all", floor=0.8)
    outcome = gate.judge(run, tmp_path, verdict.publish)
    metrics = outcome.info["metrics"]
    assert metrics["served"][KEY] == 1
    assert metrics["all"]["served"][KEY] == 0.75
    assert outcome.info["reasons"][:3] == [
        "4 queries of all traffic, with new users and items, at least the required 1"
        " (gate.min_queries)",
        "served all-traffic recall@200 is 0.750, below the floor of 0.800",
        "served all-traffic recall@200 is 0.750, at least the best baseline, hot, with 0.750;"
        " gain +0.000, paired 95 % interval +0.000 to +0.000",
    ]
    assert "the all-traffic recall@200 of exact search" in outcome.info["reasons"][3]
    page = (tmp_path / "report.html").read_text()
    assert "All traffic, with new users and items: 4 queries" in page
    assert "Users and items in the training set: 2 queries" in page


def test_the_champion_is_measured_on_all_traffic(fabricate, tmp_path, quiet, monkeypatch):
    """A champion with the same files and no history of its own reaches the same numbers."""
    run = fabricate(population="all")
    folder = tmp_path / "bundle"
    assemble(run, folder)
    fetched = versions.FetchedVersion("4", folder)
    monkeypatch.setattr(versions, "fetch_champion", lambda run, into: fetched)
    read = Bundle.read
    monkeypatch.setattr(
        Bundle, "read", lambda self, frame: read(self, frame.drop(columns="history"))
    )
    metrics = gate.judge(run, tmp_path, verdict.publish).info["metrics"]
    assert metrics["champion"]["all"] == metrics["all"]["served"]
    against = metrics["against_champion"]
    assert against["rival"] == "champion version 4"
    assert (against["mean"], against["low"], against["high"]) == (0, 0, 0)
    assert "champion, version 4" in (tmp_path / "report.html").read_text().split("All traffic")[1]


def test_a_champion_of_a_later_day_is_not_compared(fabricate, tmp_path, quiet, monkeypatch):
    """It was trained on the queries of this run, and would answer them too well."""
    run, later = fabricate(), fabricate("later", "2024-01-09")
    fetched = versions.FetchedVersion("4", assemble(later, tmp_path / "bundle"))
    monkeypatch.setattr(versions, "fetch_champion", lambda run, into: fetched)
    outcome = gate.judge(run, tmp_path, verdict.publish)
    why = (
        "it was trained up to 2024-01-08, which includes this test day, 2024-01-07: its figure"
        " would be too high"
    )
    said = f"champion version 4 is not comparable, and is not compared: {why}"
    assert (outcome.info["reasons"][-1], outcome.info["met"][-1]) == (said, True)
    metrics = GateMetrics.model_validate(outcome.info["metrics"])
    assert metrics.champion.scores.value(KEY) is None
    assert metrics.against_champion is None
    assert metrics.champion.drift["unknown_items"] == 0
    assert not any("champion" in name for name in metrics.systems("warm"))
    assert "| champion version 4 | not comparable |  |" in rivals_table(metrics, run.config.gate)
    page = (tmp_path / "report.html").read_text()
    assert '<div class="card"><b>not comparable</b><span>champion, version 4</span></div>' in page
    assert f"Champion version 4 is not comparable: {why}." in page


def test_a_test_set_without_warm_queries_is_judged_in_words(fabricate, finish, tmp_path, quiet):
    """Only new users and new items in the test set: no figure of the warm population exists."""
    run = fabricate(confidence=0.95, min_queries=200)
    file = run.step("split_by_time") / "test.parquet"
    clicks = pd.read_parquet(file)
    clicks[clicks["user_id"] == 7].assign(item_id=99).to_parquet(file)
    finish(run, "split_by_time", {"train": 6, "test": 1}, run.need("split_by_time").info)
    outcome = gate.judge(run, tmp_path, verdict.publish)
    assert outcome.info["passed"] is False
    assert outcome.info["reasons"][0].startswith("not enough to judge: 0 queries")
    assert "against_baseline" not in outcome.info["metrics"]
    text = (tmp_path / "report.html").read_text()
    for said in (*outcome.info["reasons"], re.sub(r'src="[^"]*"', "", text)):
        assert not re.search(r"\bnan\b", said, re.IGNORECASE)
    assert sum("not measured" in said for said in outcome.info["reasons"]) == 3
