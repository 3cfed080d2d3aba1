import numpy as np
import pytest
import torch

from dssm_core.columns import HOUR_MS
from dssm_core.config import Features
from dssm_core.features.activity import activity, refresh_times
from dssm_core.features.inputs import ColumnTable, item_inputs, user_inputs, users_as_of
from dssm_core.features.interactions import Interactions

START = 1_000 * HOUR_MS


def make_log(rng, n=400, users=7, items=11, hours=30):
    time = np.sort(rng.integers(0, hours * HOUR_MS, n)) // 1000 * 1000 + START
    user, item = rng.integers(1, users + 1, n), rng.integers(1, items + 1, n)
    context = rng.integers(1, 4, (n, 2))
    created = np.full(items + 1, START + hours * HOUR_MS)
    np.minimum.at(created, item, time)
    window = [START, START + hours * HOUR_MS]
    return Interactions(
        *(torch.tensor(part) for part in (user, item, time, context, created, window))
    )


def test_clicks_and_last_click_equal_a_loop():
    log = make_log(np.random.default_rng(0))
    for item in range(1, 12):
        for as_of in (START, START + 5 * HOUR_MS, START + 17 * HOUR_MS + 123, START + 30 * HOUR_MS):
            times = [
                t
                for i, t in zip(log.item.tolist(), log.time.tolist(), strict=True)
                if i == item and t < as_of
            ]
            code, moment = torch.tensor([item]), torch.tensor([as_of])
            counted = log.clicks(code, moment - 6 * HOUR_MS, moment)
            assert counted.item() == sum(t >= as_of - 6 * HOUR_MS for t in times)
            assert log.last_click(code, moment).item() == max(times, default=START)


def test_history_equals_a_loop_and_never_sees_the_event():
    log = make_log(np.random.default_rng(1))
    for user in range(1, 8):
        for as_of in [*log.time[::57].tolist(), START, START + 30 * HOUR_MS]:
            rows = [r for r in range(len(log.user)) if log.user[r] == user and log.time[r] < as_of][
                ::-1
            ][:5]
            items, context = log.history(torch.tensor([user]), torch.tensor([as_of]), 5)
            assert items[0].tolist() == [log.item[r].item() for r in rows[::-1]] + [0] * (
                5 - len(rows)
            )
            assert context[0].tolist() == (log.context[rows[0]].tolist() if rows else [0, 0])


def test_audience_equals_a_loop():
    log = make_log(np.random.default_rng(4))
    for item in range(1, 12):
        as_of = START + 11 * HOUR_MS
        rows = [r for r in range(len(log.user)) if log.item[r] == item and log.time[r] < as_of][
            ::-1
        ][:4]
        got = log.audience(torch.tensor([item]), torch.tensor([as_of]), 4)
        assert got.shape == (1, 2, 4)
        for column in range(2):
            assert got[0, column].tolist() == [log.context[r, column].item() for r in rows] + [
                0
            ] * (4 - len(rows))


def test_ties_keep_file_order_the_later_row_is_newer():
    window, context = torch.tensor([0, 100]), torch.zeros(3, 0, dtype=torch.int64)
    log = Interactions(
        torch.tensor([1, 1, 1]),
        torch.tensor([5, 6, 7]),
        torch.tensor([10, 10, 20]),
        context,
        torch.zeros(8),
        window,
    )
    items, _ = log.history(torch.tensor([1]), torch.tensor([20]), 3)
    assert items.tolist() == [[5, 6, 0]]


def test_activity_by_hand():
    hour = HOUR_MS
    time = torch.tensor([1, 5, 9]) * hour
    created, window = torch.tensor([0, hour, 20 * hour]), torch.tensor([0, 10 * hour])
    log = Interactions(
        torch.tensor([1, 1, 1]), torch.tensor([1, 1, 1]), time, torch.zeros(3, 0), created, window
    )
    got = activity(log, torch.tensor([1, 2]), torch.tensor([10 * hour, 10 * hour]), (2, 6))
    # last 2 h: the click at 9 h; last 6 h: 5 h and 9 h; window: all three; known for 9 h; last
    # clicked 1 h ago
    assert got[0].tolist() == pytest.approx(np.log1p([1, 2, 3, 9, 1]).tolist())
    # an item not yet known: no clicks, age 0, nothing clicked since the start of the window
    assert got[1].tolist() == pytest.approx(np.log1p([0, 0, 0, 0, 10]).tolist())


def test_nothing_after_as_of_changes_a_feature():
    """The leak test: drop every row from as_of on, and all inputs stay the same."""
    log, features = make_log(np.random.default_rng(2)), Features()
    as_of = START + 20 * HOUR_MS
    table = ColumnTable(
        torch.zeros(8, 0, dtype=torch.int64),
        torch.zeros(8, 0, 1, dtype=torch.int64),
        torch.zeros(8, 0),
    )
    items = ColumnTable(
        torch.zeros(12, 0, dtype=torch.int64),
        torch.zeros(12, 0, 1, dtype=torch.int64),
        torch.zeros(12, 0),
    )
    users, codes = torch.arange(1, 8), torch.arange(1, 12)
    scale = torch.stack([torch.zeros(7), torch.ones(7)])
    for one, other in ((log, log.before(as_of)),):
        moments = torch.full_like(users, as_of)
        pairs = zip(
            users_as_of(one, table, users, moments, features),
            users_as_of(other, table, users, moments, features),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)
        known = codes[log.created[1:] < as_of]
        pairs = zip(
            item_inputs(one, items, known, as_of, features, scale),
            item_inputs(other, items, known, as_of, features, scale),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)


def test_user_inputs_put_context_behind_static_columns():
    table = ColumnTable(
        torch.tensor([[0], [9]]),
        torch.zeros(2, 0, 1, dtype=torch.int64),
        torch.tensor([[0.0], [0.5]]),
    )
    got = user_inputs(table, torch.tensor([1]), torch.tensor([[3, 4, 0]]), torch.tensor([[7]]))
    assert got.categorical.tolist() == [[9, 7]]
    assert got.numeric[0].tolist() == pytest.approx([0.5, np.log1p(2)])


@pytest.mark.parametrize(("refresh_h", "expected"), [(24, [24]), (12, [12, 24, 36]), (20, [8, 28])])
def test_refreshes_are_counted_back_from_the_cutoff(refresh_h, expected):
    features = Features.model_validate({"activity": {"refresh_h": refresh_h}})
    assert refresh_times(0, 48 * HOUR_MS, features) == [hour * HOUR_MS for hour in expected]
