"""Rules of the house that code can hold: who may import what."""

import ast
import re

import pytest

from tests.conftest import REPO

CORE = sorted((REPO / "dssm_core").rglob("*.py"))


def imported(file):
    """Top-level packages that a file imports anywhere, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(REPO)))
def test_the_core_knows_nothing_of_airflow_and_mlflow_has_two_doors(file):
    assert not imported(file) & {"airflow", "tasks", "local", "dags"}
    if file.name not in ("versions.py", "retriever.py"):
        assert "mlflow" not in imported(file)


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(REPO)))
def test_no_clock_decides_a_number_and_nothing_is_unpickled(file):
    text = file.read_text()
    if file.name == "main.py":  # the clock of a person's decision, handed on as `at`
        text = text.replace("datetime.now(UTC)", "")
    assert not re.search(
        r"datetime\.now|date\.today|np\.random\.seed|allow_pickle=True|weights_only=False|import pickle",
        text,
    )


def test_readme_is_short_and_names_every_step():
    from dssm_core.runs.steps import STEPS

    text = (REPO / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert all(name in text for name in STEPS)


def test_every_test_that_operations_names_is_there():
    named = re.findall(
        r"(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)", (REPO / "docs" / "operations.md").read_text()
    )
    assert len(named) > 10
    assert [
        f"{file}::{name}" for file, name in named if f"def {name}(" not in (REPO / file).read_text()
    ] == []
