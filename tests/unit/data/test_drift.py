"""Distances between days by hand arithmetic; what a warning and a refusal say, and that each limit
has its effect.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from dssm_core.config import parse_config
from dssm_core.data import drift
from dssm_core.data.divergence import absolute_change, divergence, divergences, relative_change
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
DAY = 86_400_000


def test_relative_change_of_the_mean_before():
    # means before: -, 10, 15, 20: 20/10 - 1, 30/15 - 1, |5/20 - 1|
    assert relative_change(np.array([10.0, 20, 30, 5])).tolist() == pytest.approx(
        [np.nan, 1, 1, 0.75], nan_ok=True
    )
    assert np.isnan(relative_change(np.array([0.0, 20]))).all()


def test_absolute_change_leaves_unknown_days_out():
    assert absolute_change(np.array([np.nan, 0.2, 0.4, 0.9])).tolist() == pytest.approx(
        [np.nan, np.nan, 0.2, 0.6], nan_ok=True
    )


def test_divergence_by_hand():
    equal, apart = divergence(np.array([[2.0, 2], [5, 0]]), np.array([[1.0, 1], [0, 9]]))
    assert (equal, apart) == (0.0, 1.0)
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2
    wanted = (np.log2(4 / 3) + (np.log2(2 / 3) + 1) / 2) / 2
    assert divergence(np.array([3.0, 0]), np.array([1.0, 1])) == pytest.approx(wanted)
    assert np.isnan(divergence(np.zeros(2), np.ones(2)))


def test_each_day_diverges_from_the_sum_of_those_before():
    found = divergences(100 * np.array([[2.0, 0], [0, 2], [1, 1], [0, 0]]))
    assert found.tolist() == pytest.approx([np.nan, 1, 0, np.nan], nan_ok=True)


def test_days_too_small_to_tell_drift_from_chance_are_not_compared():
    # two values: (1/n + 1/m) / 5.545 reaches 0.02 at n = m = 18.03
    assert np.isnan(divergences(np.full((2, 2), 9.0))[1])
    assert divergences(np.full((2, 2), 9.5))[1] == 0


def test_chance_alone_makes_the_divergence_that_is_allowed_for():
    rng, values, n = np.random.default_rng(0), 40, 500
    pairs = rng.multinomial(n, np.full(values, 1 / values), (400, 2)).astype(float)
    assert divergence(pairs[:, 0], pairs[:, 1]).mean() == pytest.approx(
        (values - 1) * 2 / n / (8 * np.log(2)), rel=0.05
    )


def write(
    folder: Path, days: list[list[tuple[str, str]]], items: str = "", users: str = ""
) -> None:
    """days: for each day the (item, device) of its rows, all of user u."""
    rows = [
        f"u,{item},{T0 + day * DAY + place},{device}"
        for day, each in enumerate(days)
        for place, (item, device) in enumerate(each)
    ]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,device", *rows]) + "\n")
    (folder / "items.csv").write_text(
        items or "item_id,topic,tags,price\na,x,p|q,1\nb,y,p,2\nc,y,,\n"
    )


STEADY = [[("a", "tv"), ("b", "pc")] * 20] * 3


def made(folder: Path, limits=None, run_id="r", **columns):
    source = {
        "kind": "delimited",
        "path": str(folder),
        "interactions": {"files": "log.csv"},
        "items": {"files": "items.csv"},
    }
    raw = {
        "name": "t",
        "data": {"source": source},
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "evaluation": {"ks": [1]},
    }
    raw |= {
        "gate": {"k": 1},
        "features": {"columns": columns},
        "validation": {"drift": limits or {}},
    }
    return create_run(parse_config(raw), folder / "runs", run_id)


def validated(run):
    execute(run, "ingest_data")
    return execute(run, "validate_data").info


CONTEXT = [{"column": "device", "kind": "categorical"}]
ITEM = [
    {"column": "topic", "kind": "categorical"},
    {"column": "tags", "kind": "multi"},
    {"column": "price", "kind": "numeric"},
]


def test_steady_days_have_no_drift(tmp_path):
    write(tmp_path, STEADY)
    run = made(tmp_path, context=CONTEXT, item=ITEM)
    assert validated(run)["drift"] == []
    found = drift.load(run.step("validate_data"))
    assert (found.days, found.rows, found.new_items) == (
        ["2024-03-01", "2024-03-02", "2024-03-03"],
        [40, 40, 40],
        [None, 0, 0],
    )
    assert found.changes == {
        "volume": [None, 0, 0],
        "new_items": [None, None, 0],
        **{f"features.{name}": [None, 0, 0] for name in ("device", "topic", "tags", "price")},
    }
    assert found.profile == {
        "device": {"pc": 0.5, "tv": 0.5},
        "topic": {"x": 0.5, "y": 0.5},
        "tags": {"p": pytest.approx(2 / 3, abs=1e-6), "q": pytest.approx(1 / 3, abs=1e-6)},
    }


def test_a_day_that_is_different_warns_and_passes(tmp_path, caplog):
    write(tmp_path, [*STEADY[:2], [("c", "tv")] * 80])
    run = made(tmp_path, context=CONTEXT, item=ITEM)
    with caplog.at_level(logging.WARNING, "dssm_core.data.validate"):
        info = validated(run)
    assert [sentence.split(";")[0] for sentence in info["drift"]][:3] == [
        "drift: a day's number of rows must be within 50% of the mean of the days before, but this"
        " fails for 1 of 3 days (for example 2024-03-03: 1)",
        "drift: a day's share of rows with an item that the day before did not have must be within"
        " 0.2 of the mean of the days before, but this fails for 1 of 3 days (for example"
        " 2024-03-03: 1)",
        # p = (1, 0), q = (1/2, 1/2), as above
        "drift: the distribution of device on a day must be within 0.1 bits (Jensen-Shannon"
        " divergence) of the days before, but this fails for 1 of 3 days (for example"
        " 2024-03-03: 0.311)",
    ]
    assert [record.message for record in caplog.records] == info["drift"]
    assert info["broken_rules"] == []
    found = drift.load(run.step("validate_data"))
    # item c has no tags, no price and topic y: disjoint from a and b but for half of the topics
    assert [
        round(found.changes[f"features.{name}"][2], 3) for name in ("topic", "tags", "price")
    ] == [0.311, 1.0, 1.0]


@pytest.mark.parametrize("measure", ["volume", "new_items", "features"])
def test_a_warning_is_off_or_a_refusal_as_the_config_says(tmp_path, measure):
    write(tmp_path, [*STEADY[:2], [("c", "tv")] * 80])
    off = validated(made(tmp_path, {"warn": {measure: None}}, context=CONTEXT))["drift"]
    assert len(off) == 2
    assert not any(f"warn.{measure}" in sentence for sentence in off)
    strict = made(tmp_path, {"fail": {measure: 0.3}}, "strict", context=CONTEXT, item=ITEM[:1])
    execute(strict, "ingest_data")
    with pytest.raises(
        DataError,
        match=f"drift limit: .* must be within (0.3|30%) .* raise validation.drift.fail.{measure}",
    ):
        execute(strict, "validate_data")
    assert any(
        "drift" in page.name or "drift limit" in page.read_text()
        for page in (strict.failed("validate_data") / "data_docs").rglob("*.html")
    )


def test_limits_between_days_are_refused_where_there_are_none(tmp_path):
    raw = {
        "name": "t",
        "data": {"source": {"kind": "synthetic"}},
        "split": {"kind": "leave_one_out"},
        "evaluation": {"baselines": ["hot"]},
    }
    raw |= {"features": {"activity": {"enabled": False}}, "sampler": {"kind": "uniform"}}
    parse_config(raw)
    with pytest.raises(ConfigError, match="no days to compare"):
        parse_config(raw | {"validation": {"drift": {"fail": {"volume": 1}}}})


def test_two_windows_beside_each_other():
    one = drift.Drift([], [10, 20], [], {}, {"device": {"tv": 1.0}, "only": {"x": 1.0}})
    other = drift.Drift([], [20], [], {}, {"device": {"tv": 0.5, "pc": 0.5}})
    assert drift.compare_windows(one, other) == {"volume": 0.5, "columns": [["device", 0.3113]]}
    assert (
        json.dumps(drift.compare_windows(one, drift.Drift([], [], [], {}, {})))
        == '{"volume": null, "columns": []}'
    )
