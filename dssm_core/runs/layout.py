"""Names of the files in a run's folder and in the folders of its steps. A bundle uses the same."""

from __future__ import annotations

CONFIG_FILE = "config.json"  # run folder: the settings
CHANGED_FILE = "changed.json"  # run folder: the settings that differ from the config file
MANIFEST_FILE = "manifest.json"  # every step: what it wrote

DATA_CHECKS_FILE = "data_checks.html"  # validate_data: every rule, the days, quarantined rows
TRAIN_FILE = "train.parquet"  # split_by_time
TEST_FILE = "test.parquet"  # split_by_time
QUARANTINE_FILE = "quarantine.parquet"  # validate_data, split_by_time

USER_IDS_FILE = "user_ids.parquet"  # sample_negatives, export_embeddings
ITEM_IDS_FILE = "item_ids.parquet"  # sample_negatives, export_embeddings
TABLES_FILE = "tables.safetensors"  # sample_negatives: features of users and items
SCHEMA_FILE = "schema.json"  # sample_negatives: what the columns of the tables mean
LOG_FILE = "log.safetensors"  # sample_negatives: the training events
CODE_ROWS_FILE = "code_rows.safetensors"  # sample_negatives: the log's rows by user and by item
SAMPLER_FILE = "sampler.safetensors"  # sample_negatives: tables of the sampler

TOWERS_FILE = "towers.safetensors"  # train_towers: weights
HISTORY_FILE = "history.jsonl"  # train_towers: loss and validation by step
CHECKPOINT_FILE = "checkpoint.pt"  # train_towers: only while it trains

ITEM_COLUMNS_FILE = "item_columns.parquet"  # export_embeddings: what requests filter items by
USER_EMBEDDINGS_FILE = "user_embeddings.npy"  # export_embeddings: [U + 1, D]
ITEM_EMBEDDINGS_FILE = "item_embeddings.npy"  # export_embeddings: [N, D]

GATE_FILE = "gate.json"  # recall_gate: verdict, reasons, metrics
CURVES_FILE = "curves.json"  # recall_gate: recall by list length
REPORT_FILE = "report.html"  # recall_gate: the report for people; `dssm report` writes another

START_FOLDER = "start"  # run folder: the registered model that the training starts from
VERSION_FILE = "version.json"  # start folder: its name and version
MLFLOW_FILE = "mlflow.json"  # run folder: its MLflow run
SWEEP_FILE = (
    "parent.json"  # folder of a trial: the MLflow run of its sweep, and the label of the trial
)


def table_file(table: str) -> str:
    """The Parquet file of a table: interactions, users, items, train or test."""
    return f"{table}.parquet"


def ids_file(column: str) -> str:
    """The vocabulary of an id column: `user_id` or `item_id`."""
    return f"{column}s.parquet"
