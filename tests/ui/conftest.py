"""A browser that is logged in to Airflow, and a camera for its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Page, expect, sync_playwright

from tests.conftest import REPO, TRAINING, wait_until

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
SIZE = {"width": 1400, "height": 900}


@dataclass(frozen=True)
class Camera:
    """Takes pictures of a page.

    They go to $DSSM_SCREENSHOTS. If it is not set, only the pictures that the docs show are taken
    again.
    """

    page: Page
    folder: Path = Path(os.environ.get("DSSM_SCREENSHOTS", REPO / "docs" / "images"))

    def __call__(
        self,
        name: str,
        height: int = SIZE["height"],
        settle_ms: int = 1500,
        full_page: bool = False,
    ) -> None:
        """Take a picture `height` pixels high, `settle_ms` after animations have started."""
        self.page.set_viewport_size(SIZE | {"height": height})
        self.page.wait_for_timeout(settle_ms)
        if "DSSM_SCREENSHOTS" in os.environ or (self.folder / name).is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=self.folder / name, full_page=full_page)
        self.page.set_viewport_size(SIZE)


@pytest.fixture(scope="session")
def airflow(site):
    client = site.airflow()
    wait_until(
        lambda: client.offers(TRAINING, "small") and client.offers("dssm_sweep", "swept"),
        "the Dags are parsed",
    )
    return client


@pytest.fixture(scope="session")
def mlflow(site) -> MlflowClient:
    return MlflowClient(tracking_uri=site.mlflow_url)


@pytest.fixture(scope="session")
def page(chromium, site, tmp_path_factory) -> Iterator[Page]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=chromium, args=FLAGS, viewport=SIZE
        )
        context.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        log_in(page := context.new_page(), site)
        yield page
        context.close()


def log_in(page: Page, site) -> None:
    page.goto(f"{site.airflow_url}/dags/{TRAINING}")
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(site.settings["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name=TRAINING)).to_be_visible()


@pytest.fixture(scope="session")
def shot(page) -> Camera:
    return Camera(page)
