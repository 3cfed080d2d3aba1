"""What vectors of items are worth on a log whose test day has mostly new items; Markdown rows for
docs/benchmarks.md: `python -m benchmarks.vectors`.

The log is generated: each day has new items, users click on those of the day and of the day before
in their topic, and only the items' vectors say which topic a new item has. The settings of the runs
differ in those of the vectors only. The first run has the vectors of other items.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.generated import judged, print_seeds
from benchmarks.weights import DAY_S, T0
from dssm_core.config import Config, parse_config

DAYS = 5  # the last one is tested
TOPICS = 20
A_DAY = 3  # new items of a topic in a day
CLICKS = (2, 1)  # of a user in a day, on items of the day and of the day before
WIDTH = 32
NOISE = 0.7  # of the vectors, whose topics differ by 1
LARGE = 100  # the scale of the vectors


def write_log(folder: Path, users: int, seed: int) -> None:
    """Write clicks.parquet and items.parquet of DAYS days."""
    rng = np.random.default_rng(seed)
    number = np.arange(DAYS * TOPICS * A_DAY)  # by day, then topic
    topic = number // A_DAY % TOPICS
    centres = rng.normal(size=(TOPICS, WIDTH))
    vectors = LARGE * (centres[topic] + NOISE * rng.normal(size=(len(number), WIDTH)))
    ids = [f"i{item}" for item in number]
    cells = list(vectors.astype(np.float32))
    mixed = [cells[other] for other in rng.permutation(len(cells))]
    items = pd.DataFrame({"item_id": ids, "vector": cells, "of_another": mixed})
    items.to_parquet(folder / "items.parquet")
    user = np.tile(np.repeat(np.arange(users), sum(CLICKS)), DAYS)
    day = np.repeat(np.arange(DAYS), users * sum(CLICKS))
    age = np.tile(np.repeat(np.arange(len(CLICKS)), CLICKS), DAYS * users)
    born = np.maximum(day - age, 0)
    item = (born * TOPICS + user % TOPICS) * A_DAY + rng.integers(0, A_DAY, len(user))
    time = T0 + day * DAY_S + rng.integers(0, DAY_S, len(user))
    clicks = {"user_id": user, "item_id": [f"i{each}" for each in item], "timestamp": time}
    pd.DataFrame(clicks).to_parquet(folder / "clicks.parquet")


def config_of(folder: Path, seed: int, **vector: object) -> Config:
    """The settings of a run. vector: those of the items' vectors."""
    features = {
        "activity": {"enabled": False},
        "catalogue": "table",
        "history": {"fields": True},
        "columns": {"item": [{"column": "vector", "kind": "vector"} | vector]},
    }
    source = {
        "kind": "parquet",
        "path": str(folder),
        "interactions": {"files": "clicks.parquet", "time_unit": "s"},
        "items": {"files": "items.parquet"},
    }
    return parse_config(
        {
            "name": "vectors",
            "seed": seed,
            "data": {"source": source},
            "features": features,
            "split": {"test_day": "2024-03-05", "train_days": DAYS - 1},
            "sampler": {"kind": "uniform"},
            "train": {
                "epochs": 20,
                "batch_size": 256,
                "negatives": 100,
                "device": "cpu",
                "id_dropout": 0.5,
            },
            "evaluation": {"ks": [20], "baselines": ["hot"]},
            "gate": {"k": 20, "population": "all"},
        }
    )


VARIANTS: dict[str, dict[str, object]] = {
    "vectors of other items": {"column": "of_another", "dim": 16},
    "linear map": {"dim": 16},
    "as they are": {"dim": 0},
    "linear map, not scaled": {"dim": 16, "normaliser": "none"},
}


def main() -> None:
    """Print a table."""
    print_seeds(__doc__, ("seed", *VARIANTS, "most clicked items"), write_log, row)


def row(folder: Path, seed: int) -> str:
    """A Markdown row: recall@20 of each variant, and of the most clicked items."""
    reports = [
        judged(config_of(folder, seed, **vector), folder / "runs", f"run-{number}")
        for number, vector in enumerate(VARIANTS.values())
    ]
    answers = [report.metrics.all for report in reports]
    scores = [answer.served for answer in answers] + [answers[0].baselines["hot"]]
    values = [f"{of.root['recall@20']:.3f}" for of in scores]
    return f"| {seed} | {' | '.join(values)} |"


if __name__ == "__main__":
    main()
