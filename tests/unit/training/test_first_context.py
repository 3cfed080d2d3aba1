"""Events of users without an earlier one show their own context, counted by hand."""

import pytest
import torch

from dssm_core.columns import DAY_MS
from dssm_core.config import parse_config
from dssm_core.errors import DataError
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.training.batches import EventExamples
from dssm_core.training.epoch_order import Rows
from dssm_core.training.epoch_selection import HeldOutQueries
from tests.conftest import small_config


def config(first_context):
    return parse_config(small_config(features__first_context=first_context))


def log_of(user, item, time, context, created, end):
    codes = [torch.tensor(part) for part in (user, item, time)]
    return Interactions(
        *codes,
        torch.tensor(context)[:, None],
        torch.tensor([end, *created]),
        torch.tensor([0, end]),
    )


@pytest.mark.parametrize(
    ("first_context", "expected"), [(True, [2, 1, 4, 2]), (False, [0, 1, 0, 2])]
)
def test_events_of_new_users_show_their_own_context(first_context, expected):
    """Refreshes at 10 and 20. User 1 comes at 5 and 13, user 2 at 12 and 25, user 3 at 22."""
    log = log_of([1, 2, 1, 3, 2], [1] * 5, [5, 12, 13, 22, 25], [1, 2, 3, 4, 5], [5], 30)
    users = ColumnTable(torch.zeros(4, 0).long(), torch.zeros(4, 0, 0).long(), torch.zeros(4, 0))
    examples = EventExamples(config(first_context), log, users, torch.tensor([10, 20]))
    assert examples.count == 4
    batch = examples.take(Rows(torch.arange(4), 4), torch.Generator())
    assert batch.inputs.categorical.tolist() == [[code] for code in expected]
    padding = examples.take(Rows(torch.tensor([4]), 1), torch.Generator())
    assert padding.events.item.tolist() == [0]


def held_out_log(first_user):
    """User 3 is new on the last day, with the contexts 3 and 4."""
    days = [0.5, 0.6, 2.2, 2.3, 2.5]
    time = [int(day * DAY_MS) for day in days]
    users = [1, 1, first_user, 3, 3]
    return log_of(users, [1, 2, 1, 1, 2], time, [1, 1, 2, 3, 4], time[:2], 3 * DAY_MS)


def test_new_users_choose_the_epoch_with_the_context_of_their_first_event():
    queries = HeldOutQueries(config(True), held_out_log(1))
    assert queries.users.tolist() == [1, 3]
    assert queries.own.tolist() == [[2], [3]]
    assert queries.relevant.counts.tolist() == [1, 2]
    seen = queries._mask_seen(torch.zeros(2, 2), queries.users)
    assert seen.isinf().tolist() == [[True, True], [False, False]]
    known = HeldOutQueries(config(False), held_out_log(1))
    assert (known.users.tolist(), known.own) == ([1], None)


def test_a_validation_slice_of_sessions_only_needs_their_contexts():
    assert HeldOutQueries(config(True), held_out_log(2)).users.tolist() == [2, 3]
    with pytest.raises(DataError, match=r"features\.first_context"):
        HeldOutQueries(config(False), held_out_log(2))
