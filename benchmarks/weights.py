"""What weights of events are worth on a log in which they can matter; Markdown rows for
docs/benchmarks.md: `python -m benchmarks.weights`.

The log is generated: users click on bargains of which they buy none, and buy in the category of
their segment. The test day is judged by purchases. The config is configs/examples/ecommerce.yaml,
with the weights in it and without weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import generated
from benchmarks.tables import CHECKOUT
from dssm_core.aliases import Ints
from dssm_core.config import read_config
from dssm_core.runs.gate_report import GateReport

CONFIG = CHECKOUT / "configs" / "examples" / "ecommerce.yaml"
DAYS = 5
DAY_S = 86_400
T0 = 1_709_251_200  # 2024-03-01 00:00 UTC
CATEGORIES = 9  # of goods, as many as segments of users
IN_CATEGORY = 20  # items of a category, and bargains
EVENTS = {"click": 2, "cart": 0.5, "purchase": 0.45}  # a user's on goods in a day, on average
BARGAINS = 6  # a user's clicks on bargains in a day


def write_log(folder: Path, users: int, seed: int) -> None:
    """Write events.csv, users.csv and items.csv of DAYS days."""
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, CATEGORIES, users)
    items = np.arange((CATEGORIES + 1) * IN_CATEGORY)
    category = items // IN_CATEGORY  # the last one is that of the bargains
    parts = [_events(rng, segment, event, mean) for event, mean in EVENTS.items()]
    bargains = np.full(users, CATEGORIES)
    parts.append(_events(rng, bargains, "click", BARGAINS))
    events = pd.concat(parts).sort_values("timestamp")
    events.to_csv(folder / "events.csv", index=False)
    names = [f"s{part}" for part in segment]
    pd.DataFrame({"user_id": np.arange(users), "segment": names}).to_csv(
        folder / "users.csv", index=False
    )
    prices = rng.lognormal(3, 1, len(items)).round(2)
    goods = [f"c{part}" for part in category]
    pd.DataFrame({"item_id": items, "category": goods, "price": prices}).to_csv(
        folder / "items.csv", index=False
    )


def _events(rng: np.random.Generator, category: Ints, event: str, mean: float) -> pd.DataFrame:
    """Events of one sort, of each user on random items of a category. category: [users]"""
    user = np.repeat(np.arange(len(category)), rng.poisson(mean * DAYS, len(category)))
    return pd.DataFrame(
        {
            "user_id": user,
            "item_id": category[user] * IN_CATEGORY + rng.integers(0, IN_CATEGORY, len(user)),
            "timestamp": rng.integers(T0, T0 + DAYS * DAY_S, len(user)),
            "event": event,
        }
    )


def judged(log: Path, runs: Path, name: str, *settings: str) -> GateReport:
    """The gate's report of a run of the config on the log."""
    return generated.judged(read_config(CONFIG, log, settings), runs, name)


def main() -> None:
    """Print a table."""
    heads = ("seed", "recall@20 with weights", "without", "most clicked items")
    generated.print_seeds(__doc__, heads, write_log, row)


def row(folder: Path, seed: int) -> str:
    """A Markdown row."""
    weighted = judged(folder, folder / "runs", "weighted", f"seed={seed}")
    plain = judged(folder, folder / "runs", "plain", f"seed={seed}", "data.weight=null")
    served = [weighted.metrics.served, plain.metrics.served, plain.metrics.baselines["hot"]]
    values = [f"{metrics.root['recall@20']:.3f}" for metrics in served]
    return f"| {seed} | {' | '.join(values)} |"


if __name__ == "__main__":
    main()
