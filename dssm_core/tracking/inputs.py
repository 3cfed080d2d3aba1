"""What an MLflow run shows beside numbers: its data inputs, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from dssm_core.aliases import JSON
from dssm_core.runs.layout import table_file
from dssm_core.runs.run import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_data_inputs(client: MlflowClient, run: Run, run_id: str) -> None:
    """Log the training and test tables as MLflow datasets: digest, columns, rows and path.

    The rows are not read.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rows = run.need("split_by_time").rows
    inputs = []
    for part, context in (("train", "training"), ("test", "evaluation")):
        file = run.step("split_by_time") / table_file(part)
        name, digest = dataset_of(run, part)
        dataset = Dataset(
            name,
            digest,
            "local",
            json.dumps({"uri": file.as_uri()}),
            schema=json.dumps({"mlflow_colspec": _columns(file)}),
            profile=json.dumps({"num_rows": rows.get(part)}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client.log_inputs(run_id, inputs)


def dataset_of(run: Run, part: str) -> tuple[str, str]:
    """Name and digest of the MLflow dataset of a part, `train` or `test`."""
    digest = run.need("split_by_time").files[table_file(part)]
    return f"{run.config.name}-{part}", digest[:32]


def _columns(file: Path) -> list[JSON]:
    from mlflow.types.schema import ColSpec, Schema

    columns = [ColSpec(column_type(field.type), field.name) for field in pq.read_schema(file)]
    return list(Schema(columns).to_dict())


def column_type(arrow: Any) -> Any:
    """MLflow's type of a column of an Arrow type."""
    import pyarrow as pa
    from mlflow.types.schema import Array, DataType

    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        return Array(column_type(arrow.value_type))
    if pa.types.is_boolean(arrow):
        return DataType.boolean
    if pa.types.is_integer(arrow):
        return DataType.long
    return DataType.double if pa.types.is_floating(arrow) else DataType.string


def log_table(client: MlflowClient, run_id: str, rows: Sequence[JSON], name: str) -> None:
    """Log rows with equal keys as a table that MLflow's pages show, replacing an earlier one.

    MLflow's own log_table appends.
    """
    columns = list(rows[0])
    table = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
    client.log_dict(run_id, table, name)
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))
