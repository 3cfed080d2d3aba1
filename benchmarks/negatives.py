"""What negatives from the impression of a click are worth on a log in which they can matter;
Markdown rows for docs/benchmarks.md: `python -m benchmarks.negatives`.

The log is generated, in the format of MIND. An impression shows news of the categories of its user,
and a few promoted news, which are shown to everyone all the time. Users click on the subcategory
that they like, and seldom on anything else; but each promoted news is shown so often that it has
more clicks than any other. The config is configs/examples/mind.yaml.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.generated import judged, print_seeds
from benchmarks.tables import CHECKOUT
from dssm_core.aliases import Bools, Ints
from dssm_core.config import read_config

CONFIG = CHECKOUT / "configs" / "examples" / "mind.yaml"
DAYS = 6
DAY_S = 86_400
START = pd.Timestamp("2019-11-09")
IMPRESSIONS = 5  # of a user in a day
PROMOTED = 6  # news; the first ones
CATEGORIES = 6
IN_CATEGORY = 60  # news of a category
SUBCATEGORIES = 3  # of each category; a user likes the same one of each category
OF_USER = 2  # categories that a user is shown
SHOWN_PROMOTED = 4  # in an impression
SHOWN = 8  # other news in an impression
LIKED, PROMOTION, OTHER = 1.0, 0.15, 0.1  # odds of a click
SETTINGS = (
    "train={epochs: 10, patience: 5, batch_size: 256, negatives: 128, learning_rate: 0.01}",
    "evaluation.ks=[20]",
    "gate.k=20",
)
WAYS = {
    "uniform": ("sampler={kind: uniform}",),
    "exposed": ("sampler={kind: exposed}",),
    "exposed, no log-Q": ("sampler={kind: exposed}", "loss={kind: sampled_softmax, log_q: false}"),
}


def write_log(folder: Path, users: int, seed: int) -> None:
    """Write behaviors.tsv and news.tsv of DAYS days, with a few impressions a day of each user."""
    rng = np.random.default_rng(seed)
    news = np.arange(PROMOTED + CATEGORIES * IN_CATEGORY)
    category = np.where(news < PROMOTED, CATEGORIES, (news - PROMOTED) // IN_CATEGORY)
    subcategory = np.where(news < PROMOTED, SUBCATEGORIES, news % SUBCATEGORIES)
    interests = rng.random((users, CATEGORIES)).argsort(1)[:, :OF_USER]
    likes = rng.integers(0, SUBCATEGORIES, users)
    user = np.repeat(np.arange(users), IMPRESSIONS * DAYS)
    shown = _impressions(rng, interests[user])
    odds = np.where(subcategory[shown] == likes[user][:, None], LIKED, OTHER)
    odds[shown < PROMOTED] = PROMOTION
    noise = rng.gumbel(size=shown.shape)
    clicked = (np.log(odds) + noise).argmax(1)[:, None] == np.arange(shown.shape[1])
    _write_behaviors(folder, rng, user, shown, clicked)
    table = pd.DataFrame({"id": news, "category": category, "subcategory": subcategory})
    table["id"] = "N" + table["id"].astype(str)
    table[["title", "abstract", "url", "entities", "more"]] = ""
    table.to_csv(folder / "news.tsv", sep="\t", header=False, index=False)


def _impressions(rng: np.random.Generator, interests: Ints) -> Ints:
    """News of each impression in random order. interests: categories, [n, OF_USER] → [n, shown]"""
    n = len(interests)
    promoted = rng.random((n, PROMOTED)).argsort(1)[:, :SHOWN_PROMOTED]
    place = rng.random((n, OF_USER * IN_CATEGORY)).argsort(1)[:, :SHOWN]
    category = np.take_along_axis(interests, place // IN_CATEGORY, 1)
    others = PROMOTED + category * IN_CATEGORY + place % IN_CATEGORY
    return rng.permuted(np.concatenate([promoted, others], axis=1), axis=1)


def _write_behaviors(
    folder: Path, rng: np.random.Generator, user: Ints, shown: Ints, clicked: Bools
) -> None:
    """Write a line for each impression. user: [n], shown, clicked: [n, shown]"""
    n, size = shown.shape
    cells = pd.Series(shown.ravel()).map("N{}".format) + pd.Series(clicked.ravel()).map(
        {True: "-1", False: "-0"}
    )
    seconds = np.tile(np.arange(DAYS).repeat(IMPRESSIONS) * DAY_S, n // (IMPRESSIONS * DAYS))
    time = START + pd.to_timedelta(seconds + rng.integers(0, DAY_S, n), unit="s")
    lines = pd.DataFrame(
        {
            "id": np.arange(n),
            "user": pd.Series(user).map("U{}".format),
            "time": time.strftime("%m/%d/%Y %I:%M:%S %p"),
            "history": "",
            "impressions": cells.groupby(np.arange(n).repeat(size)).agg(" ".join),
        }
    )
    lines.to_csv(folder / "behaviors.tsv", sep="\t", header=False, index=False)


def main() -> None:
    """Print a table."""
    heads = ("seed (GAUC / recall@20)", *WAYS, "most clicked news")
    print_seeds(__doc__, heads, write_log, row)


def row(folder: Path, seed: int) -> str:
    """A Markdown row: GAUC and recall of each way, and the recall of the most clicked news."""
    configs = [
        read_config(CONFIG, folder, (*SETTINGS, f"seed={seed}", *settings))
        for settings in WAYS.values()
    ]
    reports = [
        judged(config, folder / "runs", f"way{number}") for number, config in enumerate(configs)
    ]
    cells = [
        f"{report.metrics.pointwise.value('gauc'):.3f}"
        f" / {report.metrics.served.value('recall@20'):.3f}"
        for report in reports
        if report.metrics.pointwise
    ]
    hot = reports[0].metrics.baselines["hot"].value("recall@20")
    return f"| {seed} | {' | '.join(cells)} | – / {hot:.3f} |"


if __name__ == "__main__":
    main()
