"""Which steps an edited module changes, on a copy of the package."""

import shutil

import pytest

from dssm_core.runs import code_version as versions
from dssm_core.runs.code_version import PACKAGE, code_version, reachable
from dssm_core.runs.table import STEPS

ALL = list(STEPS)
TO_TRAIN = ALL[ALL.index("sample_negatives") : ALL.index("train_towers") + 1]


@pytest.fixture
def changed(tmp_path):
    """A function: the steps whose code version differs once a module of a copy is edited."""

    def steps(module):
        copy = tmp_path / "dssm_core"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        file = copy / module
        file.write_text(file.read_text() + "\nEDITED = True\n")
        return [name for name in STEPS if version(name, PACKAGE) != version(name, copy)]

    return steps


def version(step, package):
    functions = [STEPS[step].function, *filter(None, [STEPS[step].outside])]
    return code_version(*functions, package=package)


def test_a_copy_that_is_not_edited_has_the_same_version(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "dssm_core")
    for step in STEPS:
        assert version(step, tmp_path / "dssm_core") == version(step, PACKAGE)


@pytest.mark.parametrize("module", ["cli/main.py", "report/page.py", "operation/promotion.py"])
def test_an_edited_caption_or_help_text_changes_no_step(changed, module):
    assert changed(module) == []


def test_an_edited_picture_changes_only_the_step_that_draws_it(changed):
    assert changed("report/to_mlflow.py") == ["log_to_mlflow"]


@pytest.mark.parametrize("module", ["sampling/samplers/uniform.py", "sampling/samplers/mixed.py"])
def test_an_edited_sampler_changes_the_steps_that_sample(changed, module):
    assert [name for name in changed(module) if name != "log_to_mlflow"] == TO_TRAIN


def test_an_edited_baseline_changes_the_gate(changed):
    assert changed("evaluation/baselines/swing.py") == ["recall_gate"]


def test_an_edited_source_changes_what_reads_the_log(changed):
    assert changed("data/sources/parquet.py")[0] == "ingest_data"


def test_an_edited_split_changes_every_step_that_reads_the_config(changed):
    """The config holds the split itself."""
    assert changed("data/splits/leave_one_out.py") == ALL


def test_an_edited_tower_changes_training_and_what_asks_the_towers(changed):
    steps = changed("models/towers/senet.py")
    assert {"train_towers", "export_embeddings", "recall_gate"} <= set(steps)
    assert not {"ingest_data", "validate_data", "split_by_time", "sample_negatives"} & set(steps)


def test_imports_for_type_checkers_are_not_followed(tmp_path):
    package = tmp_path / "dssm_core"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "one.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from dssm_core.hidden import X\n"
        "def f():\n    from dssm_core import two\n"
    )
    (package / "two.py").write_text("import dssm_core.three\nimport torch, json\n")
    for name in ("hidden", "three"):
        (package / f"{name}.py").write_text("")
    modules = reachable("dssm_core.one", package=package)
    assert modules == {"dssm_core.one", "dssm_core.two", "dssm_core.three"}


def test_another_version_of_a_library_is_another_version_of_the_code(monkeypatch):
    before = code_version("dssm_core.training.train_towers:train_towers")
    monkeypatch.setattr(versions, "_installed", lambda distribution: "0.0")
    assert code_version.__wrapped__("dssm_core.training.train_towers:train_towers") != before
