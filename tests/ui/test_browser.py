"""What a person sees: the trigger form in Airflow, the run and the comparison in MLflow. Screenshots are for the README."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import REPO, complete, wait_until

pytestmark = pytest.mark.ui
DAG = "dssm_training"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def shots() -> Path:
    folder = Path(os.environ.get("DSSM_SCREENSHOTS", REPO / "docs" / "images"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=chromium, args=FLAGS, viewport={"width": 1400, "height": 900}
        )
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield context.new_page()
        context.close()


@pytest.fixture(scope="module")
def airflow(site):
    client = site.airflow()
    wait_until(lambda: client.knows(DAG, "small"), "the Dag is parsed")
    return client


def log_in(page: Page, site) -> None:
    page.goto(f"{site.airflow_url}/dags/{DAG}")
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(site.settings["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name=DAG)).to_be_visible()


def trigger_in_form(page: Page, shots: Path, epochs: int) -> None:
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="Run", exact=True).click()
    choose(page, form, "config", "small")
    form.get_by_role("button", name="Model", exact=True).click()
    form.locator("input[name=element_epochs]").fill(str(epochs))
    form.locator("input[name=element_epochs]").press("Tab")
    page.wait_for_timeout(1000)  # the section's animation
    page.screenshot(path=shots / "airflow-form.png")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(form).to_be_hidden()


def choose(page: Page, form, field: str, value: str) -> None:
    """Pick from one of the form's drop-downs, if the field holds something else."""
    if form.locator(f"input[name=element_{field}]").input_value() != value:
        form.locator(f"div:has(> input[name=element_{field}])").first.click()
        page.get_by_role("option", name=value, exact=True).click()


def newest(airflow) -> str | None:
    runs = airflow.get(f"dags/{DAG}/dagRuns", order_by="-run_after", limit=1)["dag_runs"]
    return runs[0]["dag_run_id"] if runs else None


def succeed(airflow, run_id) -> tuple[str, str]:
    """Wait for a run; returns the address of its MLflow run, and that run's id."""
    assert complete(airflow, run_id) == "success"
    link = airflow.xcom(DAG, run_id, "train_towers", "mlflow_run")
    return link, link.rstrip("/").rpartition("/")[2]


@pytest.mark.timeout(1500)
def test_a_run_from_the_form_is_seen_and_compared(page, site, airflow, shots):
    known = newest(airflow)
    log_in(page, site)
    trigger_in_form(page, shots, epochs=3)
    run_id = wait_until(lambda: (found := newest(airflow)) != known and found, "the form's run appears")
    assert airflow.get(f"dags/{DAG}/dagRuns/{run_id}")["conf"]["epochs"] == 3
    first, first_id = succeed(airflow, run_id)
    show_graph(page, site, run_id, shots)
    show_run(page, first, shots)
    _, second_id = succeed(airflow, airflow.trigger(DAG, {"config": "small", "epochs": 2, "seed": 43}))
    show_comparison(page, site, first, [first_id, second_id], shots)


def show_graph(page: Page, site, run_id: str, shots: Path) -> None:
    page.goto(f"{site.airflow_url}/dags/{DAG}/runs/{quote(run_id)}")
    page.evaluate("localStorage.setItem('default_dag_view', JSON.stringify('graph'))")
    page.reload()
    expect(page.get_by_text("register_model").first).to_be_visible()
    page.wait_for_timeout(3000)  # the graph's layout
    page.screenshot(path=shots / "airflow-graph.png")
    page.goto(f"{site.airflow_url}/dags/{DAG}/runs/{quote(run_id)}/tasks/train_towers/details")
    button = page.get_by_role("link", name="MLflow run")
    expect(button).to_be_visible()
    page.screenshot(path=shots / "airflow-mlflow-button.png")


def show_run(page: Page, link: str, shots: Path) -> None:
    """The run's page in MLflow: the verdict, and the parameter that was changed in the form."""
    page.goto(link)
    row = page.get_by_role("row").filter(has=page.get_by_text("train.epochs", exact=True))
    expect(row).to_be_visible()
    expect(row.get_by_text("3", exact=True)).to_be_visible()
    close_assistant(page)
    page.screenshot(path=shots / "mlflow-run.png")
    row.scroll_into_view_if_needed()
    page.screenshot(path=shots / "mlflow-parameter.png")


def close_assistant(page: Page) -> None:
    """The chat panel that MLflow opens beside its pages takes a quarter of the picture."""
    page.wait_for_timeout(2000)
    close = page.get_by_role("button", name="Close", exact=True)
    if close.count():
        close.first.click()
    page.wait_for_timeout(1000)


def show_comparison(page: Page, site, link: str, runs: list[str], shots: Path) -> None:
    experiment = link.partition("/experiments/")[2].partition("/")[0]
    page.goto(f"{site.mlflow_url}/#/compare-runs?runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}")
    expect(page.get_by_text("Comparing 2 Runs").first).to_be_visible()
    expect(page.locator("body")).to_contain_text("train.epochs")
    page.wait_for_timeout(2000)
    page.screenshot(path=shots / "mlflow-compare.png", full_page=True)
