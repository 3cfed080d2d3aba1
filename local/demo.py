"""The demo: start the servers, follow one run of `dssm_training`, print its result."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table
from tenacity import RetryError

from dssm_core.cli.screen import print_summary
from dssm_core.runs.pipeline import summary
from dssm_core.runs.run import open_run
from dssm_core.runs.table import STEPS
from local import servers
from local.airflow_api import Airflow
from local.waiting import wait_for

DAG = "dssm_training"
PARSE_S = 120  # the dag-processor parses new files every few seconds
MARKS = {
    "success": "[green]✓",
    "failed": "[red]✗",
    "running": "[cyan]▶",
    "skipped": "[yellow]–",
    "up_for_retry": "[yellow]↻",
}
console = Console()


def config_name(path: str) -> str:
    """The name of a config in the trigger form, which offers the files of configs/ only."""
    file = Path(path).resolve()
    folder = servers.REPO / "configs"
    if file.parent != folder or not file.is_file():
        sys.exit(
            f"CONFIG={path} is not a YAML file in {folder}: put it there, the Dag reads no other"
        )
    return file.stem


def conf(config: str, data: str | None, test_day: str | None) -> dict[str, Any]:
    """The values that the trigger form would send."""
    values = {"data": str(Path(data).resolve()) if data else None, "test_day": test_day}
    return {"config": config} | {key: value for key, value in values.items() if value}


def await_dag(airflow: Airflow, config: str) -> None:
    """Wait until Airflow has parsed the Dag and offers the config. Exit with the import errors if
    this takes too long.
    """
    with console.status(f"Airflow parses {DAG}"):
        try:
            wait_for(lambda: airflow.offers(DAG, config), every_s=1, at_most_s=PARSE_S)
        except RetryError:
            errors = airflow.get("importErrors")["import_errors"]
            lines = [
                f"Airflow does not offer {DAG} with config {config!r} after {PARSE_S} s",
                *(error["stack_trace"] for error in errors),
            ]
            sys.exit("\n".join(lines))


def follow(airflow: Airflow, run_id: str) -> str:
    """Show the steps until the run ends or waits for its review, and return its state."""
    with Live(console=console, refresh_per_second=4) as live:

        def final_state() -> str | None:
            state = airflow.state(DAG, run_id)
            live.update(progress(airflow.tasks(DAG, run_id)))
            return state if airflow.settled(DAG, run_id) else None

        return str(wait_for(final_state, every_s=0.5))


def progress(tasks: dict[str, dict[str, Any]]) -> Table:
    """A table with a line for each step: state, seconds so far, what it does."""
    table = Table(box=None, show_header=False, padding=(0, 1))
    for name, step in STEPS.items():
        task = tasks.get(name, {})
        state = task.get("state") or ""
        table.add_row(
            MARKS.get(state, " "),
            name,
            seconds(task),
            f"[dim]{step.title if state in ('', 'running') else state}",
        )
    return table


def seconds(task: dict[str, Any]) -> str:
    """How long a task took, or has taken so far; empty if it has not started."""
    if task.get("duration") is not None and task.get("state") != "running":
        return f"{task['duration']:.0f} s"
    if not task.get("start_date"):
        return ""
    elapsed = datetime.now(UTC) - datetime.fromisoformat(task["start_date"])
    return f"{elapsed.total_seconds():.0f} s"


def explain_failure(airflow: Airflow, run_id: str) -> None:
    """Print the end of the log of each failed task."""
    for name, task in airflow.tasks(DAG, run_id).items():
        if task["state"] == "failed":
            console.rule(f"[red]{name} failed")
            console.print(
                airflow.log_text(DAG, run_id, name, task["try_number"])[-4000:], markup=False
            )


def main() -> None:
    """The command line of `make demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml", help="a YAML file in configs/")
    parser.add_argument("--data", help="folder or file of the log, instead of the config's path")
    parser.add_argument("--test-day", help="first test day, such as 2024-03-07")
    args = parser.parse_args()
    config = config_name(args.config)
    try:
        sys.exit(run_demo(conf(config, args.data, args.test_day)))
    except (servers.ServerError, RuntimeError, httpx.HTTPError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(
            "the run continues in Airflow: `make status` shows where, `make down` stops the servers"
        )


def run_demo(form: dict[str, Any]) -> int:
    """Start the servers, run the Dag, and print the result. Returns the exit status."""
    site = servers.up()
    airflow = site.airflow()
    await_dag(airflow, form["config"])
    run_id = airflow.trigger(DAG, form)
    console.print(f"Dag run {run_id}: {site.airflow_url}/dags/{DAG}/runs/{run_id}", soft_wrap=True)
    state = follow(airflow, run_id)
    if state == "failed":
        explain_failure(airflow, run_id)
    else:
        console.print()
        print_summary(summary(open_run(airflow.xcom(DAG, run_id, "ingest_data"))), console)
    if state == "running":
        console.print(
            f"Review it: {site.airflow_url}/dags/{DAG}/runs/{run_id}/required_actions",
            soft_wrap=True,
        )
    console.print(f"Airflow  {site.airflow_url}   {site.login}", soft_wrap=True, highlight=False)
    mlflow_run = airflow.xcom(DAG, run_id, "train_towers", "mlflow_run")
    console.print(f"MLflow   {mlflow_run or site.mlflow_url}", soft_wrap=True, highlight=False)
    console.print("The servers keep running: `make down` stops them.", highlight=False)
    return 1 if state == "failed" else 0


if __name__ == "__main__":
    main()
