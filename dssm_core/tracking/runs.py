"""The MLflow run of a pipeline run: created once, found again, and marked as failed."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dssm_core.aliases import JSON
from dssm_core.errors import ServiceError, masked
from dssm_core.runs.files import write_atomically
from dssm_core.runs.layout import DATA_CHECKS_FILE, MLFLOW_FILE, SWEEP_FILE
from dssm_core.runs.run import Run, read_origin
from dssm_core.tracking.client import connect, create_once, mlflow_errors, probe, tracking_uri
from dssm_core.tracking.origin import dag_run_link

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TEST_DAY_TAG = "dssm.test_day"  # of MLflow runs and of registered versions
DESCRIPTION_TAG = "mlflow.note.content"
SOURCE_TAGS = {"mlflow.source.name": "dssm", "mlflow.source.type": "JOB"}
STARTED_FROM_TAG = "dssm.started_from"
TAG_LENGTH = 4000  # characters that MLflow stores of a tag or a param
PARAMS_PER_REQUEST = 100
NAME_LENGTH = 250
NAME_CHANGES = 4  # settings in the name of an MLflow run
NAME_LETTERS = 80
NAMED_APART = ("split.test_day", "tower.kind", "loss.kind")  # in the name of each run
UNQUOTED = str.maketrans("", "", "'\"`%\\")  # signs that MLflow's filters treat in a special way
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # its pages show runs and models first
    DESCRIPTION_TAG: (
        "Runs of the two-tower retrieval workflow. Compare runs by the metrics `headline/...`;"
        " `report.html` among the artifacts of a run explains its verdict."
    ),
}
REFUSED = re.compile(r"[^\w. -]")  # slashes too: MLflow takes them for folders


@dataclass(frozen=True)
class MlflowRun:
    """The id of an MLflow run and the URL of its page."""

    run_id: str
    url: str


def open_mlflow_run(run: Run) -> MlflowRun:
    """Find or create the MLflow run of a run, with its settings and tags.

    It is remembered in mlflow.json in the run's folder. If it had failed, it is running again.
    ServiceError if MLflow does not answer.
    """
    client = connect(run.runs)
    uri = tracking_uri(run.runs)
    with mlflow_errors(uri):
        entity = _remembered(run, client, uri)
        if entity is None:
            entity = _find(run, client) or _create(run, client)
            _log_settings(run, client, entity.info.run_id)
        if entity.info.status != "RUNNING":
            _restart(client, entity)
    opened = MlflowRun(entity.info.run_id, _url(uri, entity))
    stored = asdict(opened) | {"uri": masked(uri)}
    write_atomically(run.root / MLFLOW_FILE, json.dumps(stored, indent=2).encode())
    return opened


def mlflow_run_url(run: Run) -> str | None:
    """The URL of a run's MLflow run as remembered in its folder, None if it was never opened.

    Makes no request.
    """
    file = run.root / MLFLOW_FILE
    return str(json.loads(file.read_bytes())["url"]) if file.is_file() else None


def find_or_create(
    client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str], key: str
) -> str:
    """The id of the MLflow run with the same tag `key` as in `tags`, created if there is none."""
    found = client.search_runs([experiment_id], f"tags.`{key}` = '{tags[key]}'")
    entity = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=name)
    return str(entity.info.run_id)


def experiment_of(run: Run, client: MlflowClient) -> str:
    """The id of the experiment of a run's dataset, created if there is none; ServiceError if it
    was deleted.
    """
    from mlflow.exceptions import MlflowException

    name = run.config.name
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = (run.runs / "mlartifacts").as_uri() if local else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(
                client.create_experiment(name, artifact_location=artifacts, tags=EXPERIMENT_TAGS)
            )
        except MlflowException:  # another process created it at the same time
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise ServiceError(
            f"MLflow's experiment {name!r} was deleted: "
            "restore it with `mlflow experiments restore`, then retry"
        )
    return str(experiment.experiment_id)


def read_sweep(run: Run) -> JSON:
    """The sweep that a run is a trial of: `run_id` of the sweep's MLflow run and the trial's
    `label`; empty if it is none.
    """
    file = run.root / SWEEP_FILE
    sweep: JSON = json.loads(file.read_bytes()) if file.is_file() else {}
    return sweep


def mark_failed(run: Run, message: str) -> None:
    """Store in the MLflow run that and why the run failed, with the Data Docs if there are any.

    Never raises: the caller reports the failure itself.
    """
    try:
        probe(tracking_uri(run.runs))
        run_id = open_mlflow_run(run).run_id
        client = connect(run.runs)
        client.set_tag(run_id, "error", message[:TAG_LENGTH])
        log_data_docs(client, run, run_id)
        client.set_terminated(run_id, "FAILED")
    except Exception as error:
        log.warning("run %s failed, which could not be logged to MLflow: %s", run.id, masked(error))


def log_data_checks(client: MlflowClient, run: Run, run_id: str) -> None:
    """Log the page of the data checks, of the finished or else of the failed validation."""
    folder = _validation(run)
    if (folder / DATA_CHECKS_FILE).is_file():
        client.log_artifact(run_id, str(folder / DATA_CHECKS_FILE))


def log_data_docs(client: MlflowClient, run: Run, run_id: str) -> None:
    """Log the page of the data checks and Great Expectations' own site."""
    log_data_checks(client, run, run_id)
    docs = _validation(run) / "data_docs"
    if docs.is_dir():
        client.log_artifacts(run_id, str(docs), "data_docs")


def _validation(run: Run) -> Path:
    """The folder of the finished validation, else of the failed one, which may not be there."""
    finished = run.step("validate_data")
    return finished if finished.is_dir() else run.failed("validate_data")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots.

    {"train": {"epochs": 5}} gives {"train.epochs": 5}.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def param_name(key: str) -> str:
    """The name of a setting in MLflow, which takes few signs and no long names.

    A sign that it refuses becomes its number in hexadecimal: `validation.ranges.price (€)` gives
    `validation.ranges.price _28__20ac__29_`.
    """
    name = REFUSED.sub(lambda sign: f"_{ord(sign[0]):x}_", key)
    if len(name) <= NAME_LENGTH:
        return name
    return f"{name[: NAME_LENGTH - 17]}.{sha256(key.encode()).hexdigest()[:16]}"


def _url(uri: str, entity: Any) -> str:
    """The page of an MLflow run, without secrets. A local database has no pages: its own address
    is returned.
    """
    if not uri.startswith("http"):
        return masked(uri)
    page = f"experiments/{entity.info.experiment_id}/runs/{entity.info.run_id}"
    return f"{masked(uri).rstrip('/')}/#/{page}"


def _remembered(run: Run, client: MlflowClient, uri: str) -> Any:
    """The MLflow run that mlflow.json names, None if it is of another server or was deleted."""
    from mlflow.exceptions import MlflowException

    file = run.root / MLFLOW_FILE
    stored = json.loads(file.read_bytes()) if file.is_file() else {}
    if masked(stored.get("uri")) != masked(uri):
        return None
    try:
        entity = client.get_run(stored["run_id"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return entity if entity.info.lifecycle_stage == "active" else None


def _find(run: Run, client: MlflowClient) -> Any:
    """The MLflow run that an attempt created and was killed before it could remember it."""
    entities = client.search_runs([experiment_of(run, client)], f"tags.`dssm.run` = '{run.id}'")
    folder = str(run.root)
    return next((it for it in entities if it.data.tags.get("dssm.folder") == folder), None)


def _create(run: Run, client: MlflowClient) -> Any:
    experiment_id = experiment_of(run, client)
    sweep = read_sweep(run)
    tags = _tags(run, sweep)
    name = sweep.get("label") or _unused(client, experiment_id, run_name(run))
    return create_once(
        lambda: client.create_run(experiment_id, tags=tags, run_name=name),
        lambda: _find(run, client),
    )


def run_name(run: Run) -> str:
    """The name of a run's MLflow run: the test day, tower and loss, and the settings that differ
    from the config file, such as `2024-03-07 mlp·bce epochs=3`.
    """
    config = run.config
    pairs = (setting.partition("=") for setting in run.changed)
    short = [
        f"{key.removesuffix('.kind').rpartition('.')[2]}={value}"
        for key, _, value in pairs
        if key not in NAMED_APART
    ]
    changes = [*short[:NAME_CHANGES], *(["…"] if len(short) > NAME_CHANGES else [])]
    name = " ".join([config.split.title, f"{config.tower.kind}·{config.loss.kind}", *changes])
    return name.translate(UNQUOTED)[:NAME_LETTERS]


def _unused(client: MlflowClient, experiment_id: str, name: str) -> str:
    """The name, with a number behind it if a run of the experiment has it already."""
    same = client.search_runs([experiment_id], f"attributes.run_name LIKE '{name}%'")
    taken = {entity.info.run_name for entity in same}
    numbered = (f"{name} #{number}" for number in range(2, len(taken) + 2))
    return next(each for each in (name, *numbered) if each not in taken)


def lineage_tags(run: Run) -> dict[str, str]:
    """The registered model that a run's training started from, as a tag; empty if none."""
    manifest = run.manifest("train_towers")
    name = manifest.info.get("started_from") if manifest else None
    return {STARTED_FROM_TAG: name} if name else {}


def _tags(run: Run, sweep: JSON) -> dict[str, str]:
    tags = {
        "dssm.run": run.id,
        "dssm.folder": str(run.root),
        TEST_DAY_TAG: run.config.split.title,
        DESCRIPTION_TAG: dag_run_link(run),
        **SOURCE_TAGS,
    }
    parent = {"mlflow.parentRunId": sweep["run_id"]} if sweep else {}
    return tags | _commit_tag() | parent | read_origin(run)


def _commit_tag() -> dict[str, str]:
    """The commit of this code; empty outside of a Git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"mlflow.source.git.commit": done.stdout.strip()} if done.returncode == 0 else {}


def _log_settings(run: Run, client: MlflowClient, run_id: str) -> None:
    """Log the settings as params; those that a killed attempt has logged are the same."""
    from mlflow.entities import Param

    flat = flatten(run.config.model_dump(mode="json"))
    params = [Param(param_name(key), str(value)[:TAG_LENGTH]) for key, value in flat.items()]
    for first in range(0, len(params), PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=params[first : first + PARAMS_PER_REQUEST])


def _restart(client: MlflowClient, entity: Any) -> None:
    client.update_run(entity.info.run_id, status="RUNNING")
    if "error" in entity.data.tags:
        client.delete_tag(entity.info.run_id, "error")
