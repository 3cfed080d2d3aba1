"""The registered models of MLflow: their versions, tags and aliases, and a version's files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import tenacity

from dssm_core.data.drift import FILE as DRIFT_FILE
from dssm_core.data.drift import Drift
from dssm_core.data.drift import load as load_drift
from dssm_core.errors import ConfigError
from dssm_core.registry.integrity import BUNDLE, check_version_files
from dssm_core.runs.run import Run
from dssm_core.tracking.client import connect, default_server, mlflow_errors, tracking_uri
from dssm_core.tracking.runs import TAG_LENGTH

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
PREVIOUS = "previous_champion"
DECIDED = "**Decision:** "
ROWS_TAG = "dssm.rows."  # followed by train or test
DOWNLOAD_ATTEMPTS = 4
DOWNLOAD_WAIT_S = 5.0
LISTED_VERSIONS = 20  # in a message


@dataclass(frozen=True)
class FetchedVersion:
    """A version and the local folder with a copy of its bundle, which is as it was registered.

    drift: of the data that it was trained on, None if it was not stored.
    """

    version: str
    folder: Path
    drift: Drift | None = None

    @property
    def model(self) -> Path:
        """The folder of the whole logged model."""
        return self.folder.parents[1]


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model of the MLflow server at `uri`, which may have no versions yet."""

    name: str
    uri: str
    client: MlflowClient

    def aliases(self) -> dict[str, str]:
        """Versions by alias, all read at once; empty if the model does not exist."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                aliases = self.client.get_registered_model(self.name).aliases
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
        return {alias: str(version) for alias, version in aliases.items()}

    def created_ms(self) -> int | None:
        """When the model was created in MLflow, in ms since 1970; None if it does not exist."""
        from mlflow.exceptions import MlflowException

        with mlflow_errors(self.uri):
            try:
                return int(self.client.get_registered_model(self.name).creation_timestamp)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        return None

    def tags(self, version: str) -> dict[str, str]:
        """The tags of a version; ConfigError with the existing versions if it does not exist."""
        with mlflow_errors(self.uri):
            versions = {
                str(entity.version): dict(entity.tags)
                for entity in self.client.search_model_versions(f"name = '{self.name}'")
            }
        if version not in versions:
            newest = sorted(map(int, versions), reverse=True)[:LISTED_VERSIONS]
            raise ConfigError(
                f"model {self.name!r} has no version {version}: it has {newest or 'none'}"
            )
        return versions[version]

    def tag(self, version: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; its other tags stay."""
        with mlflow_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(self.name, version, key, value[:TAG_LENGTH])

    def describe(self, version: str, text: str) -> None:
        """Set the description of a version that has none."""
        with mlflow_errors(self.uri):
            if not self.client.get_model_version(self.name, version).description:
                self.client.update_model_version(self.name, version, text)

    def introduce(self, text: str) -> None:
        """Set the description of the model if it has none."""
        with mlflow_errors(self.uri):
            if not self.client.get_registered_model(self.name).description:
                self.client.update_registered_model(self.name, text)

    def note(self, version: str, text: str) -> None:
        """Put a decision on a version above its description, in place of an earlier one."""
        with mlflow_errors(self.uri):
            old = self.client.get_model_version(self.name, version).description or ""
            rest = old.partition("\n\n")[2] if old.startswith(DECIDED) else old
            self.client.update_model_version(self.name, version, f"{DECIDED}{text}\n\n{rest}")

    def point(self, alias: str, version: str) -> None:
        """Point an alias to a version, for all readers at once."""
        with mlflow_errors(self.uri):
            self.client.set_registered_model_alias(self.name, alias, version)


def open_model(name: str, runs: Path) -> RegisteredModel:
    """The registered model of that name; ServiceError if MLflow does not answer."""
    return RegisteredModel(name, tracking_uri(runs), connect(runs))


def newer_day(one: str, other: str) -> bool:
    """Whether test day `one` is after test day `other`; False if either is not a day."""
    try:
        return date.fromisoformat(one) > date.fromisoformat(other)
    except ValueError:
        return False  # a split without days


def fetch_champion(run: Run, folder: Path) -> FetchedVersion | None:
    """Copy the bundle of the champion of a run's model into `folder`; None if there is none."""
    model = open_model(run.config.model_name, run.runs)
    version = model.aliases().get(CHAMPION)
    if version is None:
        return None
    return replace(fetch(model, version, folder), drift=_drift_of(model, version, folder))


def fetch(model: RegisteredModel, version: str, folder: Path) -> FetchedVersion:
    """Copy the files of a version into `folder`, and compare them with those registered.

    Raises ChangedVersion if they differ.
    """
    tags = model.tags(version)
    copy = download(model, f"models:/{model.name}/{version}", folder / "model")
    check_version_files(copy, version, f"version {version} of {model.name!r}", tags)
    return FetchedVersion(version, copy / BUNDLE)


def download(model: RegisteredModel, model_uri: str, folder: Path) -> Path:
    """Copy the files of a logged or registered model into a new folder. Nothing is compared.

    Of hundreds of files, some may fail while MLflow restarts: the copy is then tried again.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    folder.mkdir(parents=True)
    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((MlflowException, OSError)),
        stop=tenacity.stop_after_attempt(DOWNLOAD_ATTEMPTS),
        wait=tenacity.wait_fixed(DOWNLOAD_WAIT_S),
        reraise=True,
    )
    # MLflow asks the module's default server for some of the files, whatever the arguments say.
    with mlflow_errors(model.uri), default_server(model.uri):
        path: str = attempts(mlflow.artifacts.download_artifacts, model_uri, dst_path=str(folder))
    return Path(path)


def _drift_of(model: RegisteredModel, version: str, folder: Path) -> Drift | None:
    """The drift that a version's run has logged; None for a split without days, a deleted run, or
    a run of another version of this code.
    """
    from mlflow.exceptions import MlflowException

    try:
        run_id = model.client.get_model_version(model.name, version).run_id
        file = model.client.download_artifacts(run_id, DRIFT_FILE, str(folder))
        return load_drift(Path(file).parent)
    except (MlflowException, OSError, TypeError, ValueError) as error:
        log.info("version %s of %s has no %s: %s", version, model.name, DRIFT_FILE, error)
        return None
