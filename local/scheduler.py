"""Airflow's scheduler with the libraries of the steps already imported: `python -m local.scheduler`
takes the arguments of `airflow scheduler`.

The LocalExecutor forks each task from the scheduler. A task does not repeat an import that the
scheduler has made, and starts some seconds earlier. The project's own code is not imported here,
so that a task always runs the code that is on the disk.
"""

from __future__ import annotations

import sys
from importlib import import_module

LIBRARIES = (
    "duckdb",
    "faiss",
    "great_expectations",
    "matplotlib.pyplot",
    "mlflow.pyfunc",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "torch._dynamo",  # the first step of an optimizer imports it
)


def main() -> None:
    """Import the libraries, then become the scheduler."""
    for library in LIBRARIES:
        import_module(library)
    from airflow.__main__ import main as airflow

    sys.argv.insert(1, "scheduler")
    airflow()


if __name__ == "__main__":
    main()
