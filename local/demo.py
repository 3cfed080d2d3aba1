"""The demo: servers up, one run of `dssm_training` followed live, its verdict and where to look."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dssm_core.cli.screen import print_summary
from dssm_core.runs.pipeline import summary
from dssm_core.runs.run import open_run
from dssm_core.runs.table import STEPS
from local import servers
from local.airflow_api import Airflow

DAG = "dssm_training"
PARSE_S = 120  # the dag-processor looks every few seconds
MARKS = {
    "success": "[green]✓",
    "failed": "[red]✗",
    "running": "[cyan]▶",
    "skipped": "[yellow]–",
    "up_for_retry": "[yellow]↻",
}
console = Console()


def config_name(path: str) -> str:
    """The config's name in the trigger form; the Dag offers what lies in configs/ only."""
    file = Path(path).resolve()
    if file.parent != servers.REPO / "configs" or not file.is_file():
        sys.exit(
            f"CONFIG={path} is not a YAML file in {servers.REPO / 'configs'}: the Dag runs those only, put it there"
        )
    return file.stem


def conf(config: str, data: str | None, test_day: str | None) -> dict[str, Any]:
    """What the trigger form would send."""
    given = {"data": str(Path(data).resolve()) if data else None, "test_day": test_day}
    return {"config": config} | {key: value for key, value in given.items() if value}


def await_dag(airflow: Airflow, config: str) -> None:
    """Wait until the Dag is parsed and offers the config; say what is wrong with it if it cannot be
    parsed.
    """
    deadline = time.monotonic() + PARSE_S
    with console.status(f"Airflow reads {DAG}"):
        while not airflow.knows(DAG, config):
            if time.monotonic() > deadline:
                errors = [
                    error["stack_trace"] for error in airflow.get("importErrors")["import_errors"]
                ]
                sys.exit(
                    f"Airflow does not offer {DAG} with config {config!r} after {PARSE_S} s\n"
                    + "\n".join(errors)
                )
            time.sleep(1)


def follow(airflow: Airflow, run_id: str) -> str:
    """Show the steps as they go, until the run ends or waits for a person; returns its state."""
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            state, tasks = airflow.state(DAG, run_id), airflow.tasks(DAG, run_id)
            live.update(progress(tasks))
            if airflow.settled(DAG, run_id):
                return state
            time.sleep(0.5)


def progress(tasks: dict[str, dict[str, Any]]) -> Table:
    """One line a step: state, seconds so far, what it does."""
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
    """How long a task took, or takes so far."""
    if task.get("duration") is not None and task.get("state") != "running":
        return f"{task['duration']:.0f} s"
    if not task.get("start_date"):
        return ""
    return (
        f"{(datetime.now(UTC) - datetime.fromisoformat(task['start_date'])).total_seconds():.0f} s"
    )


def explain_failure(airflow: Airflow, run_id: str) -> None:
    """Print the end of the log of each task that failed."""
    for name, task in airflow.tasks(DAG, run_id).items():
        if task["state"] == "failed":
            console.rule(f"[red]{name} failed")
            console.print(
                airflow.log_text(DAG, run_id, name, task["try_number"])[-4000:], markup=False
            )


def main() -> None:
    """Command line of `make demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--data")
    parser.add_argument("--test-day")
    args = parser.parse_args()
    config = config_name(args.config)
    try:
        sys.exit(run_demo(conf(config, args.data, args.test_day)))
    except (servers.ServerError, RuntimeError, httpx.HTTPError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped looking; the run goes on in Airflow (make status, make down)")


def run_demo(wanted: dict[str, Any]) -> int:
    """Servers, run, result; returns the exit status."""
    site = servers.up()
    airflow = site.airflow()
    await_dag(airflow, wanted["config"])
    run_id = airflow.trigger(DAG, wanted)
    console.print(f"Dag run {run_id}: {site.airflow_url}/dags/{DAG}/runs/{run_id}", soft_wrap=True)
    state = follow(airflow, run_id)
    if state == "failed":
        explain_failure(airflow, run_id)
    else:
        console.print()
        print_summary(summary(open_run(airflow.xcom(DAG, run_id, "ingest_data"))), console)
    if state == "running":
        console.print(
            f"Promote it or not: {site.airflow_url}/dags/{DAG}/runs/{run_id}/required_actions",
            soft_wrap=True,
        )
    console.print(f"Airflow  {site.airflow_url}   {site.login}", soft_wrap=True, highlight=False)
    tracked = airflow.xcom(DAG, run_id, "train_towers", "mlflow_run")
    console.print(
        f"MLflow   {tracked or site.mlflow_url}\nThe servers stay up: `make down` stops them.",
        soft_wrap=True,
        highlight=False,
    )
    return 1 if state == "failed" else 0


if __name__ == "__main__":
    main()
