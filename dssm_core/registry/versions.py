"""MLflow: one run a pipeline run, one registered version a model that passed, and the aliases
people move.

Tracking goes to $MLFLOW_TRACKING_URI, else to `mlflow.db` and `mlartifacts/` in the folder of all
runs. Metric names hold no `@` in MLflow and are grouped by what stands before a slash:
served.recall@200 is logged as `served/recall_at_200`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from dssm_core.aliases import JSON
from dssm_core.columns import ITEM, USER
from dssm_core.config import Config
from dssm_core.data.drift import FILE as DRIFT
from dssm_core.data.drift import Drift
from dssm_core.data.drift import load as load_drift
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.retrieval.bundle import HISTORY, assemble, content_hash, open_bundle
from dssm_core.runs.files import locked, write_atomically
from dssm_core.runs.layout import (
    GATE_FILE,
    HISTORY_FILE,
    REPORT_FILE,
    TRAIN_FILE,
    ids_file,
    table_file,
)
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run, read_origin
from dssm_core.runs.table import STEPS

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
Point = tuple[int, Mapping[str, Any]]  # a step and its values
T = TypeVar("T")

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"
HASH, DAY, ROWS = (
    "dssm.content_hash",
    "dssm.test_day",
    "dssm.rows.",
)  # tags of a version; rows of its train and test parts
MLFLOW = "mlflow.json"  # in the run's folder: its MLflow run
PARENT = "parent.json"  # in a trial's folder: the MLflow run of its sweep, and the trial's label
TAG_LENGTH, BATCH = 4000, 100  # what MLflow takes in a tag, and params in a request
ANSWER_TIMEOUT_S = 600
LOCK_TIMEOUT_S = 300.0
TRIES = 3  # to make a run or a version
PAUSE_S = 30.0  # after a failed live point: how long training goes on without trying again
_reached: set[str] = set()  # the addresses at which this process has found an MLflow
NEEDS = (
    "mlflow",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "torch",
    "safetensors",
    "faiss-cpu",
)


@dataclass(frozen=True)
class Found:
    """A registered version and the local folder its bundle was copied to. drift: of its window,
    None where it was not kept.
    """

    version: str
    folder: Path
    drift: Drift | None = None


def tracking_uri(runs: Path) -> str:
    """Where this process tracks: $MLFLOW_TRACKING_URI, else a SQLite file in the folder of all
    runs.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def connect(runs: Path) -> MlflowClient:
    """A client of an MLflow that answers; ServiceError within seconds where it never did.

    One that this process has reached before is being restarted: it is waited for, as in all other
    requests, for MLflow's own four minutes.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    import mlflow

    uri = tracking_uri(runs)
    if uri.startswith("sqlite:"):
        runs.mkdir(parents=True, exist_ok=True)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    with told(uri), nullcontext() if uri in _reached else patience(retries=1, timeout_s=5):
        client.search_experiments(max_results=1)
    _reached.add(uri)
    return client


def open_tracking(run: Run) -> JSON:
    """Find or create the MLflow run of a run; `{"run_id", "url"}`. Settings and tags are there
    before training starts.

    Remembered in mlflow.json in the run's folder. A run that had failed is running again.
    """
    client, uri = connect(run.runs), tracking_uri(run.runs)
    with told(uri):
        found = _remembered(run, client, uri) or _with_settings(
            run, client, _find(run, client) or _create(run, client)
        )
        if found.info.status != "RUNNING":
            client.update_run(found.info.run_id, status="RUNNING")
            if "error" in found.data.tags:
                client.delete_tag(found.info.run_id, "error")
    opened = {
        "run_id": found.info.run_id,
        "url": _url(uri, found.info.experiment_id, found.info.run_id),
    }
    write_atomically(run.root / MLFLOW, json.dumps(opened | {"uri": uri}, indent=2).encode())
    return opened


def page(run: Run) -> str:
    """The address of a run's MLflow run, which must have been opened before; nothing is asked or
    changed.
    """
    opened: JSON = json.loads((run.root / MLFLOW).read_bytes())
    return str(opened["url"])


def open_sweep(trials: Sequence[Run], labels: Sequence[str], name: str) -> str:
    """Find or create the MLflow run that holds a sweep, and tell its trials that they are its
    children; its id.

    A trial that an earlier sweep has run stays that one's child: the sweep's table leads to it all
    the same.
    """
    first = trials[0]
    client, uri = connect(first.runs), tracking_uri(first.runs)
    with told(uri):
        experiment = _experiment(first, client)
        found = client.search_runs([experiment], f"tags.`dssm.sweep` = '{name}'")
        tags = {"dssm.sweep": name} | read_origin(first)
        opened = (
            found[0]
            if found
            else client.create_run(experiment, tags=tags, run_name=f"sweep {name}")
        )
    for run, label in zip(trials, labels, strict=True):
        if not (run.root / PARENT).is_file():
            write_atomically(
                run.root / PARENT,
                json.dumps({"run_id": opened.info.run_id, "label": label}).encode(),
            )
    return str(opened.info.run_id)


def close_sweep(runs: Path, parent: str, found: Sequence[JSON]) -> None:
    """Log what a sweep's trials reached (as sweep.results gives it) into its MLflow run: a table,
    pictures, the winner; and finish it.
    """
    from dssm_core.report import plots

    client, uri = connect(runs), tracking_uri(runs)
    ended = [row for row in found if row["recall"] is not None]
    with told(uri), tempfile.TemporaryDirectory() as folder:
        _log_table(client, parent, [_row(row) for row in found], "trials.json")
        best = {f"best.{row['metric']}": row["recall"] for row in ended[:1]}
        _log_numbers(
            client, parent, best | {"trials": len(found), "trials_failed": len(found) - len(ended)}
        )
        if ended:
            client.set_tag(parent, "dssm.winner", ended[0]["label"][:TAG_LENGTH])
            client.set_tag(parent, "mlflow.note.content", _sweep_note(found, ended[0]))
            for draw in (plots.trials, plots.parallel):
                draw(ended, Path(folder) / f"{draw.__name__}.png")
                client.log_artifact(parent, str(Path(folder) / f"{draw.__name__}.png"))
        client.set_terminated(parent, "FINISHED" if ended else "FAILED")


def _sweep_note(found: Sequence[JSON], best: JSON) -> str:
    """The text on the sweep's page."""
    failed = sum(row["recall"] is None for row in found)
    told = f"{len(found)} trials" + (f", {failed} failed" if failed else "")
    files = "trials.json, trials.png (recall against seconds and milliseconds) and parallel.png are among the artifacts"
    return f"**{best['label']}** is best of {told}: {best['metric']} {best['recall']:.4f} on the last train days.\n\n{files}."


def _row(found: JSON) -> JSON:
    """A trial as a row of the table: a column for each axis, and where its MLflow run is."""
    run = Run(Path(found["run"]))
    told = {
        name: found[name]
        for name in ("label", "recall", "low", "high", "train_seconds", "ms_per_query", "run")
    }
    state = "failed" if found["recall"] is None else "done"
    url = page(run) if (run.root / MLFLOW).is_file() else None
    return (
        {"state": state}
        | told
        | {name: str(value) for name, value in found["chosen"].items()}
        | {"mlflow_run": url}
    )


def _log_table(client: MlflowClient, run_id: str, rows: Sequence[JSON], name: str) -> None:
    """A table as MLflow's pages show it. Its own log_table would append to what an attempt before
    has logged.
    """
    columns = list(rows[0])
    client.log_dict(
        run_id,
        {"columns": columns, "data": [[row[column] for column in columns] for row in rows]},
        name,
    )
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))


def live_logger(run: Run) -> Callable[[Mapping[str, float], int], None]:
    """A function for (metrics, step) while training runs. MLflow going away costs one warning,
    never the training.

    What it missed, `log_run` adds from the history. Raises ServiceError only now, if MLflow does
    not answer at the start.
    """
    run_id, client = open_tracking(run)["run_id"], connect(run.runs)
    with told(tracking_uri(run.runs)):
        known = _points(
            client, run_id, client.get_run(run_id).data.metrics
        )  # of an attempt that was killed after its last checkpoint
    down_until = 0.0

    def write(metrics: Mapping[str, float], step: int) -> None:
        nonlocal down_until
        if time.monotonic() < down_until:
            return
        try:
            with patience(retries=0, timeout_s=3):
                _log_metrics(client, run_id, _missing([(step, metrics)], known))
            down_until = 0.0
        except Exception as error:  # whatever MLflow raises, training is worth more
            if down_until == 0.0:
                log.warning(
                    "MLflow does not answer (%s): training goes on, its curve is completed afterwards",
                    str(error)[:200],
                )
            down_until = time.monotonic() + PAUSE_S

    return write


def log_run(run: Run, work: Path) -> Outcome:
    """Step function. Logs the training history, data inputs, row counts, plots, Data Docs and
    manifests; info: run_id, url.
    """
    opened = open_tracking(run)
    client, run_id = connect(run.runs), opened["run_id"]
    history = _history(run)
    _draw(run, history, work)
    with told(tracking_uri(run.runs)):
        _complete(client, run_id, history)
        _log_numbers(client, run_id, _counts(run))
        _log_inputs(client, run, run_id)
        for picture in sorted(work.glob("*.png")):
            client.log_artifact(run_id, str(picture), "plots")
        _log_docs(client, run, run_id)
        _log_drift(client, run, run_id)
        _log_manifests(client, run, run_id)
    return Outcome({"points": len(history)}, opened)


def log_gate(run: Run, work: Path, info: JSON) -> None:
    """Put the gate's verdict, reasons, numbers and files into the MLflow run; a refusal finishes
    the run, and so does a trial's gate.
    """
    client, run_id = connect(run.runs), open_tracking(run)["run_id"]
    with told(tracking_uri(run.runs)):
        client.set_tag(run_id, "gate", "passed" if info["passed"] else "failed")
        client.set_tag(run_id, "gate.reasons", "\n".join(info["reasons"])[:TAG_LENGTH])
        client.set_tag(run_id, "mlflow.note.content", _note(info))
        _log_numbers(client, run_id, flatten(info["metrics"]))
        for file in (work / GATE_FILE, *sorted(work.glob("*.png"))):
            client.log_artifact(run_id, str(file), "gate")
        if (report := work / REPORT_FILE).is_file():
            client.log_artifact(run_id, str(report))
        if not info["passed"] or _sweep(run):
            client.set_terminated(run_id, "FINISHED")


def register(run: Run, work: Path) -> Outcome:
    """Step function. Registers the bundle as one version with the alias `challenger`; info: model,
    version, content_hash.

    The same content is the same version: a step that runs twice registers once. ConfigError where
    the gate refused.
    """
    gate = run.need("recall_gate").info
    if not gate["passed"]:
        raise ConfigError(
            f"run {run.id!r} did not pass its gate, nothing is registered: {gate['reasons']}"
        )
    name, run_id, client = run.config.model_name, open_tracking(run)["run_id"], connect(run.runs)
    bundle = assemble(run, work / "bundle")
    open_bundle(bundle).retrieve(
        pd.DataFrame({USER: [None]}), 1
    )  # what cannot answer is not registered
    tags = _version_tags(run, gate, content_hash(bundle))
    with told(tracking_uri(run.runs)):
        number = _registered(client, name, tags[HASH]) or _log_model(
            client, run, run_id, bundle, tags
        )
        with locked(
            run.runs / "history" / f"{name}.challenger.lock", LOCK_TIMEOUT_S, "registration"
        ):
            if not newer_day(
                _challenger_day(client, name), tags[DAY]
            ):  # a backfill of past days leaves it where it is
                client.set_registered_model_alias(name, CHALLENGER, number)
        client.set_tag(run_id, "dssm.version", f"{name}/{number}")
        client.set_terminated(run_id, "FINISHED")
    return Outcome(
        info={"model": name, "version": number, "content_hash": tags[HASH], "run_id": run_id}
    )


@dataclass(frozen=True)
class Registered:
    """A registered model of the MLflow at `uri`: the aliases and tags of its versions."""

    name: str
    uri: str
    client: MlflowClient

    def aliases(self) -> dict[str, str]:
        """Alias → version, all as of one moment; empty where there is no such model."""
        from mlflow.exceptions import MlflowException

        with told(self.uri):
            try:
                return {
                    alias: str(version)
                    for alias, version in self.client.get_registered_model(
                        self.name
                    ).aliases.items()
                }
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        return {}

    def tags(self, version: str) -> dict[str, str]:
        """A version's tags. ConfigError naming those that there are where it is not one of them."""
        with told(self.uri):
            found = {
                str(each.version): dict(each.tags)
                for each in self.client.search_model_versions(f"name = '{self.name}'")
            }
        if version not in found:
            raise ConfigError(
                f"model {self.name!r} has no version {version}: it has {sorted(map(int, found), reverse=True)[:20] or 'none'}"
            )
        return found[version]

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Put tags on a version; what it has of other names stays."""
        with told(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value[:TAG_LENGTH])

    def point(self, alias: str, version: str) -> None:
        """Let an alias name a version, at once for all readers."""
        with told(self.uri):
            self.client.set_registered_model_alias(self.name, alias, version)


def registered(model_name: str, runs: Path) -> Registered:
    """The model of that name, whether or not it has versions; ServiceError where MLflow does not
    answer.
    """
    return Registered(model_name, tracking_uri(runs), connect(runs))


def newer_day(one: str, other: str) -> bool:
    """Whether test day `one` is after test day `other`; never where one of them is no day."""
    try:
        return date.fromisoformat(one) > date.fromisoformat(other)
    except ValueError:
        return False  # a split without days


def answers(model_name: str, version: str, runs: Path) -> None:
    """Load `models:/NAME/VERSION` as its servers do, in a process and with code of its own, and ask
    it as one who has no history yet.

    ServiceError with what it said where it cannot be loaded or finds nothing.
    """
    asked = {
        "dataframe_split": {"columns": [HISTORY], "data": [[[]]]},
        "params": {"k": 1},
    }  # a null id is refused where ids are numbers
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "question.json", Path(folder) / "answer.json"
        question.write_text(json.dumps(asked))
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "predict",
            "-m",
            f"models:/{model_name}/{version}",
            "--env-manager",
            "local",
        ]
        command += ["-i", str(question), "-o", str(answer)]
        environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(runs)}
        environment.pop("DSSM_REFRESHED", None)  # the version itself is asked
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=ANSWER_TIMEOUT_S,
                env=environment,
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            raise ServiceError(
                f"version {version} of {model_name!r} was not loaded within {ANSWER_TIMEOUT_S} s: try again"
            ) from error
        if done.returncode or not json.loads(answer.read_text())["predictions"][0]["item_ids"]:
            told_last = (
                done.stderr.strip().splitlines()
                or ["it finds nothing for one who has no history yet"]
            )[-1]
            raise ServiceError(
                f"version {version} of {model_name!r} was loaded and asked, and did not answer: {told_last[:300]}"
            )


def champion(run: Run, folder: Path) -> Found | None:
    """Copy the champion's bundle of a run's model below `folder`; None where no version is
    champion.
    """
    store = registered(run.config.model_name, run.runs)
    number = store.aliases().get(CHAMPION)
    return (
        replace(fetch(store, number, folder), drift=_drift_of(store, number, folder))
        if number
        else None
    )


def _drift_of(store: Registered, version: str, folder: Path) -> Drift | None:
    """What a version's run has logged of its window; None where it has not: an older one, a split
    without days, a run that was deleted.
    """
    from mlflow.exceptions import MlflowException

    try:
        run_id = store.client.get_model_version(store.name, version).run_id
        return load_drift(Path(store.client.download_artifacts(run_id, DRIFT, str(folder))).parent)
    except (
        MlflowException,
        OSError,
        TypeError,
        ValueError,
    ) as error:  # the last two: written by another version of this code
        log.info("version %s of %s has no %s: %s", version, store.name, DRIFT, str(error)[:200])
        return None


def fetch(store: Registered, version: str, folder: Path) -> Found:
    """Copy a version's bundle below `folder`."""
    import mlflow

    with told(store.uri), globally(store.uri):
        got = mlflow.artifacts.download_artifacts(
            f"models:/{store.name}/{version}/artifacts/bundle", dst_path=str(folder)
        )
    return Found(version, Path(got))


def mark_failed(run: Run, error: str) -> None:
    """Say in the MLflow run that and why it failed, with the Data Docs where there are any; never
    raises.
    """
    try:
        with patience(retries=1, timeout_s=5):
            run_id, client = open_tracking(run)["run_id"], connect(run.runs)
            client.set_tag(run_id, "error", error[:TAG_LENGTH])
            _log_docs(client, run, run_id)
            client.set_terminated(run_id, "FAILED")
    except Exception as problem:  # the caller's own error is the one to be seen
        log.warning("MLflow was not told that run %s failed: %s", run.id, problem)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots: {"train": {"epochs": 5}} gives {"train.epochs":
    5}.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def metric_name(key: str) -> str:
    """A name MLflow takes and groups: served.recall@200 is `served/recall_at_200`."""
    return key.replace("@", "_at_").replace(".", "/")


@contextmanager
def told(uri: str) -> Iterator[None]:
    """Turn MLflow's and the network's exceptions into a ServiceError that names the server and what
    to do.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        first = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        first = "it does not answer" if "Max retries exceeded" in first else first
        hint = "start it, or correct MLFLOW_TRACKING_URI and the server's --allowed-hosts, then run the step again"
        raise ServiceError(f"MLflow at {uri} did not do its part: {first}; {hint}") from error


@contextmanager
def globally(uri: str) -> Iterator[None]:
    """Let MLflow's module-level functions speak to this server.

    They note it in the environment, which is put back: another folder of runs has a database of its
    own.
    """
    import mlflow

    with _environment({"MLFLOW_TRACKING_URI": uri}):
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield


def patience(retries: int, timeout_s: int) -> AbstractContextManager[None]:
    """Fewer and shorter HTTP tries than MLflow's own minutes of them."""
    return _environment(
        {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
        }
    )


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def once(make: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Make what must not be there twice. MLflow sends a request again whose answer was lost; here
    the server is asked before that.
    """
    from mlflow.exceptions import MlflowException

    for _ in range(TRIES - 1):
        with suppress(MlflowException), patience(retries=0, timeout_s=120):
            return make()
        if (found := find()) is not None:
            return found
    with patience(retries=0, timeout_s=120):
        return make()


def _url(uri: str, experiment_id: str, run_id: str) -> str:
    """The page of a run; a local database has none until `mlflow ui` shows it, so its own address
    stands in.
    """
    if not uri.startswith("http"):
        return uri
    return f"{uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"


def _remembered(run: Run, client: MlflowClient, uri: str) -> Any:
    from mlflow.exceptions import MlflowException

    file = run.root / MLFLOW
    noted = json.loads(file.read_bytes()) if file.is_file() else {}
    if noted.get("uri") != uri:
        return None
    try:
        found = client.get_run(noted["run_id"])
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found if found.info.lifecycle_stage == "active" else None


def _find(run: Run, client: MlflowClient) -> Any:
    """A run of a killed attempt that was created and not yet remembered."""
    found = client.search_runs([_experiment(run, client)], f"tags.`dssm.run` = '{run.id}'")
    return next(
        (each for each in found if each.data.tags.get("dssm.folder") == str(run.root)), None
    )


def _create(run: Run, client: MlflowClient) -> Any:
    tags = {"dssm.run": run.id, "dssm.folder": str(run.root), DAY: run.config.split.title}
    tags |= {"mlflow.source.name": "dssm", "mlflow.source.type": "JOB"} | _commit()
    parent = _sweep(run)
    tags |= {"mlflow.parentRunId": parent["run_id"]} if parent else {}
    tags |= read_origin(run)
    experiment, name = _experiment(run, client), parent.get("label", run.id)
    return once(
        lambda: client.create_run(experiment, tags=tags, run_name=name), lambda: _find(run, client)
    )


def _sweep(run: Run) -> JSON:
    """The MLflow run of the sweep that a run is a trial of, and the trial's label; empty of other
    runs.
    """
    file = run.root / PARENT
    found: JSON = json.loads(file.read_bytes()) if file.is_file() else {}
    return found


def _with_settings(run: Run, client: MlflowClient, found: Any) -> Any:
    """Log the settings; a run of a killed attempt may have some of them."""
    from mlflow.entities import Param

    flat = flatten(run.config.model_dump(mode="json"))
    params = [Param(key, str(value)[:TAG_LENGTH]) for key, value in flat.items()]
    for first in range(0, len(params), BATCH):
        client.log_batch(found.info.run_id, params=params[first : first + BATCH])
    return found


def _experiment(run: Run, client: MlflowClient) -> str:
    from mlflow.exceptions import MlflowException

    name = run.config.name
    place = None if os.environ.get("MLFLOW_TRACKING_URI") else (run.runs / "mlartifacts").as_uri()
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:  # another run made it in this moment
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise ServiceError(
            f"MLflow's experiment {name!r} was deleted: restore it with `mlflow experiments restore`, then retry"
        )
    return str(found.experiment_id)


def _commit() -> dict[str, str]:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"mlflow.source.git.commit": done.stdout.strip()} if done.returncode == 0 else {}


def _history(run: Run) -> list[JSON]:
    lines = (run.step("train_towers") / HISTORY_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


def _complete(client: MlflowClient, run_id: str, history: list[JSON]) -> None:
    """Log the points of the history that MLflow does not have yet."""
    names = {metric_name(key) for point in history for key in point} - {"step"}
    points = [
        (point["step"], {key: value for key, value in point.items() if key != "step"})
        for point in history
    ]
    _log_metrics(client, run_id, _missing(points, _points(client, run_id, names)))


def _points(client: MlflowClient, run_id: str, names: Iterable[str]) -> set[tuple[str, int, float]]:
    """What MLflow has of these metrics: (name, step, value)."""
    return {
        (name, point.step, point.value)
        for name in names
        for point in client.get_metric_history(run_id, name)
    }


def _missing(points: Sequence[Point], known: set[tuple[str, int, float]]) -> list[Point]:
    """The (step, values) points without what is known of them, and without what is no metric."""
    return [
        (
            step,
            {
                key: value
                for key, value in point.items()
                if _finite(value) and (metric_name(key), step, value) not in known
            },
        )
        for step, point in points
    ]


def _log_numbers(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Log numbers that belong to no step; what the run shows already is left out, so that a
    repeated step doubles none.
    """
    shown = {(name, 0, value) for name, value in client.get_run(run_id).data.metrics.items()}
    _log_metrics(client, run_id, _missing([(0, values)], shown))


def _log_metrics(client: MlflowClient, run_id: str, points: Sequence[Point]) -> None:
    """Log the finite numbers of (step, values) points; anything else in them is no metric."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    known = [
        (key, value, step)
        for step, values in points
        for key, value in values.items()
        if _finite(value)
    ]
    metrics = [Metric(metric_name(key), float(value), now, step) for key, value, step in known]
    for first in range(0, len(metrics), 10 * BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + 10 * BATCH])


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _counts(run: Run) -> dict[str, float]:
    """`rows.<step>.<what>` and `seconds.<step>` of every finished step."""
    done = {name: manifest for name in STEPS if (manifest := run.manifest(name))}
    rows = {
        f"rows.{name}.{what}": count
        for name, manifest in done.items()
        for what, count in manifest.rows.items()
    }
    return rows | {f"seconds.{name}": manifest.seconds for name, manifest in done.items()}


def _log_inputs(client: MlflowClient, run: Run, run_id: str) -> None:
    """The train and test tables as MLflow data inputs: digest, rows and where they lie, without
    reading them.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    split, inputs = run.need("split_by_time"), []
    for part, context in (("train", "training"), ("test", "evaluation")):
        file = table_file(part)
        source = json.dumps({"uri": (run.step("split_by_time") / file).as_uri()})
        profile = json.dumps({"num_rows": split.rows.get(part)})
        dataset = Dataset(
            f"{run.config.name}-{part}", split.files[file][:32], "local", source, profile=profile
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client.log_inputs(run_id, inputs)


def _log_docs(client: MlflowClient, run: Run, run_id: str) -> None:
    """Great Expectations' pages: of the step where it passed, of the run's folder where it failed."""
    for folder in (run.step("validate_data") / "data_docs", run.root / "data_docs"):
        if folder.is_dir():
            client.log_artifacts(run_id, str(folder), "data_docs")
            return


def _log_drift(client: MlflowClient, run: Run, run_id: str) -> None:
    """How the window's days differ, a point a day (`drift/volume`; of columns the largest), and the
    file that a later run compares with.
    """
    found = load_drift(run.step("validate_data"))
    if found is None:
        return
    names = {
        name: name.partition(".")[0] for name in found.changes
    }  # a column's name may be none that MLflow takes
    points: list[JSON] = []
    for day in range(len(found.days)):
        known = [
            (measure, value)
            for name, measure in names.items()
            if (value := found.changes[name][day]) is not None
        ]
        points.append(
            {"step": day}
            | {
                f"drift.{measure}": value
                for measure, value in sorted(known, key=lambda each: each[1])
            }
        )
    _complete(client, run_id, points)
    client.log_artifact(run_id, str(run.step("validate_data") / DRIFT))


def _log_manifests(client: MlflowClient, run: Run, run_id: str) -> None:
    for name in STEPS:
        if manifest := run.manifest(name):
            client.log_text(run_id, manifest.model_dump_json(indent=2), f"manifests/{name}.json")


def _draw(run: Run, history: list[JSON], work: Path) -> None:
    from dssm_core.report import plots

    plots.loss_curve(history, work / "loss.png")
    plots.sampling(*_shares(run), work / "sampling.png")


def _shares(run: Run) -> tuple[Any, Any]:
    """Each item's share of the draws as of the last refresh, and of train's clicks; both [N]."""
    import torch

    from dssm_core.features.dataset import bucket_times, load_prepared
    from dssm_core.sampling.sampler_tables import load_sampler_tables, samplers_of
    from dssm_core.sampling.samplers.protocol import mean_share

    folder = run.step("sample_negatives")
    prepared = load_prepared(folder)
    items = torch.arange(1, prepared.schema.items)
    last = len(bucket_times(run.config, prepared.log)) - 1
    drawn = torch.full(
        (len(items),), 1 / len(items)
    ).double()  # as it is where the loss compares with every item
    for name, sampler in list(samplers_of(run.config).items())[:1]:
        drawn = mean_share(
            sampler, load_sampler_tables(folder, "refit", name), last, items, prepared.log
        )
    clicks = torch.bincount(prepared.log.item, minlength=prepared.schema.items)[1:].double()
    return drawn.numpy(), (clicks / clicks.sum()).numpy()


def _note(info: JSON) -> str:
    """The text on the MLflow run's page."""
    return "\n".join(
        [
            f"**Gate {'passed' if info['passed'] else 'failed'}**",
            "",
            *(f"- {reason}" for reason in info["reasons"]),
        ]
    )


def _version_tags(run: Run, gate: JSON, digest: str) -> dict[str, str]:
    served = {
        f"gate.{metric_name(key)}": f"{value:.4f}"
        for key, value in gate["metrics"]["served"].items()
        if _finite(value)
    }
    day = run.config.split.title
    rows = {
        f"{ROWS}{part}": str(count)
        for part, count in run.need("split_by_time").rows.items()
        if part in ("train", "test")
    }
    return {
        HASH: digest,
        "dssm.run": run.id,
        DAY: day,
        **rows,
        "gate.reasons": "\n".join(gate["reasons"])[:TAG_LENGTH],
        **served,
    }


def _registered(client: MlflowClient, name: str, digest: str) -> str | None:
    """The version of a model with this content, None where there is none."""
    found = client.search_model_versions(f"name = '{name}'")
    return next((str(each.version) for each in found if each.tags.get(HASH) == digest), None)


def _log_model(
    client: MlflowClient, run: Run, run_id: str, bundle: Path, tags: dict[str, str]
) -> str:
    """Log the models-from-code model into the MLflow run and register it; the new version's number."""
    import mlflow

    package, name = Path(__file__).parents[1], run.config.model_name
    with globally(tracking_uri(run.runs)), mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "registry" / "retriever.py"),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(package)],
            signature=_signature(run),
            input_example=_example(bundle),
            pip_requirements=requirements(run.config),
        )
    with globally(tracking_uri(run.runs)):
        made = once(
            lambda: mlflow.register_model(logged.model_uri, name, tags=tags).version,
            lambda: _registered(client, name, tags[HASH]),
        )
    return str(made)


def requirements(config: Config) -> list[str]:
    """What the served model imports, at the versions it was made with."""
    may_be_annoy = "annoy" in (config.index.kind, *config.index.settings.get("kinds", ()))
    names = [*NEEDS, "annoy"] if may_be_annoy else [*NEEDS]
    return [pinned for name in names if (pinned := _pinned(name))]


def _pinned(name: str) -> str | None:
    try:
        return f"{name}=={version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return None


def _signature(run: Run) -> Any:
    """user_id, history and the context columns, each optional; item_ids, scores and source out; `k`
    a parameter.
    """
    import pyarrow.parquet as pq
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    types = pq.read_schema(run.step("split_by_time") / TRAIN_FILE)
    kind = {name: _data_type(types.field(name).type) for name in types.names}
    context = [
        feature.column for feature in run.config.features.columns.context if feature.column in kind
    ]
    inputs = [
        ColSpec(kind[USER], USER, required=False),
        ColSpec(Array(kind[ITEM]), HISTORY, required=False),
    ]
    inputs += [ColSpec(kind[name], name, required=False) for name in context]
    outputs = [
        ColSpec(Array(kind[ITEM]), "item_ids"),
        ColSpec(Array(DataType.double), "scores"),
        ColSpec(DataType.string, "source"),
    ]
    return ModelSignature(
        Schema(inputs), Schema(outputs), ParamSchema([ParamSpec("k", DataType.long, 200)])
    )


def _data_type(arrow: Any) -> Any:
    import pyarrow as pa
    from mlflow.types.schema import DataType

    if pa.types.is_integer(arrow):
        return DataType.long
    return DataType.double if pa.types.is_floating(arrow) else DataType.string


def _example(bundle: Path) -> Any:
    """A user who is known, with a history of two items."""
    import pandas as pd

    users, items = (
        pd.read_parquet(bundle / ids_file(name)).iloc[:, 0].tolist() for name in (USER, ITEM)
    )
    return pd.DataFrame({USER: users[:1], HISTORY: [items[:2]]})


def _alias(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version an alias names; None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _challenger_day(client: MlflowClient, name: str) -> str:
    """The test day of today's challenger; empty where there is none."""
    number = _alias(client, name, CHALLENGER)
    return client.get_model_version(name, number).tags.get(DAY, "") if number else ""
