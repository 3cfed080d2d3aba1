"""The public layout of MIND by YAML alone: impressions in one cell become a judged model.

Planted: a user clicks news of one of four categories, and hardly any other.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import read_config
from dssm_core.runs.gate_report import read_gate_report
from tests.conftest import REPO
from tests.pipeline.own_logs.conftest import judged_run

USERS, NEWS, IMPRESSIONS, SHOWN = 300, 160, 6000, 6
CATEGORIES = ("sports", "finance", "travel", "music")
START = datetime(2019, 11, 9, tzinfo=UTC)
K = 20
SMALL = [
    "validation.min_rows_per_day=100",
    "train={epochs: 8, batch_size: 256, negatives: 64, learning_rate: 0.01, device: cpu}",
    f"evaluation={{ks: [{K}], bootstrap: 20, baselines: [hot]}}",
    f"gate={{k: {K}, floor: 0.2, min_index_ratio: 0.0}}",
]


def write_news(folder):
    """Lines with quotation marks, as titles have, and the columns that the config leaves out."""
    rest = 'Abstract\thttps://example.com\t[{"Label": "x"}]\t[]'
    lines = []
    for n in range(NEWS):
        name = CATEGORIES[n % 4]
        lines.append(f'N{n}\t{name}\t{name}{n % 3}\tWhy "{n}" isn\'t {name}\t{rest}\n')
    (folder / "news.tsv").write_text("".join(lines))


def write_behaviors(folder):
    """Impressions of six days; one has nothing shown. Returns a row for each shown item."""
    rng = np.random.default_rng(5)
    seconds = np.sort(rng.integers(0, 6 * 86_400, IMPRESSIONS))
    lines, shown = [], []
    for number, second in enumerate(seconds.tolist()):
        user = int(rng.integers(USERS))
        news = rng.permutation(NEWS)[:SHOWN].tolist()
        clicks = [int(rng.random() < (0.9 if n % 4 == user % 4 else 0.03)) for n in news]
        time = START + timedelta(seconds=second)
        cell = " ".join(f"N{n}-{click}" for n, click in zip(news, clicks, strict=True))
        written = time.strftime("%m/%d/%Y %I:%M:%S %p").lstrip("0")  # 9:05, as in the original
        lines.append(f"{number + 1}\tU{user}\t{written}\tN1 N2\t{cell}")
        shown += [(number + 1, time.day, click) for click in clicks]
    lines.append(f"{IMPRESSIONS + 1}\tU1\t11/14/2019 11:59:59 PM\t\t")
    (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    return pd.DataFrame(shown, columns=["impression", "day", "click"])


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The shown items, and the run up to the gate."""
    folder = tmp_path_factory.mktemp("MINDsmall_train")
    write_news(folder)
    shown = write_behaviors(folder)
    config = read_config(REPO / "configs" / "examples" / "mind.yaml", folder, SMALL)
    return shown, judged_run(config, tmp_path_factory.mktemp("runs"))


def test_every_shown_item_is_a_row(judged):
    shown, run = judged
    rows = run.need("split_by_time").rows
    assert rows == {
        "read": len(shown) + 1,
        "train": int((shown["day"] < 14).sum()),
        "test": int((shown["day"] == 14).sum()),
        "outside": 0,
        "quarantined": 1,  # the impression with nothing shown
    }
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["label"].sum() == shown.loc[shown["day"] < 14, "click"].sum()
    assert train.groupby("impression_id").size().eq(SHOWN).all()
    assert "_dssm_nameless_3" not in train.columns


def test_the_model_finds_the_categories_that_users_click(judged):
    """A list of 20 of the 40 news of the own category finds half of the clicks; the 20 hottest of
    160 find an eighth.
    """
    _, run = judged
    report = read_gate_report(run)
    served = report.metrics.served.value(f"recall@{K}")
    hot = report.metrics.baselines["hot"].value(f"recall@{K}")
    assert served > 0.3 > hot
    assert report.passed, report.reasons
