"""From the trigger form to a run. Values from the form are checked here before they name a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

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
    "baselines": "evaluation.baselines",
}


def config_files() -> dict[str, Path]:
    """The YAML files of $DSSM_CONFIGS (default: configs/) by name."""
    folder = Path(os.environ.get("DSSM_CONFIGS", REPO / "configs"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"), key=lambda file: file.stem)}


def overrides(params: Mapping[str, Any]) -> list[str]:
    """The filled fields of the form as `key.path=value`, with JSON values, which YAML reads back
    unchanged.
    """
    return [
        f"{key}={json.dumps(params[field])}"
        for field, key in SETTINGS.items()
        if params.get(field) is not None
    ]


def config_file(name: str) -> Path:
    """The file of a config, looked up, never built from the name. ConfigError if there is none."""
    files = config_files()
    if name not in files:
        raise ConfigError(
            f"config {name!r} is not one of {', '.join(files)}: "
            f"put {name}.yaml into the configs folder"
        )
    return files[name]


def data_path(data: str | None) -> Path | None:
    """The folder or file of the log, None if `data` is empty.

    ConfigError unless it is an absolute path that exists and, if $DSSM_DATA_ROOTS is set (folders
    separated by `:`), lies below one of them.
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


def further_settings(settings: Iterable[str] | None) -> list[str]:
    """The further settings of a form, `key.path=value`. ConfigError on a setting of `data` if
    $DSSM_DATA_ROOTS limits which files may be read.
    """
    pairs = list(settings or ())
    for pair in pairs:
        section = pair.partition("=")[0].partition(".")[0]
        if section == "data" and os.environ.get("DSSM_DATA_ROOTS"):
            raise ConfigError(
                f"{pair!r} changes which files are read, which $DSSM_DATA_ROOTS limits: "
                "fill in the field `data`, or change the YAML file"
            )
    return pairs


def runs_folder() -> Path:
    """The folder of all runs: $DSSM_RUNS."""
    return Path(os.environ.get("DSSM_RUNS", REPO / "runs"))


def days_folder() -> Path:
    """The folder of all landed days: $DSSM_DAYS, else `days` beside the runs folder."""
    return Path(os.environ.get("DSSM_DAYS", runs_folder().parent / "days"))


def refreshed_folder() -> Path:
    """The folder of refreshed bundles: $DSSM_REFRESHED, else `refreshed` beside the runs folder."""
    return Path(os.environ.get("DSSM_REFRESHED") or runs_folder().parent / "refreshed")


def publish_target() -> str:
    """Where the champion is published: $DSSM_PUBLISH, else `published` beside the runs folder."""
    return os.environ.get("DSSM_PUBLISH") or str(runs_folder().parent / "published")


def published_lists() -> int | None:
    """The length of the lists that are published with the champion: $DSSM_PUBLISH_LISTS; None
    publishes no lists. Raises ConfigError if it is not a whole number.
    """
    text = os.environ.get("DSSM_PUBLISH_LISTS") or None
    if text and not text.isdecimal():
        raise ConfigError(f"$DSSM_PUBLISH_LISTS is {text!r}: give a whole number, such as 200")
    return int(text) if text else None


def audiences_folder() -> Path:
    """The folder of audiences: $DSSM_AUDIENCES, else `audiences` in the runs folder, to which every
    worker can write.
    """
    return Path(os.environ.get("DSSM_AUDIENCES") or runs_folder() / "audiences")


def run_folder(run: str) -> Path:
    """The folder of a run, given as an absolute path or relative to the runs folder.

    ConfigError if it is outside the runs folder or holds no run.
    """
    runs = runs_folder().resolve()
    folder = (runs / run).resolve()
    if not folder.is_relative_to(runs):
        raise ConfigError(
            f"run {run!r} is outside {runs}: give a folder in there, such as demo/2024-03-07/ID"
        )
    if not (folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"run {run!r} is not in {runs}: `dssm runs` lists the runs, "
            "give one as demo/2024-03-07/ID"
        )
    return folder


def mlflow_address() -> str:
    """$MLFLOW_TRACKING_URI without user and password: httpx logs the address of each request."""
    address = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    return address._replace(netloc=address.netloc.rpartition("@")[2]).geturl().rstrip("/")


def mlflow_credentials() -> dict[str, Any]:
    """Arguments of an HTTP client, from the environment variables that MLflow's clients read."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    address = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if user:
        return {"auth": (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))}
    if token:
        return {"headers": {"Authorization": f"Bearer {token}"}}
    if address.username:
        return {"auth": (unquote(address.username), unquote(address.password or ""))}
    return {}


def model_name(config: str) -> str:
    """The name of the registered model of a config. Only the name is read from the file."""
    from dssm_core.config.yaml_files import read_yaml

    return f"dssm-{read_yaml(config_file(config))['name']}"


def make_run(context: Mapping[str, Any]) -> str:
    """Create the folder of a Dag run, or open it if it exists, and return its path.

    A run that was started by landed days has the last day of its window as partition key, and reads
    these days. A run that a person starts reads the log, unless the form says `landed`.
    """
    from dssm_core.config import read_config
    from dssm_core.data.landing import use_landed_days
    from dssm_core.runs.run import create_run, note_origin, safe_run_id

    params, dag_run = context["params"], context["dag_run"]
    file = config_file(params["config"])
    data = data_path(params["data"])
    settings = further_settings(params["settings"])
    config = read_config(file, data, [*overrides(params), *settings])
    if dag_run.partition_key and not params["test_day"]:
        test_day = _first_test_day(config, dag_run.partition_key)
        fields = overrides({**params, "test_day": test_day})
        config = read_config(file, data, [*fields, *settings])
    if dag_run.partition_key or params["landed"]:
        config = use_landed_days(config, days_folder())
    run = create_run(config, runs_folder(), safe_run_id(dag_run.run_id))
    note_origin(run, origin(dag_run))
    return str(run.root)


def _first_test_day(config: Config, last: str) -> str:
    """The first test day of the window that ends on the day `last`."""
    from datetime import date, timedelta

    test_days = getattr(config.split, "test_days", 1)
    return (date.fromisoformat(last) - timedelta(days=test_days - 1)).isoformat()


def origin(dag_run: Any) -> dict[str, str]:
    """The tags by which the tab "MLflow runs" finds the MLflow run of a Dag run."""
    return {DAG_TAG: dag_run.dag_id, RUN_TAG: dag_run.run_id}
