"""The generated log: the sizes asked for, the same twice, and a planted truth that can be found."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd

from dssm_core.columns import CREATED, DAY_MS, HOUR_MS, ITEM, TIME, USER
from dssm_core.data.sources.synthetic import Synthetic

SMALL = Synthetic(users=400, items=600, clicks=30_000, days=4, seed=3)
START = 1_709_251_200_000  # 2024-03-01 00:00 UTC


def frames(source: Synthetic) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    with duckdb.connect() as con:
        tables = source.read(con)
        assert tables.users is not None
        assert tables.items is not None
        return tables.interactions.df(), tables.users.df(), tables.items.df()


def test_same_seed_same_log_other_seed_other_log() -> None:
    clicks, _, items = frames(SMALL)
    again, _, again_items = frames(SMALL)
    other, _, _ = frames(SMALL.model_copy(update={"seed": 4}))
    pd.testing.assert_frame_equal(clicks, again)
    pd.testing.assert_frame_equal(items, again_items)
    assert not clicks[ITEM].equals(other[ITEM])


def test_sizes_order_and_no_click_before_birth() -> None:
    clicks, users, items = frames(SMALL)
    assert (len(clicks), len(users), len(items)) == (30_000, 400, 600)
    assert clicks[TIME].is_monotonic_increasing
    assert clicks[TIME].min() >= START
    assert clicks[TIME].max() < START + 4 * DAY_MS
    born = clicks[ITEM].map(items.set_index(ITEM)[CREATED])
    assert (clicks[TIME] >= born).all()
    assert set(items["tags"].str.count(r"\|")) == {1}


def test_articles_rise_and_fade_and_days_have_a_rhythm() -> None:
    clicks, _, items = frames(SMALL)
    fresh = items[(items[CREATED] > START) & (items[CREATED] < START + DAY_MS)]
    age_h = ((clicks[TIME] - clicks[ITEM].map(fresh.set_index(ITEM)[CREATED])) / HOUR_MS).dropna()
    first, later, last = (((age_h >= low) & (age_h < low + 24)).sum() for low in (0, 24, 48))
    assert first > 1.3 * later > 1.3 * 1.3 * last
    hour = (clicks[TIME] - START) // HOUR_MS % 24
    # 1 + 0.8 cos: 1.8 at 16 o'clock, 0.2 at 4
    assert 6 < (hour == 16).sum() / (hour == 4).sum() < 13


def test_tastes_beat_what_is_hot() -> None:
    """Clicks of the last day that fall in the user's 3 categories most clicked before, against
    everyone's top 3.
    """
    clicks, _, items = frames(SMALL)
    category = clicks[ITEM].map(items.set_index(ITEM)["category"])
    train = clicks[TIME] < START + 3 * DAY_MS
    counts = pd.crosstab(clicks[USER][train], category[train])
    favourite = pd.DataFrame(np.argsort(-counts.to_numpy(), axis=1)[:, :3], index=counts.index).map(
        lambda i: counts.columns[i]
    )
    test = pd.DataFrame({"user": clicks[USER][~train], "category": category[~train]})
    test = test[test["user"].isin(favourite.index)]
    own = (
        (favourite.loc[test["user"]].to_numpy() == test["category"].to_numpy()[:, None])
        .any(axis=1)
        .mean()
    )
    hot = test["category"].isin(counts.sum().nlargest(3).index).mean()
    assert own > 1.5 * hot


def test_the_log_of_a_seed_stays_the_same() -> None:
    """The generator reads its random numbers an hour at a time; the log is that of one pass."""
    clicks, users, items = frames(SMALL)
    hashes = [int(pd.util.hash_pandas_object(frame).sum()) for frame in (clicks, users, items)]
    assert hashes == [5006385232860438949, 10608555516143103399, 14901424503254348743]
