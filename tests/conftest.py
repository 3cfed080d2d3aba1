"""What tests of several folders share: real click logs, real servers, a browser."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real click logs, $DSSM_DATA."""
    if "DSSM_DATA" not in os.environ:
        pytest.skip("DSSM_DATA names no folder of real click logs")
    return Path(os.environ["DSSM_DATA"])


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium to drive."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium is installed")
    return found


PATIENCE_S = 600


def wait_until(ready: Callable[[], Any], what: str) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain until {what}"
        time.sleep(0.25)
    return found


def small_config(**changes: object) -> dict[str, object]:
    """The demo's config on a log that trains in seconds; changes are `section__key=value`."""
    raw = yaml.safe_load((REPO / "configs" / "demo.yaml").read_text())
    raw["name"] = "small"
    raw["data"]["source"] |= {"users": 2000, "items": 600, "clicks": 40000}
    raw["train"] = {"epochs": 2, "batch_size": 512, "negatives": 128, "device": "cpu", "patience": 100, "checkpoint_every_s": 0.5}
    raw["evaluation"] = {"bootstrap": 20}
    raw["gate"] = {"floor": 0.0, "min_index_ratio": 0.0, "champion_tolerance": 1.0}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        raw[section] = raw.get(section, {}) | {key: value} if key else value
    return raw


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """MLflow and Airflow, really running, in a folder of their own; ended with all their processes after the tests."""
    from local import servers

    root = tmp_path_factory.mktemp("site")
    configs = root / "configs"
    configs.mkdir()
    (configs / "small.yaml").write_text(yaml.safe_dump(small_config()))
    # No synthetic day has a billion clicks: a log that breaks the volume rule.
    (configs / "broken.yaml").write_text(yaml.safe_dump(small_config(validation={"min_rows_per_day": 10**9}, name="broken")))
    env = {"DSSM_CONFIGS": str(configs), "DSSM_RUNS": str(root / "runs")}
    try:
        yield servers.up(root / "state", env)
    finally:
        servers.down(root / "state")
