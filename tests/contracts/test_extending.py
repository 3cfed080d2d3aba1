"""docs/extending.md is true: its members, each a file and a line in families.py, work in a copy of
the library through settings, form, contract tests, training, gate and report.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import duckdb
import pytest
import yaml
from pyarrow import feather

from dssm_core.data.sources.synthetic import Synthetic
from tests.conftest import REPO, small_config

PAGE = (REPO / "docs" / "extending.md").read_text()
NEW_FILE = re.compile(r"In `(\S+/)`, a new file (\w+\.py):\n```python\n(.*?)```", re.S)
NEW_LINE = re.compile(r"`(\"(\w+)\": \"\S+\",)`\s+in\s+`([A-Z]+)`")
SAMPLE = re.compile(r"```python\n(def _(\w+)\(folder: Path\).*?)```", re.S)
LISTED = {name: kind for _, kind, name in NEW_LINE.findall(PAGE)}
CONTRACTS = {
    "LOSSES": "losses",
    "SAMPLERS": "samplers",
    "TOWERS": "towers",
    "INDEXES": "indexes",
    "BASELINES": "baselines",
    "SOURCES": "sources",
}
FORM = """
import json
from tasks.form import training_form
form = training_form()
print(json.dumps({name: form[name].schema["enum"] for name in ("loss", "sampler", "tower")}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the library in which the page was followed."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("dssm_core", "tasks", "local", "configs"):
        shutil.copytree(REPO / folder, root / folder)
    shutil.copytree(REPO / "tests" / "contracts", root / "tests" / "contracts")
    shutil.copy(REPO / "tests" / "conftest.py", root / "tests")
    for folder, name, code in NEW_FILE.findall(PAGE):
        (root / folder / name).write_text(code)
    families = root / "dssm_core" / "families.py"
    text = families.read_text()
    for line, _, family in NEW_LINE.findall(PAGE):
        text = text.replace(f"\n{family} = {{\n", f"\n{family} = {{\n    {line}\n")
    families.write_text(text)
    sources = root / "tests" / "contracts" / "test_sources.py"
    ((sample, kind),) = SAMPLE.findall(PAGE)
    text = sources.read_text().replace("MAKERS = {", f'MAKERS = {{\n    "{kind}": _{kind},')
    text = text.replace("import pyarrow as pa\n", "import pyarrow as pa\nimport pyarrow.feather\n")
    sources.write_text(text.replace("\nMAKERS = {", f"\n{sample}\nMAKERS = {{"))
    return root


def python(root, *arguments):
    """Run Python in the copy; its standard output."""
    environment = os.environ | {"PYTHONPATH": str(root), "AIRFLOW_HOME": str(root / "airflow")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def config(root, name, **changes):
    """Write a config of the copy over a small log in Feather files; its path."""
    log = root / "log"
    if not log.exists():
        log.mkdir()
        with duckdb.connect() as con:
            clicks = Synthetic(users=800, items=500, clicks=20000, days=7).read(con).interactions
            feather.write_feather(clicks.to_arrow_table(), log / "clicks.feather")
    source = {"kind": LISTED["SOURCES"], "path": str(log), "interactions": {"files": "*.feather"}}
    raw = small_config(name=name, data={"source": source, "timezone": "UTC"}, **changes)
    raw["features"] = raw["features"] | {"columns": {}}
    file = root / "configs" / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def run(root, file):
    """Run all steps up to the gate; the folder of the run."""
    until = ["--until", "recall_gate", "--runs", str(root / "runs"), "--json"]
    lines = python(root, "-m", "dssm_core.cli", "run", str(file), *until).splitlines()
    summary = json.loads(lines[-1])
    return root / summary["run"], summary


def test_the_page_has_a_member_for_each_family():
    assert sorted(LISTED) == sorted(
        ["LOSSES", "SAMPLERS", "TOWERS", "INDEXES", "BASELINES", "SOURCES", "SPLITS"]
    )
    assert len(NEW_FILE.findall(PAGE)) == len(LISTED)


def test_the_form_offers_them(extended):
    offered = json.loads(python(extended, "-c", FORM).splitlines()[-1])
    assert LISTED["LOSSES"] in offered["loss"]
    assert LISTED["SAMPLERS"] in offered["sampler"]
    assert LISTED["TOWERS"] in offered["tower"]


def test_their_settings_are_described(extended):
    described = python(extended, "-m", "dssm_core.cli", "settings", "--markdown")
    assert [kind for kind in LISTED.values() if f"kind: {kind}\n" not in described] == []


def test_a_wrong_setting_of_one_is_refused_with_a_hint(extended):
    code = (
        "from dssm_core.config import read_config\n"
        "from dssm_core.errors import ConfigError\n"
        "try:\n"
        f"    read_config('configs/demo.yaml', overrides=['loss.kind={LISTED['LOSSES']}',"
        " 'loss.margni=2'])\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    assert "did you mean 'margin'?" in python(extended, "-c", code)


def test_they_keep_the_contracts_of_their_families(extended):
    selected = " or ".join(LISTED.values())
    arguments = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "--import-mode=importlib"]
    files = [f"tests/contracts/test_{name}.py" for name in CONTRACTS.values()]
    printed = python(extended, *arguments, "-k", selected, *files)
    for family, name in CONTRACTS.items():
        assert re.search(rf"test_{name}\.py::\S+\[{LISTED[family]}\S*\] PASSED", printed), family


def test_a_run_with_all_of_them_is_trained_judged_and_reported(extended):
    baseline = LISTED["BASELINES"]
    file = config(
        extended,
        "toys",
        loss={"kind": LISTED["LOSSES"]},
        sampler={"kind": LISTED["SAMPLERS"]},
        tower={"kind": LISTED["TOWERS"]},
        index={"kind": LISTED["INDEXES"]},
        evaluation={"bootstrap": 20, "baselines": ["hot", {"kind": baseline, "half_life_h": 3}]},
        train__epochs=1,
    )
    folder, summary = run(extended, file)
    assert summary["metrics"]["served"]["recall@200"] > 0
    assert baseline in summary["metrics"]["baselines"]
    report = (folder / "recall_gate" / "report.html").read_text()
    assert baseline in report
    assert LISTED["INDEXES"] in report


def test_a_run_by_the_new_split_tests_every_nth_row(extended):
    file = config(
        extended,
        "toy-split",
        split={"kind": LISTED["SPLITS"], "n": 4},
        sampler={"kind": "uniform"},
        evaluation={"bootstrap": 20, "baselines": ["hot"]},
        features={"activity": {"enabled": False}},
        train__epochs=1,
    )
    folder, _ = run(extended, file)
    users = "SELECT count(*) AS n FROM log GROUP BY user_id"
    with duckdb.connect() as con:
        con.execute(f"CREATE VIEW log AS SELECT * FROM '{folder / 'ingest_data' / '*.parquet'}'")
        tested, trained = con.execute(
            f"SELECT sum(n // 4), sum(n - n // 4) FROM ({users})"
        ).fetchone()
    rows = json.loads((folder / "split_by_time" / "manifest.json").read_text())["rows"]
    assert (rows["test"], rows["train"]) == (tested, trained)
