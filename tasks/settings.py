"""From the trigger form to a run: what a person typed is checked here before it names a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dssm_core.errors import ConfigError
from dssm_core.runs.layout import CONFIG_FILE

if TYPE_CHECKING:
    from dssm_core.config import Config

REPO = Path(__file__).resolve().parent.parent

DAG_TAG, RUN_TAG = "airflow.dag_id", "airflow.run_id"

# Form field -> the setting that it replaces; an empty field leaves the config's own value.
SETTINGS = {
    "test_day": "split.test_day",
    "tower": "tower.kind",
    "loss": "loss.kind",
    "sampler": "sampler.kind",
    "epochs": "train.epochs",
    "device": "train.device",
    "seed": "seed",
    "gate_floor": "gate.floor",
}


def config_files() -> dict[str, Path]:
    """The configs a run can start from, by name: the YAML files of $DSSM_CONFIGS (default:
    configs/).
    """
    folder = Path(os.environ.get("DSSM_CONFIGS", REPO / "configs"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"), key=lambda file: file.stem)}


def overrides(params: Mapping[str, Any]) -> list[str]:
    """The form's filled fields as `key.path=value`; JSON is YAML, so no value can be read as
    something else.
    """
    return [
        f"{key}={json.dumps(params[field])}"
        for field, key in SETTINGS.items()
        if params.get(field) is not None
    ]


def config_file(name: str) -> Path:
    """The file of a config, chosen from the listing and never built from the name."""
    files = config_files()
    if name not in files:
        raise ConfigError(
            f"config {name!r} is not one of {', '.join(files)}: put {name}.yaml into the configs folder"
        )
    return files[name]


def data_path(data: str | None) -> Path | None:
    """The log's folder or file: absolute, there, and below one of $DSSM_DATA_ROOTS (`:` between
    them) where that is set.
    """
    if not data:
        return None
    path = Path(data).resolve()
    if not Path(data).is_absolute() or not path.exists():
        raise ConfigError(
            f"data {data!r} must be the absolute path of a folder or file that the workers can see"
        )
    roots = [
        Path(root).resolve() for root in os.environ.get("DSSM_DATA_ROOTS", "").split(":") if root
    ]
    if roots and not any(path.is_relative_to(root) for root in roots):
        raise ConfigError(
            f"data {data!r} is outside {', '.join(map(str, roots))}: only these folders may be read"
        )
    return path


def further(settings: Iterable[str]) -> list[str]:
    """`key.path=value` of a form; ConfigError on the log's own, where $DSSM_DATA_ROOTS says which
    files may be read.
    """
    told = list(settings)
    for each in told:
        if os.environ.get("DSSM_DATA_ROOTS") and each.partition("=")[0].partition(".")[0] == "data":
            raise ConfigError(
                f"{each!r} says what is read, which $DSSM_DATA_ROOTS limits: fill in `data`, or write it into the YAML"
            )
    return told


def runs_folder() -> Path:
    """The folder of all runs: $DSSM_RUNS."""
    return Path(os.environ.get("DSSM_RUNS", REPO / "runs"))


def days_folder() -> Path:
    """The folder of all landed days: $DSSM_DAYS, else `days` beside the runs."""
    return Path(os.environ.get("DSSM_DAYS", runs_folder().parent / "days"))


def refreshed_folder() -> Path:
    """The folder of refreshed bundles: $DSSM_REFRESHED, else `refreshed` beside the runs."""
    return Path(os.environ.get("DSSM_REFRESHED") or runs_folder().parent / "refreshed")


def publish_target() -> str:
    """Where the champion is published: $DSSM_PUBLISH, else `published` beside the runs."""
    return os.environ.get("DSSM_PUBLISH") or str(runs_folder().parent / "published")


def audiences_folder() -> Path:
    """Where audiences are written: $DSSM_AUDIENCES, else `audiences` in the folder of all runs,
    which every worker can write.
    """
    return Path(os.environ.get("DSSM_AUDIENCES") or runs_folder() / "audiences")


def run_folder(run: str) -> Path:
    """A run's folder, absolute or in the folder of all runs; ConfigError where it is outside of
    that, or no run is there.
    """
    runs = runs_folder().resolve()
    if not (folder := (runs / run).resolve()).is_relative_to(runs):
        raise ConfigError(
            f"run {run!r} is outside {runs}: give the folder of a run in there, such as demo/2024-03-07/ID"
        )
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"run {run!r} is not in {runs}: `dssm runs` lists those that are, such as demo/2024-03-07/ID"
        )
    return folder


def mlflow_credentials() -> dict[str, Any]:
    """Of an HTTP client, from the environment as MLflow's own clients take them."""
    user, token = (
        os.environ.get("MLFLOW_TRACKING_USERNAME"),
        os.environ.get("MLFLOW_TRACKING_TOKEN"),
    )
    if user:
        return {"auth": (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    return {"headers": {"Authorization": f"Bearer {token}"}} if token else {}


def model_name(config: str) -> str:
    """The registered model of a config, without reading more of it than its name."""
    from dssm_core.config.yaml_files import read_yaml

    return f"dssm-{read_yaml(config_file(config))['name']}"


def make_run(context: Mapping[str, Any]) -> str:
    """Create (or find again) the folder of a Dag run and return its URI.

    A run that landed days have started has its window's last day as partition key and reads those
    days; one that a person starts reads the log itself, unless the form says otherwise.
    """
    from dssm_core.config import read_config
    from dssm_core.data.landing import use_landed_days
    from dssm_core.runs.run import create_run, note_origin, safe_run_id

    params, dag_run = context["params"], context["dag_run"]
    file, data, settings = (
        config_file(params["config"]),
        data_path(params["data"]),
        further(params["settings"]),
    )
    config = read_config(file, data, [*overrides(params), *settings])
    if dag_run.partition_key and not params["test_day"]:
        config = read_config(
            file,
            data,
            [
                *overrides({**params, "test_day": _first_test_day(config, dag_run.partition_key)}),
                *settings,
            ],
        )
    if dag_run.partition_key or params["landed"]:
        config = use_landed_days(config, days_folder())
    run = create_run(config, runs_folder(), safe_run_id(dag_run.run_id))
    note_origin(run, origin(dag_run))
    return str(run.root)


def _first_test_day(config: Config, last: str) -> str:
    """Of the window that ends on a day."""
    from datetime import date, timedelta

    return (
        date.fromisoformat(last) - timedelta(days=getattr(config.split, "test_days", 1) - 1)
    ).isoformat()


def origin(dag_run: Any) -> dict[str, str]:
    """Tags of an MLflow run that lead from a Dag run to it: what the view "MLflow runs" looks for."""
    return {DAG_TAG: dag_run.dag_id, RUN_TAG: dag_run.run_id}
