"""The house rules of CONTRIBUTING.md that code can check."""

import ast
import re
import subprocess
import sys

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
def test_the_core_never_imports_airflow_and_only_two_packages_import_mlflow(file):
    assert not imported(file) & {"airflow", "tasks", "local", "dags"}
    if file.parent.name not in ("tracking", "registry"):
        assert "mlflow" not in imported(file)


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(REPO)))
def test_no_file_reads_the_clock_uses_global_seeds_or_unpickles(file):
    text = file.read_text()
    if file == REPO / "dssm_core" / "cli" / "terminal.py":  # commands pass the clock to the library
        text = text.replace("datetime.now(UTC)", "")
    assert not re.search(
        r"datetime\.now|date\.today|np\.random\.seed|allow_pickle=True|weights_only=False"
        r"|import pickle",
        text,
    )


def test_files_are_short():
    lengths = {str(file.relative_to(REPO)): len(file.read_text().splitlines()) for file in CORE}
    assert {file for file, lines in lengths.items() if lines > 400} == set()
    assert len([file for file, lines in lengths.items() if lines > 300]) <= 5


def test_readme_is_short_and_names_every_step():
    from dssm_core.runs.table import STEPS

    text = (REPO / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    assert all(name in text for name in STEPS)


def test_every_test_that_operations_names_exists():
    tests = re.findall(
        r"(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)", (REPO / "docs" / "operations.md").read_text()
    )
    assert len(tests) > 10
    assert [
        f"{file}::{name}" for file, name in tests if f"def {name}(" not in (REPO / file).read_text()
    ] == []


def test_the_lazy_names_exist_and_type_checkers_see_the_same():
    import dssm_core

    tree = ast.parse((REPO / "dssm_core" / "__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in block.body
        for alias in node.names
        if alias.name == alias.asname
    }
    assert typed == {name: f"dssm_core.{module}" for name, module in dssm_core.MODULES.items()}
    assert all(getattr(dssm_core, name) for name in dssm_core.__all__)
    assert set(dssm_core.__all__) <= set(dir(dssm_core))
    with pytest.raises(AttributeError, match="no attribute 'read_confg'"):
        dssm_core.read_confg  # noqa: B018


def test_importing_the_package_loads_no_heavy_library():
    code = (
        "import sys, dssm_core;"
        "heavy = {'torch', 'numpy', 'pandas', 'pydantic', 'mlflow', 'faiss', 'duckdb'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
