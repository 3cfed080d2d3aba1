"""The review's Markdown, from made-up manifests: what stands beside what."""

from dssm_core.operation import review
from dssm_core.report.text import markdown_table

KEY = "recall@200"


def scores(value, low=None, high=None):
    return {
        KEY: value,
        f"{KEY}_low": low,
        f"{KEY}_high": high,
        "ndcg@200": value / 2,
        "coverage@200": 0.25,
    }


class Store:
    """A registered model by hand."""

    def __init__(self, champion=None, tags=None):
        self.champion, self.all = champion, {champion: tags or {}}

    def aliases(self):
        return {"champion": self.champion} if self.champion else {}

    def tags(self, version):
        return self.all[version]


def registered(fabricate, finish, champion=None):
    run = fabricate()
    metrics = {
        "served": scores(0.6, 0.58, 0.62),
        "exact": {KEY: 0.61},
        "baselines": {"hot": {KEY: 0.3}},
    }
    metrics["parts"] = {"new_users": {**scores(0.2, 0.1, 0.3), "queries": 1200}}
    if champion:
        metrics["champion"] = {
            **scores(0.55, 0.5, 0.6),
            "version": champion,
            "parts": {"new_users": {**scores(0.25), "queries": 1200}},
        }
    finish(
        run, "recall_gate", info={"passed": True, "reasons": ["served is fine"], "metrics": metrics}
    )
    finish(run, "register_model", info={"model": "dssm-made", "version": "4"})
    return run


def rows(text):
    """First cell -> the others."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    return {first: others for first, *others in cells}


def test_the_first_version_stands_against_the_baselines_alone(fabricate, finish):
    text = review.body(registered(fabricate, finish), Store())
    assert text.startswith(
        "**dssm-made version 4**, tested on 2024-01-07: there is no champion yet\n\n"
        "| the same queries | recall@200 | gain of served, paired interval |\n"
    )
    assert "- served is fine\n\n|" in text
    found = rows(text)
    assert found["the same queries"] == [KEY, "ndcg@200", "coverage@200"]
    assert found["challenger"] == ["0.600 (0.580 to 0.620)", "0.300", "0.250"]
    assert found["exact search"] == ["0.610", "", ""]
    assert found["baseline hot"] == ["0.300", "", ""]
    assert found["train rows"] == ["6"]
    assert found["new users (1,200)"] == ["0.200 (0.100 to 0.300)"]
    assert text.count("champion") == 1


def test_the_subject_has_the_numbers_that_decide(fabricate, finish):
    run = registered(fabricate, finish, "3")
    assert review.subject(run, Store("3")) == (
        "Promote dssm-made v4 (2024-01-07)? recall@200 0.600, champion 0.550"
    )
    assert review.subject(run, Store("5")).endswith("recall@200 0.600, champion not measured")
    assert review.subject(run, Store()).endswith("? recall@200 0.600")


def test_the_champion_stands_beside_it(fabricate, finish):
    store = Store(
        "3", {"dssm.test_day": "2024-01-06", "dssm.rows.train": "5", "dssm.rows.test": "8"}
    )
    text = review.body(registered(fabricate, finish, "3"), store)
    assert "against champion version 3, tested on 2024-01-06\n" in text
    found = rows(text)
    assert found["challenger"] == ["0.600 (0.580 to 0.620)", "0.300", "0.250"]
    assert found["champion 3"] == ["0.550 (0.500 to 0.600)", "0.275", "0.250"]
    assert found["train rows"] == ["6", "5 (+20% since)"]
    assert found["test rows"] == ["7", "8 (-12% since)"]
    assert found["new users (1,200)"] == ["0.200 (0.100 to 0.300)", "0.250"]


def test_newcomers_and_refreshes_have_columns_of_their_own(fabricate, finish):
    run = registered(fabricate, finish, "3")
    info = run.need("recall_gate").info
    info["metrics"]["all"] = {
        "served": scores(0.4),
        "exact": scores(0.41),
        "baselines": {"hot": scores(0.2)},
    }
    info["metrics"]["rolling"] = {
        "refresh_h": 2,
        "warm": {"served": scores(0.7), "exact": scores(0.71), "baselines": {"hot": scores(0.5)}},
    }
    info["metrics"]["champion"]["rolling"] = scores(0.65, 0.6, 0.7)
    finish(run, "recall_gate", info=info)
    found = rows(review.body(run, Store("3")))
    assert found["the same queries"] == [
        KEY,
        "refreshed every 2 h",
        "with new users and items",
        "ndcg@200",
        "coverage@200",
    ]
    assert found["challenger"] == ["0.600 (0.580 to 0.620)", "0.700", "0.400", "0.300", "0.250"]
    assert found["champion 3"] == [
        "0.550 (0.500 to 0.600)",
        "0.650 (0.600 to 0.700)",
        "",
        "0.275",
        "0.250",
    ]
    assert found["baseline hot"] == ["0.300", "0.500", "0.200", "", ""]


def test_where_to_look_further_is_linked(fabricate, finish):
    text = review.body(
        registered(fabricate, finish), Store(), {"Report": "http://a/r", "MLflow run": "http://a"}
    )
    assert "\n\n[Report](http://a/r) · [MLflow run](http://a)\n\n" in text


def test_drift_from_the_champions_window_is_told(fabricate, finish):
    run = registered(fabricate, finish, "3")
    info = run.need("recall_gate").info
    since = {"volume": 0.2, "unknown_items": 0.05, "columns": [["a|b", 0.01], ["os", 0.3]]}
    info["metrics"]["champion"]["drift"] = since
    finish(run, "recall_gate", info=info)
    finish(run, "build_index", info={"queries_per_s": 20_000.0})
    found = rows(review.body(run, Store("3")))
    assert found["rows of the window against the champion's"] == ["+20.0%", ""]
    assert found["clicks on items the champion does not know"] == ["5.0%", ""]
    assert found["drift of os since the champion's window, bits"] == ["0.300", ""]
    assert found["drift of a/b since the champion's window, bits"] == ["0.010", ""]
    assert found["index, ms per query"] == ["0.050", ""]


def test_a_champion_of_after_the_gate_was_not_asked(fabricate, finish):
    text = review.body(registered(fabricate, finish, "2"), Store("3"))
    assert (
        "against champion version 3, tested on ?"
        " (promoted after the gate, not measured on the same queries)" in text
    )
    assert rows(text)["champion 3"] == ["", "", ""]
    assert rows(text)["new users (1,200)"] == ["0.200 (0.100 to 0.300)", ""]


def test_a_review_says_that_the_champion_is_not_comparable(fabricate, finish):
    run = registered(fabricate, finish, "3")
    info = run.need("recall_gate").info
    info["metrics"]["champion"] = {"version": "3", "not_comparable": "why", KEY: None}
    finish(run, "recall_gate", info=info)
    text = review.body(run, Store("3"))
    assert "against champion version 3, tested on ? (not comparable: why)" in text
    assert "| champion version 3 | not comparable |  |" in text
    assert review.subject(run, Store("3")).endswith("champion not comparable")


def test_a_review_does_not_compare_with_a_champion_of_before(fabricate, finish):
    text = review.body(registered(fabricate, finish, "2"), Store("3"))
    assert "champion version 2" not in text.partition("\n- ")[0]


def test_names_of_a_log_are_text_in_a_table():
    table = markdown_table(("what", "a|b"), [("<img src=x onerror=alert(1)>", "two\nlines")])
    assert table.splitlines() == [
        "| what | a\\|b |",
        "| --- | --- |",
        "| &lt;img src=x onerror=alert(1)&gt; | two lines |",
    ]
