"""A bare GPU machine trains from prepared files: the imports of training stay light."""

import subprocess
import sys

import pytest

HEAVY = (
    "airflow",
    "duckdb",
    "faiss",
    "great_expectations",
    "implicit",
    "matplotlib",
    "mlflow",
    "numba",
    "scipy",
    "sklearn",
)
MODULES = ("dssm_core.training.trainer", "dssm_core.sampling.sampler_tables", "dssm_core.models")


@pytest.mark.parametrize("module", MODULES)
def test_an_import_loads_no_library_of_another_stage(module):
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []
