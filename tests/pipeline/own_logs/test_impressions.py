"""Negatives from the impression: the model learns what users choose of what they see.

Planted: three of four promoted items are in each impression, so that each has twice the clicks of
any other item; but of what is shown, users choose others three times as often.
"""

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import parse_config
from dssm_core.runs.gate_report import read_gate_report
from tests.pipeline.own_logs.conftest import judged_run

USERS, PROMOTED, OTHERS, ROUNDS = 150, 4, 40, 24
SHOWN_PROMOTED, SHOWN_OTHERS, ODDS = 3, 4, 0.3
START_MS, ROUND_MS = 1_709_251_200_000, 6 * 3_600_000  # 2024-03-01


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = USERS * ROUNDS
    promoted = rng.random((n, PROMOTED)).argsort(1)[:, :SHOWN_PROMOTED]
    others = PROMOTED + rng.random((n, OTHERS)).argsort(1)[:, :SHOWN_OTHERS]
    items = np.concatenate([promoted, others], axis=1)
    odds = np.where(items < PROMOTED, ODDS, 1.0)
    click = (np.log(odds) + rng.gumbel(size=odds.shape)).argmax(1)
    size = items.shape[1]
    frame = pd.DataFrame(
        {
            "user_id": np.tile(np.arange(USERS), ROUNDS).repeat(size),
            "item_id": items.ravel(),
            "timestamp": (START_MS + np.arange(ROUNDS).repeat(USERS) * ROUND_MS).repeat(size),
            "label": (np.arange(size) == click[:, None]).ravel().astype(int),
            "impression_id": np.arange(n).repeat(size),
        }
    )
    folder = tmp_path_factory.mktemp("shop")
    frame.to_parquet(folder / "rows.parquet", index=False)
    return folder


def gauc(log, name, **sections):
    """AUC within users of a run on the test rows, and the info of sample_negatives."""
    source = {"kind": "parquet", "path": str(log), "interactions": {"files": "rows.parquet"}}
    raw = {
        "name": "t",
        "data": {"source": source},
        "split": {"test_day": "2024-03-06", "train_days": 5},
        "features": {"activity": {"enabled": False}},
        "model": {"dim": 16},
        "train": {"epochs": 4, "batch_size": 256, "negatives": 32, "learning_rate": 0.02},
        "evaluation": {"ks": [10], "bootstrap": 20, "baselines": ["hot"]},
        "gate": {"k": 10},
        **sections,
    }
    run = judged_run(parse_config(raw), log / name)
    pointwise = read_gate_report(run).metrics.pointwise
    assert pointwise is not None
    return pointwise.value("gauc"), run.need("sample_negatives").info


def test_negatives_from_the_impression_rank_what_is_chosen_first(log):
    """A ranking by clicks has a GAUC of about 0.36, one by clicks of what was shown about 0.64."""
    uniform, info = gauc(log, "uniform", sampler={"kind": "uniform"})
    assert "drawn_from" not in info
    assert uniform < 0.45
    loss = {"kind": "sampled_softmax", "log_q": False}
    exposed, info = gauc(log, "exposed", sampler={"kind": "exposed"}, loss=loss)
    assert exposed > 0.57
    assert info["drawn_from"]["impression"] > 10 * info["drawn_from"]["uniform"]
