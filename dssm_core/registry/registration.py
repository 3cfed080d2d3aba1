"""The step `register_model`: a run that passed its gate becomes a version in MLflow."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from dssm_core import families
from dssm_core.columns import ITEM, USER, USERS
from dssm_core.config import Config
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.families import INDEXES
from dssm_core.features.ids import Ids
from dssm_core.registry.integrity import (
    CODE_HASH_TAG,
    CONTENT_HASH_TAG,
    PACKAGE,
    RUN_TAG,
    ChangedVersion,
    code_hash,
    difference,
    part_hashes,
)
from dssm_core.registry.versions import (
    CHALLENGER,
    ROWS_TAG,
    RegisteredModel,
    download,
    fetch,
    newer_day,
    open_model,
)
from dssm_core.retrieval.bundle import assemble, content_hash
from dssm_core.retrieval.reloading import open_whole
from dssm_core.retrieval.requests import DEFAULT_K, EXCLUDE, HISTORY, column_names
from dssm_core.runs.files import locked, scratch
from dssm_core.runs.gate_report import read_gate_report
from dssm_core.runs.layout import TRAIN_FILE, ids_file, table_file
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import Run
from dssm_core.tracking.client import create_once, default_server, mlflow_errors
from dssm_core.tracking.inputs import column_type, dataset_of
from dssm_core.tracking.points import copy_to_model
from dssm_core.tracking.runs import (
    DESCRIPTION_TAG,
    SOURCE_TAGS,
    TEST_DAY_TAG,
    lineage_tags,
    open_mlflow_run,
)

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 300.0
HEADLINE = "headline/"  # metrics of a run that its logged model has too
ABOUT = (
    "The two-tower retrieval model of the dataset `{dataset}`: user tower, item vectors and index."
    " `models:/{name}@champion` is the version that is served, `challenger` the newest one that"
    " passed its gate, and `previous_champion` the one to which a rollback returns. `dssm history"
    " {name}` lists the decisions."
)
IDENTITY = (CONTENT_HASH_TAG, CODE_HASH_TAG)  # versions that agree in these are one version
REQUIREMENTS = (
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


def register_model(run: Run, work: Path) -> Outcome:
    """Step function. Registers the bundle as one version with the alias `challenger`.

    A bundle that is a version of this code already is not registered again. info: model, version,
    content_hash, run_id. ConfigError if the run did not pass its gate.
    """
    gate = read_gate_report(run)
    if not gate.passed:
        raise ConfigError(
            f"run {run.id!r} did not pass its gate, nothing is registered: {gate.reasons}"
        )
    bundle = _tried_bundle(run, work / "bundle")
    run_id = open_mlflow_run(run).run_id
    model = open_model(run.config.model_name, run.runs)
    tags = _version_tags(run, content_hash(bundle))
    with mlflow_errors(model.uri):
        version = _same_content(model, tags, work) or _log_model(model, run, run_id, work, tags)
        model.describe(version, _description(model, run_id))
        model.introduce(ABOUT.format(name=model.name, dataset=run.config.name))
        _point_challenger(model, version, run)
        model.client.set_tag(run_id, "dssm.version", f"{model.name}/{version}")
        model.client.set_terminated(run_id, "FINISHED")
    content = tags[CONTENT_HASH_TAG]
    info = {"model": model.name, "version": version, "content_hash": content, "run_id": run_id}
    return Outcome(info=info)


def _description(model: RegisteredModel, run_id: str) -> str:
    """The description of the MLflow run, which its version and its logged model have too."""
    return str(model.client.get_run(run_id).data.tags.get(DESCRIPTION_TAG, ""))


def requirements(config: Config) -> list[str]:
    """The pip requirements of the served model, at the versions installed here."""
    names = (*REQUIREMENTS, *families.build(INDEXES, config.index).requirements)
    return [pinned for name in names if (pinned := _pinned(name))]


def _tried_bundle(run: Run, folder: Path) -> Path:
    """The run's bundle in `folder`, after it has answered requests."""
    bundle = assemble(run, folder)
    open_whole(bundle)
    return bundle


def _point_challenger(model: RegisteredModel, version: str, run: Run) -> None:
    """Make a version the challenger, unless today's challenger is of a later test day."""
    lock = run.runs / "history" / f"{model.name}.challenger.lock"
    with locked(lock, LOCK_TIMEOUT_S, "registration"):
        challenger = model.aliases().get(CHALLENGER)
        day = model.tags(challenger).get(TEST_DAY_TAG, "") if challenger else ""
        if not newer_day(day, run.config.split.title):
            model.point(CHALLENGER, version)


def _pinned(name: str) -> str | None:
    try:
        return f"{name}=={installed_version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return None


def _version_tags(run: Run, content: str) -> dict[str, str]:
    rows = {
        f"{ROWS_TAG}{part}": str(count)
        for part, count in run.need("split_by_time").rows.items()
        if part in ("train", "test")
    }
    return {
        CONTENT_HASH_TAG: content,
        CODE_HASH_TAG: code_hash(),
        RUN_TAG: run.id,
        TEST_DAY_TAG: run.config.split.title,
        **lineage_tags(run),
        **rows,
    }


def _same_content(model: RegisteredModel, tags: dict[str, str], work: Path) -> str | None:
    """The version with the bundle and the code of `tags`, None if there is none.

    A version whose files were changed since then does not count.
    """
    for entity in model.client.search_model_versions(f"name = '{model.name}'"):
        same = (entity.tags.get(tag) == tags[tag] for tag in IDENTITY)
        if all(same) and _is_unchanged(model, str(entity.version), work):
            return str(entity.version)
    return None


def _is_unchanged(model: RegisteredModel, version: str, work: Path) -> bool:
    with scratch(work) as folder:
        try:
            fetch(model, version, Path(folder))
        except ChangedVersion as error:
            log.warning("%s", error)
            return False
    return True


def _log_model(
    model: RegisteredModel, run: Run, run_id: str, work: Path, tags: dict[str, str]
) -> str:
    """Log the model, as code, into the MLflow run and register it; returns the new version.

    MLflow itself copies the run's metrics of the given step to the logged model, without a dataset:
    the last training step keeps it from the headline metrics, which are at step 0.
    """
    import mlflow

    bundle = work / "bundle"
    with default_server(model.uri), mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name=model.name,
            tags=SOURCE_TAGS | {DESCRIPTION_TAG: _description(model, run_id)},
            python_model=str(PACKAGE / "registry" / "retriever.py"),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(PACKAGE)],
            signature=_signature(run),
            input_example=_example(bundle),
            pip_requirements=requirements(run.config),
            metadata={tag: tags[tag] for tag in IDENTITY},
            step=run.need("train_towers").rows["steps"],
        )
    metrics = model.client.get_run(run_id).data.metrics
    names = [name for name in metrics if name.startswith(HEADLINE)]
    copy_to_model(model.client, run_id, logged.model_id, names, dataset_of(run, "test"))
    hashes = _stored_hashes(model, logged.model_uri, tags, work)
    # MLflow prints what it has done to stderr, which Airflow logs as errors.
    with default_server(model.uri), redirect_stderr(io.StringIO()):
        return create_once(
            lambda: str(
                mlflow.register_model(logged.model_uri, model.name, tags=tags | hashes).version
            ),
            lambda: _same_content(model, tags, work),
        )


def _stored_hashes(
    model: RegisteredModel, model_uri: str, tags: dict[str, str], work: Path
) -> dict[str, str]:
    """The hashes of a logged model as MLflow has stored it, by tag.

    Raises ServiceError if its bundle or its code is not what was logged.
    """
    with scratch(work) as folder:
        stored = part_hashes(download(model, model_uri, Path(folder) / "model"))
    if problem := difference(stored, tags):
        raise ServiceError(
            f"MLflow at {model.uri} did not store the model as it was logged: {problem}; run the "
            "step again"
        )
    return stored


def _signature(run: Run) -> Any:
    """Inputs: the columns of a request, all optional; ids of any type, because each is found (see
    `canonical_ids`). Outputs: item_ids, scores and source. Parameters: those of
    `Retriever.predict`.
    """
    import pyarrow.parquet as pq
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        AnyType,
        Array,
        ColSpec,
        DataType,
        ParamSchema,
        ParamSpec,
        Schema,
    )

    files = [run.step("validate_data") / table_file(USERS), run.step("split_by_time") / TRAIN_FILE]
    types: dict[str, Any] = {}
    for file in files:
        if file.is_file():
            schema = pq.read_schema(file)
            types |= {name: column_type(schema.field(name).type) for name in schema.names}
    types |= {USER: AnyType(), HISTORY: Array(AnyType()), EXCLUDE: Array(AnyType())}
    items = Ids.load(run.step("export_embeddings") / ids_file(ITEM))
    names = column_names(run.config.features)
    inputs = [ColSpec(types[name], name, required=False) for name in names if name in types]
    outputs = [
        ColSpec(Array(DataType.long if items.whole_numbers else DataType.string), "item_ids"),
        ColSpec(Array(DataType.double), "scores"),
        ColSpec(DataType.string, "source"),
    ]
    parameters = [
        ParamSpec("k", DataType.long, DEFAULT_K),
        ParamSpec("exclude_seen", DataType.boolean, run.config.evaluation.exclude_seen),
        ParamSpec("filters", DataType.string, [], (-1,)),
        ParamSpec("as_of", DataType.string, ""),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs), ParamSchema(parameters))


def _example(bundle: Path) -> Any:
    """A user of the training set with a history of two items, as a data frame."""
    import pandas as pd

    users = pd.read_parquet(bundle / ids_file(USER)).iloc[:, 0].tolist()
    items = pd.read_parquet(bundle / ids_file(ITEM)).iloc[:, 0].tolist()
    return pd.DataFrame({USER: users[:1], HISTORY: [items[:2]]})
