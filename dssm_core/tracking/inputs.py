"""What an MLflow run shows beside numbers: its data inputs, and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dssm_core.aliases import JSON
from dssm_core.runs.layout import table_file
from dssm_core.runs.run import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_data_inputs(client: MlflowClient, run: Run, run_id: str) -> None:
    """Log the training and test tables as MLflow datasets: digest, rows and path.

    The tables are not read.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    split = run.need("split_by_time")
    inputs = []
    for part, context in (("train", "training"), ("test", "evaluation")):
        file = table_file(part)
        dataset = Dataset(
            f"{run.config.name}-{part}",
            split.files[file][:32],
            "local",
            json.dumps({"uri": (run.step("split_by_time") / file).as_uri()}),
            profile=json.dumps({"num_rows": split.rows.get(part)}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client.log_inputs(run_id, inputs)


def log_table(client: MlflowClient, run_id: str, rows: Sequence[JSON], name: str) -> None:
    """Log rows with equal keys as a table that MLflow's pages show, replacing an earlier one.

    MLflow's own log_table appends.
    """
    columns = list(rows[0])
    table = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
    client.log_dict(run_id, table, name)
    client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps([{"path": name, "type": "table"}]))
