"""What a person sees and does in the browser, in the order of the first days: form, run, review,
report, the next day's review, comparison, sweep.
"""

from __future__ import annotations

import json
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

from dssm_core.runs.run import open_run
from tests.conftest import ANSWER_AFTER_S, TRAINING, complete, wait_until

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1200)]
SWEEP = "dssm_sweep"
MODEL = "dssm-small"
KEY = "recall@200"
REASON = "The first one, and well above recent-hot"
TRIALS = [
    f"loss={loss}, sampler={sampler}"
    for loss in ("sampled_softmax", "bce")
    for sampler in ("active", "popularity")
]


@pytest.fixture(scope="module")
def first(page, site, airflow, shot) -> str:
    """The id of a run that was started in the form and waits for its review."""
    before = newest(airflow)
    page.goto(f"{site.airflow_url}/dags/{TRAINING}")
    trigger_in_form(page, shot, epochs=3)
    run_id = wait_until(
        lambda: (run := newest(airflow)) != before and run, "the run of the form appears"
    )
    return settled(airflow, run_id)


@pytest.fixture(scope="module")
def promoted(page, site, airflow, first, shot) -> str:
    """The first run, made champion in the browser."""
    time.sleep(ANSWER_AFTER_S)
    answer_in_dialog(page, run_page(site, first), "Promote", REASON, shot)
    assert complete(airflow, first, "Promote", REASON) == "success"
    return first


@pytest.fixture(scope="module")
def sweep(airflow) -> str:
    return airflow.trigger(
        SWEEP,
        {
            "config": "swept",
            "epochs": 1,
            "seed": 11,
            "axes": ["loss=sampled_softmax,bce", "sampler=active,popularity"],
        },
    )


@pytest.fixture(scope="module")
def second(airflow, promoted, sweep) -> str:
    """The id of a run whose champion is the first run's model; the sweep runs at the same time."""
    return settled(airflow, airflow.trigger(TRAINING, {"config": "small", "epochs": 2, "seed": 43}))


def newest(airflow) -> str | None:
    runs = airflow.get(f"dags/{TRAINING}/dagRuns", order_by="-run_after", limit=1)["dag_runs"]
    return runs[0]["dag_run_id"] if runs else None


def settled(airflow, run_id: str) -> str:
    """Wait until a run has ended or waits for its review, and return its id."""
    wait_until(lambda: airflow.settled(TRAINING, run_id), f"{run_id} waits for its review")
    return run_id


def run_page(site, run_id: str, dag: str = TRAINING) -> str:
    return f"{site.airflow_url}/dags/{dag}/runs/{quote(run_id)}"


def folder(airflow, run_id: str):
    """The run's folder, and the metrics of its gate."""
    run = open_run(airflow.xcom(TRAINING, run_id, "ingest_data"))
    return run, run.need("recall_gate").info["metrics"]


def link(airflow, run_id: str, task: str = "train_towers", key: str = "mlflow_run") -> str:
    return airflow.xcom(TRAINING, run_id, task, key)


def version_of(airflow, run_id: str) -> str:
    """The version that a run registered."""
    return str(airflow.xcom(TRAINING, run_id, "register_model", "review")["version"])


def mlflow_id(airflow, run_id: str) -> str:
    return link(airflow, run_id).rstrip("/").rpartition("/")[2]


def row(parent: Page | Locator, first_cell: str) -> list[str]:
    """The texts of the cells that follow the first cell of a table's row, in the first such row."""
    cell = parent.get_by_role("cell", name=first_cell, exact=True)
    expect(cell.first).to_be_visible()
    row = parent.get_by_role("row").filter(has=cell).first
    return row.get_by_role("cell").all_inner_texts()[1:]


def trigger_in_form(page: Page, shot, epochs: int) -> None:
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    choose(page, form, "config", "small")
    form.get_by_role("button", name="Model", exact=True).click()
    form.locator("input[name=element_epochs]").fill(str(epochs))
    form.locator("input[name=element_epochs]").press("Tab")
    shot("airflow-form.png")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(form).to_be_hidden()


def choose(page: Page, form, field: str, value: str) -> None:
    """Choose a value of a drop-down of the form, if the field holds another one."""
    if form.locator(f"input[name=element_{field}]").input_value() != value:
        form.locator(f"div:has(> input[name=element_{field}])").first.click()
        page.get_by_role("option", name=value, exact=True).click()


def answer_in_dialog(page: Page, run: str, option: str, reason: str, shot) -> None:
    """Follow "Required Actions" on the run's page, give a reason, and press a button."""
    page.goto(run)
    page.get_by_role("link", name="Required Actions").or_(
        page.get_by_role("button", name="Required Actions")
    ).first.click()
    dialog = page.get_by_role("dialog")
    press = dialog.get_by_role("button", name=option, exact=True)
    expect(press).to_be_disabled()
    dialog.locator("input[name=element_reason]").fill(reason)
    shot("airflow-required-action.png")
    press.click()
    expect(dialog.get_by_text("Pending required actions (0)")).to_be_visible()


def test_the_form_starts_a_run_that_waits_for_a_person(page, site, airflow, first, shot):
    assert airflow.get(f"dags/{TRAINING}/dagRuns/{first}")["conf"]["epochs"] == 3
    assert airflow.tasks(TRAINING, first)["review"]["state"] == "awaiting_input"
    page.goto(run_page(site, first))
    page.evaluate("localStorage.setItem('default_dag_view', JSON.stringify('graph'))")
    page.reload()
    expect(page.get_by_text("register_model").first).to_be_visible()
    shot("airflow-graph.png", settle_ms=3000)
    page.evaluate("localStorage.setItem('default_dag_view', JSON.stringify('grid'))")


def test_the_first_review_compares_the_challenger_with_the_baselines(
    page, site, airflow, first, shot
):
    _, metrics = folder(airflow, first)
    page.goto(f"{run_page(site, first)}/tasks/review/required_actions")
    served = f"recall@200 {metrics['served'][KEY]:.3f}"
    subject = f"Promote {MODEL} v{version_of(airflow, first)} (2024-03-07)? {served}"
    expect(page.get_by_text(subject)).to_be_visible()
    assert row(page, "challenger")[0].startswith(f"{metrics['served'][KEY]:.3f} (")
    for name, scores in metrics["baselines"].items():
        assert row(page, f"baseline {name}")[0].startswith(f"{scores[KEY]:.3f} (")
    assert row(page, f"long tail ({metrics['parts']['tail_items']['queries']:,})")
    expect(page.get_by_role("listitem").filter(has_text="at least the floor")).to_be_visible()
    shot("airflow-review-first.png", height=1250)


def test_a_person_promotes_with_a_reason_in_the_browser(
    page, site, airflow, mlflow, promoted, shot
):
    answer = airflow.get(f"dags/{TRAINING}/dagRuns/{promoted}/taskInstances/review/-1/hitlDetails")
    assert (answer["chosen_options"], answer["params_input"]["reason"]) == (["Promote"], REASON)
    version = version_of(airflow, promoted)
    assert str(mlflow.get_model_version_by_alias(MODEL, "champion").version) == version
    tags = mlflow.get_model_version(MODEL, version).tags
    decision = json.loads(tags["dssm.decision"])
    assert (decision["by"], decision["reason"]) == ("admin", REASON)
    page.goto(f"{run_page(site, promoted)}/tasks/review/required_actions")
    expect(page.get_by_text("from admin")).to_be_visible()
    page.goto(f"{site.mlflow_url}/#/models/{MODEL}/versions/{version}")
    expect(page.get_by_text(REASON).first).to_be_visible()
    close_assistant(page)
    shot("mlflow-version.png")


def test_buttons_lead_to_the_run_and_to_its_report(page, site, airflow, promoted, shot):
    page.goto(f"{run_page(site, promoted)}/tasks/train_towers/details")
    expect(page.get_by_role("link", name="MLflow run")).to_have_attribute(
        "href", link(airflow, promoted)
    )
    shot("airflow-mlflow-button.png")
    page.goto(f"{run_page(site, promoted)}/tasks/recall_gate/details")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report", exact=True).click()
    assert opened.value.url == link(airflow, promoted, "recall_gate", "report")
    report = opened.value.frame_locator("iframe")
    expect(report.get_by_text("The gate passed: the model may be registered.")).to_be_visible()
    expect(report.get_by_alt_text("Bands: 95 % intervals").first).to_be_visible()
    opened.value.close()
    shot("airflow-report-button.png")


def test_the_report_opens_in_mlflow_and_as_a_file(page, airflow, promoted, shot):
    run, metrics = folder(airflow, promoted)
    page.goto(link(airflow, promoted, "recall_gate", "report"))
    expect(
        page.frame_locator("iframe").get_by_role("heading", name="Recall", exact=True)
    ).to_be_visible()
    close_assistant(page)
    shot("mlflow-report.png")
    page.goto((run.step("recall_gate") / "report.html").as_uri())
    expect(page.get_by_text("Nothing to show")).to_have_count(0 if "champion" in metrics else 1)
    expect(page.get_by_text("This section failed")).to_have_count(0)
    assert row(page, "served index")[2] == f"{metrics['served'][KEY]:.3f}"
    assert all(
        page.locator("img").evaluate_all(
            "pictures => pictures.map(picture => picture.naturalWidth > 300)"
        )
    )
    shot("report-page.png", full_page=True)


def test_the_page_of_the_run_in_mlflow_shows_the_settings_of_the_form(
    page, airflow, promoted, shot
):
    page.goto(link(airflow, promoted))
    setting = page.get_by_role("row").filter(has=page.get_by_text("train.epochs", exact=True))
    expect(setting.get_by_text("3", exact=True)).to_be_visible()
    close_assistant(page)
    shot("mlflow-run.png")
    setting.scroll_into_view_if_needed()
    shot("mlflow-parameter.png")


def close_assistant(page: Page) -> None:
    """Close the chat panel that MLflow opens beside its pages, which hides a quarter of them."""
    page.wait_for_timeout(2000)
    close = page.get_by_role("button", name="Close", exact=True)
    if close.count():
        close.first.click()
    page.wait_for_timeout(1000)


def test_the_next_review_compares_the_challenger_with_the_champion(
    page, site, airflow, second, shot
):
    _, metrics = folder(airflow, second)
    champion = metrics["champion"]["version"]
    page.goto(f"{run_page(site, second)}/tasks/review/required_actions")
    expect(page.get_by_text(f"against champion version {champion}")).to_be_visible()
    assert row(page, f"champion {champion}")[0].startswith(f"{metrics['champion'][KEY]:.3f} (")
    theirs = metrics["champion"]["parts"]["tail_items"][KEY]
    assert row(page, f"long tail ({metrics['parts']['tail_items']['queries']:,})")[1].startswith(
        f"{theirs:.3f} ("
    )
    assert row(page, "train rows")[1].endswith("(+0% since)")
    expect(
        page.get_by_role("listitem").filter(has_text=f"no worse than champion version {champion}")
    ).to_be_visible()
    expect(page.get_by_role("link", name="Report", exact=True)).to_have_attribute(
        "href", link(airflow, second, "recall_gate", "report")
    )
    shot("airflow-review.png", height=1400)
    assert complete(airflow, second) == "success"


def test_the_note_of_a_run_is_its_outcome(page, site, airflow, promoted, second):
    """`second` has ended: its review was answered."""
    note = airflow.get(f"dags/{TRAINING}/dagRuns/{second}")["note"]
    assert note.startswith(f"keep v{version_of(airflow, second)}, decided by admin: ")
    assert note.endswith(f"; champion is v{version_of(airflow, promoted)}")
    page.goto(run_page(site, second))
    expect(page.get_by_text(note).first).to_be_visible()


def test_the_page_retrieval_says_who_is_champion(page, site, airflow, promoted, second, shot):
    page.goto(f"{site.airflow_url}/plugin/retrieval")
    frame = page.frame_locator("iframe")
    version = version_of(airflow, promoted)
    expect(frame.get_by_text(f"Version {version} is champion").first).to_be_visible()
    expect(frame.get_by_text("Drift on 2024-03-07").first).to_be_visible()
    expect(frame.get_by_role("img", name="Recall by test day").first).to_be_visible()
    shot("airflow-retrieval.png")


def test_the_data_checks_open_behind_their_button(page, site, airflow, promoted, shot):
    page.goto(f"{run_page(site, promoted)}/tasks/validate_data/details")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Data checks", exact=True).click()
    checks = opened.value.frame_locator("iframe")
    expect(checks.get_by_text("The log was accepted.")).to_be_visible()
    expect(checks.get_by_role("heading", name="Quarantine")).to_be_visible()
    opened.value.close()


def test_the_tabs_in_airflow_list_the_results_of_the_runs(
    page, site, airflow, mlflow, promoted, second, shot
):
    dag_page = f"{site.airflow_url}/dags/{TRAINING}"
    for picture, address, runs in (
        ("runs", dag_page, (promoted, second)),
        ("run", run_page(site, second), (second,)),
    ):
        page.goto(address)
        page.get_by_role("link", name="MLflow runs").click()
        tab = page.frame_locator("iframe")
        for run_id in runs:
            run, metrics = folder(airflow, run_id)
            name = mlflow.get_run(mlflow_id(airflow, run_id)).info.run_name
            cells = row(tab, name)
            assert cells[:5] == [
                "Report",
                run.config.split.title,
                "finished",
                "passed",
                f"{metrics['served'][KEY]:.3f}",
            ]
        expect(
            tab.get_by_text(
                f"no worse than champion version {metrics['champion']['version']}"
            ).first
        ).to_be_visible()
        shot(f"airflow-mlflow-{picture}.png")
    with page.expect_popup() as opened:
        tab.get_by_role("link", name=name, exact=True).click()
    assert opened.value.url == link(airflow, second)
    opened.value.close()


def compare(page: Page, site, runs: list) -> None:
    """Open the page that MLflow's button Compare opens for these runs."""
    ids = [run.info.run_id for run in runs]
    experiment = runs[0].info.experiment_id
    page.goto(
        f"{site.mlflow_url}/#/compare-runs?runs={quote(json.dumps(ids))}&experiments={quote(json.dumps([experiment]))}"
    )
    expect(page.get_by_text(f"Comparing {len(runs)} Runs").first).to_be_visible()


def test_two_runs_side_by_side_in_mlflow(page, site, airflow, mlflow, promoted, second, shot):
    compare(
        page, site, [mlflow.get_run(mlflow_id(airflow, run_id)) for run_id in (promoted, second)]
    )
    expect(page.locator("body")).to_contain_text("train.epochs")
    shot("mlflow-compare.png", full_page=True)


def plot_by(page: Page, metric: str) -> None:
    """Replace the metric that MLflow chose for the parallel coordinates."""
    metrics = page.get_by_role("combobox").nth(1)  # the first holds the parameters
    metrics.click(force=True)  # the chosen metric covers it
    page.keyboard.press("Backspace")
    page.keyboard.type(metric)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(metrics).to_have_attribute("aria-description", metric)


def test_the_trials_of_a_sweep_have_names_in_airflow_and_are_compared_in_mlflow(
    page, site, airflow, mlflow, sweep, shot
):
    wait_until(lambda: airflow.state(SWEEP, sweep) in ("success", "failed"), "the sweep ends")
    assert airflow.state(SWEEP, sweep) == "success"
    page.goto(f"{run_page(site, sweep, SWEEP)}/tasks/trial.train_towers/mapped")
    for label in TRIALS:
        expect(page.get_by_role("link", name=label, exact=True)).to_be_visible()
    shot("airflow-sweep.png")
    parent, trials = sweep_in_mlflow(mlflow, sweep)
    assert sorted(run.info.run_name for run in trials) == sorted(TRIALS)
    assert {run.info.status for run in (parent, *trials)} == {"FINISHED"}
    page.goto(
        f"{site.mlflow_url}/#/experiments/{parent.info.experiment_id}/runs/{parent.info.run_id}"
    )
    for label in TRIALS:
        expect(page.get_by_role("link", name=label, exact=True)).to_be_visible()
    close_assistant(page)
    shot("mlflow-sweep.png")
    compare(page, site, trials)
    close_assistant(page)
    plot_by(page, "headline/recall_at_200")
    shot("mlflow-sweep-compare.png", settle_ms=3000)


def sweep_in_mlflow(mlflow, sweep: str):
    """The MLflow run of a sweep, which holds files, and the runs of its trials."""
    experiment = mlflow.get_experiment_by_name("swept").experiment_id
    (parent,) = mlflow.search_runs([experiment], f"tags.`dssm.sweep` = '{sweep}'")
    assert mlflow.list_artifacts(parent.info.run_id)
    return parent, mlflow.search_runs(
        [experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
