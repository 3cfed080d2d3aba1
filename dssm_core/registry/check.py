"""Whether a registered version can be loaded and answers, as a server would load it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dssm_core.errors import ServiceError
from dssm_core.registry.versions import fetch, open_model
from dssm_core.retrieval.requests import HISTORY
from dssm_core.tracking.client import tracking_uri

TIMEOUT_S = 600
# A user without a history. A null user id would be refused where ids are numbers.
REQUEST = {"dataframe_split": {"columns": [HISTORY], "data": [[[]]]}, "params": {"k": 1}}


def check_version(model_name: str, version: str, runs: Path) -> None:
    """Load a version in a process of its own, with its own code, and send a request.

    What runs is a copy whose files were compared with those registered; ChangedVersion if they
    differ. ServiceError with the last line of its output if it does not load or returns no items.
    """
    name = f"version {version} of {model_name!r}"
    with tempfile.TemporaryDirectory() as folder:
        model = fetch(open_model(model_name, runs), version, Path(folder)).model
        try:
            done = _predict(model, runs, Path(folder))
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"{name} was not loaded within {TIMEOUT_S} s: try again") from error
        answer = Path(folder) / "answer.json"
        if done.returncode or not json.loads(answer.read_text())["predictions"][0]["item_ids"]:
            output = done.stderr.strip().splitlines()
            reason = output[-1] if output else "it returns no items for a user without a history"
            raise ServiceError(f"{name} was loaded, and its answer failed: {reason[:300]}")


def _predict(model: Path, runs: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    request = folder / "request.json"
    request.write_text(json.dumps(REQUEST))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", str(model)]
    command += ["--env-manager", "local", "-i", str(request), "-o", str(folder / "answer.json")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(runs)}
    environment.pop("DSSM_REFRESHED", None)  # the version itself answers, not a refresh of it
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, cwd=folder
    )
