"""The page: one file that loads nothing, says what is missing, and shows data as text."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import Member
from dssm_core.report import page as report
from dssm_core.report import parts, plots
from dssm_core.report.sections import quality, retrieval
from dssm_core.runs.run import note_origin

KEY = "recall@200"


def judged(run, **metrics):
    folder = run.step("recall_gate")
    folder.mkdir(exist_ok=True)
    scores = {KEY: 0.6, f"{KEY}_low": 0.5, f"{KEY}_high": 0.7}
    known = {
        "served": scores,
        "exact": scores,
        "baselines": {"hot": {KEY: 0.3}},
        "queries": {"warm": 2, "all": 4},
    }
    known |= {"parts": {"new_users": {**scores, "queries": 1}}}
    info = {"passed": False, "reasons": ["served <b>recall</b> is low"], "metrics": known | metrics}
    (folder / "gate.json").write_text(json.dumps(info))
    (folder / "curves.json").write_text(
        json.dumps({"served": {"mean": [0.1, 0.6], "error": [0.0, 0.1]}})
    )
    return folder


def written(run, gate):
    return report.write(run, gate, run.root / "report.html").read_text()


def section(page, title):
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def test_a_run_that_has_not_come_far_says_what_is_missing(fabricate, finish):
    run = fabricate()
    finish(
        run,
        "split_by_time",
        {"read": 14, "train": 6, "test": 7, "outside": 1},
        run.need("split_by_time").info,
    )
    page = written(run, run.step("recall_gate"))
    assert "The gate has not run yet." in page
    assert "the gate has not run yet" in section(page, "Recall")
    assert "run `dssm validate_data --run" in section(page, "Data")
    assert "run `dssm sample_negatives --run" in section(
        page, "Calibration of sampling probabilities"
    )
    assert "14 rows read = 6 train + 7 test + 1 outside" in section(page, "Steps")
    assert "train.learning_rate" in section(page, "Settings")


def test_the_report_says_which_positives_should_be_found(fabricate):
    run = fabricate()
    assert "split.relevant" not in section(written(run, judged(run)), "Recall")
    split = run.config.split.model_copy(update={"relevant": "event == 'purchase'"})
    run.__dict__["config"] = run.config.model_copy(update={"split": split})
    says = section(written(run, judged(run)), "Recall")
    assert "those with event == &#39;purchase&#39; should be found (split.relevant)" in says


def test_a_refusal_is_told_with_its_reasons_and_nothing_is_loaded(fabricate):
    run = fabricate()
    page = written(run, judged(run))
    assert "The gate did not pass" in page
    assert "served &lt;b&gt;recall&lt;/b&gt; is low" in page
    assert page.count("<script") == 1  # that of the template
    assert not re.findall(r"https?://|url\(|@import|<link", page)
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', page)
    )
    assert "there is no champion yet" in section(page, "Data since the champion")
    for title in ("Recall", "Slices", "Scores", "Index: recall against latency"):
        assert "<img" in section(page, title)
    assert "0.500 to 0.700" in section(page, "Recall")


def test_each_picture_has_its_data(fabricate):
    """As text that can be copied: MLflow shows the page in a frame that allows no downloads."""
    run = fabricate()
    page = written(run, judged(run))
    assert page.count("<img") == page.count('<pre tabindex="0">') > 3
    recall = section(page, "Recall").split('<pre tabindex="0">')[1].split("</pre>")[0]
    assert recall == "k,served,&#34;served, standard error&#34;\n1,0.1,0\n2,0.6,0.1\n"


def test_the_data_of_a_large_picture_are_some_of_its_rows():
    table = pd.DataFrame({"a": np.arange(50_001)})
    drawn = parts.picture("", table, lambda file: None)
    rows = drawn.csv.splitlines()
    assert (rows[1], rows[-1], len(rows)) == ("0", "50000", 1 + parts.CSV_ROWS)
    assert drawn.data == "Data of this picture (CSV, 5,000 of 50,001 rows)"


@pytest.mark.parametrize(
    ("refit", "start", "caption"),
    [
        (True, None, "; then both towers are trained on all training days, from new weights."),
        (
            True,
            "dssm-made/3",
            ", from the weights of dssm-made/3; then both towers are trained on all training days,"
            " from the weights of dssm-made/3 again.",
        ),
        (False, None, ", and the towers of the best epoch are kept (train.refit is off)."),
    ],
)
def test_the_caption_of_the_curve_says_what_was_trained(refit, start, caption):
    assert quality.phases(refit, start).endswith(f"on the last training days{caption}")


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ({"kind": "bce"}, "The loss bce corrects its logits"),
        ({"kind": "bce", "log_q": False}, "The loss bce does not correct"),
        ({"kind": "triplet"}, "The loss triplet does not correct"),
    ],
)
def test_the_loss_that_ran_is_explained(fabricate, loss, says):
    config = fabricate().config.model_copy(update={"loss": Member.model_validate(loss)})
    assert retrieval._use_of_probabilities(config).startswith(says)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "Airflow: Dag run manual__2024-03-07T00:00:00+00:00 of dssm_training</p>"),
        (
            "http://airflow/",
            '<a href="http://airflow/dags/dssm_training/runs/manual__2024-03-07T00%3A00%3A00%2B00'
            '%3A00" target="_blank" rel="noopener">',
        ),
    ],
)
def test_the_report_links_to_the_dag_run(fabricate, monkeypatch, address, says):
    """The address is that of when the report is written, not of when the run was made."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", address)
    run = fabricate()
    assert "Airflow" not in written(run, judged(run)).split("</nav>")[0]
    ids = {"airflow.dag_id": "dssm_training", "airflow.run_id": "manual__2024-03-07T00:00:00+00:00"}
    note_origin(run, ids)
    assert says in written(run, judged(run))


def test_the_champions_window_stands_beside_it(fabricate):
    run = fabricate()
    theirs = {
        KEY: 0.65,
        "version": "3",
        "parts": {},
        "drift": {
            "volume": -0.25,
            "unknown_items": 0.125,
            "columns": [["device", 0.5], ["os", 0.01]],
        },
    }
    page = written(run, judged(run, champion=theirs))
    told = section(page, "Data since the champion")
    assert re.findall(r">([-+.%\d]+)</td>", told) == ["-25.0%", "12.5%", "0.500", "0.010"]
    assert "champion, version 3" in section(page, "Recall")


def test_what_the_data_say_stays_text(fabricate):
    run = fabricate()
    evil = "<script>alert(1)</script>"
    folder = run.step("export_embeddings")
    pd.DataFrame({"item_id": [evil, "b", "c", "d"]}).to_parquet(folder / "item_ids.parquet")
    pd.DataFrame({"user_id": ["u<i>", "v", "w"]}).to_parquet(folder / "user_ids.parquet")
    for part in ("train", "test"):
        file = run.step("split_by_time") / f"{part}.parquet"
        frame = pd.read_parquet(file)
        frame["item_id"] = frame["item_id"].map({10: evil, 20: "b", 30: "c", 40: "d"}).fillna("x")
        frame["user_id"] = frame["user_id"].map({1: "u<i>", 2: "v", 3: "w"}).fillna("n")
        frame.to_parquet(file)
    page = written(run, judged(run))
    assert page.count("<script") == 1  # that of the template
    assert "u&lt;i&gt;" in section(page, "Users")
    assert "&lt;script&gt;" in section(page, "Nearest neighbours")
    assert re.findall("<mark>(.*?)</mark>", section(page, "Users"))


def test_a_part_that_breaks_costs_only_itself(fabricate, monkeypatch):
    run = fabricate()
    monkeypatch.setattr(plots, "intervals", lambda *_: 1 / 0)
    page = written(run, judged(run))
    assert "This section failed: division by zero" in section(page, "Slices")
    assert "<img" in section(page, "Recall")


@pytest.mark.parametrize("size", [1, 3])
def test_pictures_of_little_and_of_odd_names(tmp_path, size):
    """A dollar is no mathematics, a leading underscore hides nothing, one point is enough."""
    file, rng = tmp_path / "a.png", np.random.default_rng(0)
    names = ["$1 and $2", "_hidden", "plain" * 20][:size]
    drawn = [
        lambda: plots.plane(
            rng.normal(size=(size, 2)), np.array(names, dtype=object), "_$x$", file
        ),
        lambda: plots.plane(rng.normal(size=(size, 2)), np.arange(size, dtype=float), "age", file),
        lambda: plots.days(
            ["2024-03-01"] * size, [5] * size, dict.fromkeys(names, [None] * size), file
        ),
        lambda: plots.calibration(np.full(size, 1 / size), np.full(size, 1 / size), 10, file),
        lambda: plots.histograms({name: np.zeros(size) for name in ("a", "b")}, "cosine", file),
        lambda: plots.tradeoff([("flat", 1.0, 0.1, True), ("ivf", 0.5, 0.05, False)][:size], file),
        lambda: plots.intervals(
            [("a", [(0.5, 0.4, 0.6), None])] * size, ["one", "other"], KEY, file
        ),
    ]
    for draw in drawn:
        file.unlink(missing_ok=True)
        draw()
        assert file.read_bytes().startswith(b"\x89PNG")


def test_what_was_not_trained_on_is_said(fabricate, finish):
    run = fabricate()
    folder = run.step("train_towers")
    folder.mkdir(exist_ok=True)
    points = [{"step": 1, "phase": "select", "train_loss": 2.0}]
    (folder / "history.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    few = "1 of 4 positives of the training set are training events; 3 are of no use"
    info = {"best_epoch": 4, "left_out": {"of no use": 3}, "notes": ["raise train.epochs", few]}
    finish(run, "train_towers", {"events": 1, "steps": 1}, info)
    text = section(written(run, judged(run)), "Training")
    assert "raise train.epochs" in text
    assert text.count(few) == 1
    finish(run, "train_towers", {"events": 1, "steps": 1}, {"best_epoch": 4})  # of an older version
    assert "epochs: 4" in section(written(run, judged(run)), "Training")
