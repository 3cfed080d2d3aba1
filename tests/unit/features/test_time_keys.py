"""Rows of a code before a moment, against counting; times may be millennia apart."""

import numpy as np
import pandas as pd
import torch

from dssm_core.config import Feature
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.features.target_mean import fit_target_means
from dssm_core.features.time_keys import TimeKeys

YEAR_1 = -62_135_596_800_000
YEAR_9999 = 253_402_300_799_999
CODES = 40_000  # with a span of 10,000 years, code * span + time would not fit into an int64


def rows(n=3000, seed=0):
    """Codes, most of them large, and times: the ends of the calendar, and days of 2024."""
    rng = np.random.default_rng(seed)
    code = rng.integers(CODES - 30, CODES, n)
    time = 1_709_251_200_000 + rng.integers(0, 500, n)
    time[:3] = YEAR_9999
    time[3:5] = YEAR_1
    return torch.from_numpy(code), torch.from_numpy(np.sort(time))


def test_counts_of_earlier_rows_are_those_of_a_loop():
    code, time = rows()
    keys, order = TimeKeys.of(code, time)
    asked = code[::7]
    for moment in (YEAR_1, YEAR_1 + 1, int(time[1500]), YEAR_9999, YEAR_9999 + 1):
        count = keys.before(asked, torch.full_like(asked, moment)) - keys.begin(asked)
        expected = [int(((code == one) & (time < moment)).sum()) for one in asked.tolist()]
        assert count.tolist() == expected
    assert torch.equal(order, torch.argsort(code, stable=True))  # the rows are in time order


def test_a_few_rows_in_other_millennia_change_nobody_else():
    code, time = rows()
    context = torch.zeros(len(code), 1, dtype=torch.int64)
    window = torch.tensor([YEAR_1, YEAR_9999 + 1])
    log = Interactions(code, code, time, context, torch.zeros(CODES), window)
    usual = time.clamp(1_709_251_199_999, 1_709_251_200_500)
    near = torch.tensor([1_709_251_199_999, 1_709_251_200_501])
    same = Interactions(code, code, usual, context, torch.zeros(CODES), near)
    asked = code[5:-3]
    as_of = time[5:-3]
    ours = log.history(asked, as_of, 5), log.clicks_before(asked, as_of), log.sequences()
    theirs = same.history(asked, as_of, 5), same.clicks_before(asked, as_of), same.sequences()
    torch.testing.assert_close(ours, theirs)
    before = (code == asked[-1]) & (time < as_of[-1])
    assert log.last_click(asked, as_of)[-1] == time[before].max()


def test_target_means_of_far_times_are_those_of_their_order():
    names = [f"i{number}" for number in range(CODES)]
    train = pd.DataFrame({"item_id": names, "label": [number % 2 for number in range(CODES)]})
    feature = Feature(column="item_id", kind="target_mean", smoothing=1)
    ids = Ids.fit(train["item_id"])
    codes = torch.arange(1, CODES + 1)
    means = []
    for times in (np.linspace(YEAR_1, YEAR_9999, CODES).astype(np.int64), np.arange(CODES)):
        dated = train.assign(timestamp=times)
        fitted = fit_target_means((feature,), "item", None, ids, dated, (times[0], times[-1] + 1))
        means.append(fitted.as_of(codes, torch.full_like(codes, int(times[200]))))
    assert torch.equal(*means)
    assert means[0].count_nonzero() == 200  # items with a row before the moment
