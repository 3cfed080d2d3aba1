"""No link of the plugin's pages, of the buttons on tasks and of the texts of Dags leads to a page
that does not exist or is empty.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import Page, expect

from dssm_core.runs.layout import REPORT_FILE
from dssm_core.runs.run import open_run
from tests.conftest import TRAINING, complete

pytestmark = [pytest.mark.ui, pytest.mark.timeout(1200)]
FAULTS = re.compile("Not Found|notFound|Invalid URL|Something went wrong")
IDS = re.compile(r"[0-9a-f]{32}|(?<=/)[0-9]+")
# Of a page that is not empty: an MLflow page has about 500 around what it shows, Airflow's 60.
MLFLOW_LETTERS, AIRFLOW_LETTERS = 600, 100


@pytest.fixture(scope="module")
def run_id(airflow) -> str:
    """The id of a training that has ended well."""
    ended = airflow.get(f"dags/{TRAINING}/dagRuns", state="success", order_by="-run_after", limit=1)
    if ended["dag_runs"]:
        return ended["dag_runs"][0]["dag_run_id"]
    started = airflow.trigger(TRAINING, {"config": "small", "epochs": 1})
    assert complete(airflow, started) == "success"
    return started


def get(address: str, page: Page) -> httpx.Response:
    """The answer to a request with the cookies of the browser."""
    cookies = {each["name"]: each["value"] for each in page.context.cookies()}
    return httpx.get(address, cookies=cookies, timeout=60, trust_env=False, follow_redirects=True)


def links_of_pages(site, page: Page, run_id: str) -> set[str]:
    """All links on the plugin's pages."""
    links = set()
    for path in ("overview", f"runs?dag_id={TRAINING}", f"runs?dag_id={TRAINING}&run_id={run_id}"):
        address = f"{site.airflow_url}/dssm/{path.replace('+', '%2B')}"
        answer = get(address, page)
        assert answer.status_code == 200
        links |= {urljoin(address, href) for href in re.findall(r'href="([^"]+)"', answer.text)}
    return links


def links_of_tasks(airflow, run_id: str) -> set[str]:
    """The addresses of all buttons on the tasks of a run."""
    path = f"dags/{TRAINING}/dagRuns/{run_id}/taskInstances"
    tasks = airflow.tasks(TRAINING, run_id)
    buttons = [airflow.get(f"{path}/{task}/links")["extra_links"].items() for task in tasks]
    # A task that was skipped has pushed no address.
    links = [(name, address) for each in buttons for name, address in each if address]
    assert {name for name, _ in links} == {"MLflow run", "Data checks", "Report"}
    return {address for _, address in links}


def links_of_texts(site, airflow) -> set[str]:
    """The links in the documentation and the forms of all Dags."""
    links = set()
    for dag in airflow.get("dags")["dags"]:
        details = airflow.get(f"dags/{dag['dag_id']}/details")
        schemas = [each["schema"] for each in details["params"].values()]
        texts = [details["doc_md"], *(schema["description_md"] for schema in schemas)]
        links |= {link for text in texts for link in re.findall(r"\]\((\S+?)\)", text or "")}
    return {urljoin(site.airflow_url, link) for link in links}


def links_of_descriptions(site, airflow, mlflow, run_id: str) -> set[str]:
    """The links in what MLflow says of a run and of its version, and in the run's report."""
    review = airflow.xcom(TRAINING, run_id, "register_model", "review")
    version = mlflow.get_model_version(review["model"], review["version"])
    texts = [mlflow.get_run(version.run_id).data.tags["mlflow.note.content"], version.description]
    links = [link for text in texts for link in re.findall(r"\]\((\S+)\)", text)]
    run = open_run(airflow.xcom(TRAINING, run_id, "ingest_data"))
    report = (run.step("recall_gate") / REPORT_FILE).read_text()
    links += [href for href in re.findall(r'href="([^"]+)"', report) if not href.startswith("#")]
    assert len(links) == 7  # twice: report, data checks, Dag run; the report's own: Dag run
    return {urljoin(f"{site.mlflow_url}/", link) for link in links}


def text_of(page: Page, address: str, letters: int) -> str:
    """What a person reads on a page, also in its frames, once it has this many letters.

    AssertionError if it has fewer after 20 s.
    """
    page.goto("about:blank")  # MLflow's addresses differ only after the #
    page.goto(address)
    for _ in range(80):
        text = " ".join(frame.locator("body").inner_text() for frame in page.frames)
        if len(text) >= letters:
            return text
        page.wait_for_timeout(250)
    raise AssertionError(f"{address} shows only {text!r}")


def test_every_link_leads_to_a_page_with_content(page, site, airflow, mlflow, run_id):
    links = links_of_pages(site, page, run_id) | links_of_tasks(airflow, run_id)
    links |= links_of_texts(site, airflow) | links_of_descriptions(site, airflow, mlflow, run_id)
    assert f"{site.airflow_url}/plugin/retrieval" in links
    # One of each kind: runs and versions differ by their ids only.
    kinds = {IDS.sub("ID", link): link for link in sorted(links)}
    for link in kinds.values():
        assert get(link, page).status_code == 200, link
        of_mlflow = link.startswith(site.mlflow_url)
        text = text_of(page, link, MLFLOW_LETTERS if of_mlflow else AIRFLOW_LETTERS)
        assert not FAULTS.search(text), (link, text[:1000])


def test_the_sections_of_a_report_are_reached_in_mlflow(page, airflow, run_id):
    """MLflow shows it in a frame that does not follow links to a part of the page."""
    task = f"dags/{TRAINING}/dagRuns/{run_id}/taskInstances/recall_gate"
    page.goto(airflow.get(f"{task}/links")["extra_links"]["Report"])
    report = page.frame_locator("iframe")
    report.get_by_role("link", name="Settings", exact=True).click()
    expect(report.get_by_text(re.compile(r"All \d+ settings"))).to_be_in_viewport()


def test_the_page_retrieval_is_used_by_keyboard(page, site, run_id):
    page.goto(f"{site.airflow_url}/plugin/retrieval")
    link = page.frame_locator("iframe").get_by_role("link").first
    link.focus()
    with page.expect_popup() as opened:
        page.keyboard.press("Enter")
    opened.value.close()
