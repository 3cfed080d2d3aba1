"""The config of Globo without changes on one window of the real log, without servers (needs
$DSSM_DATA; minutes).
"""

import json

import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from tests.conftest import REPO

pytestmark = [pytest.mark.e2e, pytest.mark.data]


def test_the_served_index_recalls_the_clicks_of_the_next_day(data_root, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    clicks = data_root / "globo" / "clicks"
    arguments = [
        "run",
        str(REPO / "configs" / "globo.yaml"),
        "--data",
        str(clicks),
        "--test-day",
        "2017-10-07",
        "--set",
        "evaluation.rolling.refresh_h=1",
        "--runs",
        str(tmp_path),
        "--json",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    rows, metrics = result["rows"], result["metrics"]
    assert (
        rows["read"]
        == rows["train"] + rows["test"] + rows["outside"] + rows["quarantined"]
        == 2_073_175
    )
    assert rows["train"] == 1_294_842
    # The recall of these baselines on this window, counted without the code of the project.
    assert metrics["baselines"]["hot"]["recall@200"] == pytest.approx(0.277, abs=0.002)
    assert metrics["baselines"]["recent_hot"]["by_window"]["1h"] == pytest.approx(0.514, abs=0.01)
    assert metrics["ceiling"]["recall@200"] == pytest.approx(0.944, abs=0.002)
    assert metrics["served"]["recall@200"] >= 0.57
    rolled = metrics["rolling"]
    assert rolled["rows"] == {"warm": 69_003, "all": 129_358, "new_items": 33_944}
    assert rolled["warm"]["daily"]["recall@200"] == pytest.approx(
        metrics["served"]["recall@200"], abs=1e-9
    )
    assert rolled["all"]["daily"]["recall@200"] == pytest.approx(
        metrics["all"]["served"]["recall@200"], abs=1e-9
    )
    assert rolled["all"]["baselines"]["recent_hot"]["recall@200"] == pytest.approx(0.901, abs=0.002)
    assert rolled["warm"]["served"]["recall@200"] >= 0.87
    assert rolled["all"]["served"]["recall@200"] >= 0.85
    assert result["gate"]["passed"]
    assert result["version"]
