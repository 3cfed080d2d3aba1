"""One row of a table, really run."""

import yaml
from click.testing import CliRunner

from benchmarks.__main__ import main
from dssm_core.runs.json_lines import read_json_lines
from dssm_core.runs.table import STEPS
from tests.conftest import small_config


def test_a_row_and_its_baseline_are_measured_by_a_run_up_to_the_gate(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for folder in ("benchmarks", "configs"):
        (tmp_path / folder).mkdir()
    raw = small_config()
    raw["data"]["source"] |= {"users": 600, "clicks": 12_000}
    (tmp_path / "configs" / "small.yaml").write_text(yaml.safe_dump(raw))
    rows = [
        {"title": "ours", "config": "small.yaml"},
        {"title": "hot", "config": "small.yaml", "baseline": "hot"},
    ]
    rows.append({"title": "ceiling", "config": "small.yaml", "ceiling": True})
    table = {
        "title": "t",
        "protocol": "p",
        "columns": {"recall@200": "recall", "all.recall@20": "all"},
        "seeds": [3],
        "rows": rows,
    }
    (tmp_path / "benchmarks" / "one.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    arguments = ["one", "--checkout", str(tmp_path), "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    (record,) = read_json_lines(tmp_path / "benchmarks" / "results" / "one.jsonl")
    assert set(record["seconds"]) == set(STEPS) - {"register_model"}
    assert record["parameters"] > 1000
    assert record["device"] == "cpu"
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    metrics = record["metrics"]
    assert f"| {metrics['served']['recall@200']:.3f}" in text.replace("*", "")
    assert f"| hot | {metrics['baselines']['hot']['recall@200']:.3f}" in text.replace("*", "")
    assert f"| ceiling | {metrics['ceiling']['recall@200']:.3f}" in text
    assert f"{metrics['all']['served']['recall@20']:.3f}" in text
