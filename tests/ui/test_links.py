"""No link of the plugin's pages, of the buttons on tasks and of the texts of Dags leads to a page
that does not exist or is empty.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx
import pytest
from playwright.sync_api import Page

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
    buttons = [airflow.get(f"{path}/{task}/links")["extra_links"] for task in tasks]
    assert {name for each in buttons for name in each} == {"MLflow run", "Data checks", "Report"}
    assert all(address for each in buttons for address in each.values())
    return {address for each in buttons for address in each.values()}


def links_of_texts(site, airflow) -> set[str]:
    """The links in the documentation and the forms of all Dags."""
    links = set()
    for dag in airflow.get("dags")["dags"]:
        details = airflow.get(f"dags/{dag['dag_id']}/details")
        schemas = [each["schema"] for each in details["params"].values()]
        texts = [details["doc_md"], *(schema["description_md"] for schema in schemas)]
        links |= {link for text in texts for link in re.findall(r"\]\((\S+?)\)", text or "")}
    return {urljoin(site.airflow_url, link) for link in links}


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


def test_every_link_leads_to_a_page_with_content(page, site, airflow, run_id):
    links = links_of_pages(site, page, run_id) | links_of_tasks(airflow, run_id)
    links |= links_of_texts(site, airflow)
    assert f"{site.airflow_url}/plugin/retrieval" in links
    # One of each kind: runs and versions differ by their ids only.
    kinds = {IDS.sub("ID", link): link for link in sorted(links)}
    for link in kinds.values():
        assert get(link, page).status_code == 200, link
        of_mlflow = link.startswith(site.mlflow_url)
        text = text_of(page, link, MLFLOW_LETTERS if of_mlflow else AIRFLOW_LETTERS)
        assert not FAULTS.search(text), (link, text[:1000])


def test_the_page_retrieval_is_used_by_keyboard(page, site, run_id):
    page.goto(f"{site.airflow_url}/plugin/retrieval")
    link = page.frame_locator("iframe").get_by_role("link").first
    link.focus()
    with page.expect_popup() as opened:
        page.keyboard.press("Enter")
    opened.value.close()
