"""MovieLens-1M and Criteo's displays by YAML alone: users that columns describe.

Planted: a user takes items of one of four groups, and seldom others. Columns tell the group.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dssm_core.config import read_config
from dssm_core.runs.gate_report import read_gate_report
from tests.pipeline.own_logs.conftest import judged_run
from tests.pipeline.own_logs.test_layouts import EVENTS, EXAMPLES, ITEMS, SMALL, USERS, K, events


def test_movielens(tmp_path):
    user, item, second = events(200 * 86_400)
    folder = tmp_path / "log"
    folder.mkdir()
    ratings = pd.DataFrame({"u": user, "i": item, "r": np.arange(EVENTS) % 5 + 1})
    ratings["t"] = 978_300_760 + second
    lines = ["::".join(map(str, row)) for row in ratings.itertuples(index=False)]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    people = [f"{n}::{'MF'[n % 2]}::{[1, 18, 25][n % 3]}::{n % 4}::48067\n" for n in range(USERS)]
    (folder / "users.dat").write_text("".join(people))
    kinds = ("Action", "Comedy", "Drama", "Children's")
    movies = [f'{n}::Café "{n}" (1995)::{kinds[n % 4]}|Musical\n' for n in range(ITEMS)]
    (folder / "movies.dat").write_text("".join(movies), encoding="latin-1")
    run = judged_run(read_config(EXAMPLES / "movielens-genres.yaml", folder, SMALL), tmp_path)
    rows = run.need("split_by_time").rows
    assert (rows["read"], rows["quarantined"]) == (
        EVENTS,
        ratings.duplicated(["u", "i", "t"]).sum(),
    )
    report = read_gate_report(run)
    assert report.passed, report.reasons
    served = report.metrics.served.value(f"recall@{K}")
    assert served > 0.3 > report.metrics.baselines["hot"].value(f"recall@{K}")


def test_criteo(tmp_path):
    """Each display is of another user, every tenth without a uid. cat1 tells the group."""
    group, item, second = events(5 * 86_400)
    folder = tmp_path / "log"
    folder.mkdir()
    number = np.arange(EVENTS)
    frame = pd.DataFrame(
        {
            "timestamp": second,
            "uid": pd.Series(number + 20_073_966).where(number % 10 > 0).astype("Int64"),
            "campaign": item * 1001 + 9_100_690,
            "conversion": (number % 7 == 0).astype(int),
            "click": 1,
            "cost": 0.00001 * (1 + number % 9),
            "cat1": group % 4 * 999 + 5_824_233,
            **{f"cat{n}": number * n % 13 + 28_928_366 for n in range(2, 10)},
        }
    )
    frame.to_csv(folder / "criteo_attribution_dataset.tsv.gz", sep="\t", index=False)
    small = [
        *SMALL,
        "train.epochs=4",
        "gate.population=all",
        "split={test_day: 1970-01-05, train_days: 4}",
    ]
    small.append("validation.min_rows_per_day=100")
    run = judged_run(read_config(EXAMPLES / "criteo.yaml", folder, small), tmp_path)
    assert run.need("split_by_time").rows["quarantined"] == 0
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["user_id"].is_unique
    anonymous = train["user_id"].str.startswith("criteo_attribution_dataset.tsv.gz:").sum()
    assert anonymous == (number[second < 4 * 86_400] % 10 == 0).sum()
    report = read_gate_report(run)
    assert report.passed, report.reasons
    served = report.metrics.all.served.value(f"recall@{K}")
    assert served > 0.3 > report.metrics.all.baselines["hot"].value(f"recall@{K}")
