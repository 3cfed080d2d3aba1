"""What users had taken before the log: in histories, in training and in the validation metric."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dssm_core.config import Config, parse_config
from dssm_core.features.events import training_events
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.interactions import Interactions
from dssm_core.features.prior import PriorItems
from dssm_core.training.batches import SequenceExamples, UserExamples
from tests.conftest import small_config

PRIOR = {1: [7, 8, 9], 2: [], 3: [9], 4: [7, 7]}  # items of each user code, oldest first
CLICKS = [(1, 1), (2, 2), (1, 3), (3, 1), (2, 1), (3, 4), (3, 5)]  # user and item, by time


def prior() -> PriorItems:
    pairs = [(user, item) for user, items in PRIOR.items() for item in items]
    user, item = torch.tensor(pairs).T
    return PriorItems.of(user, item, 5)


def log(of: PriorItems | None = None) -> Interactions:
    user, item = torch.tensor(CLICKS).T
    time = torch.arange(len(CLICKS)) + 1
    context = (torch.arange(len(CLICKS)) + 1)[:, None]
    window = torch.tensor([0, 100])
    return Interactions(
        user, item, time, context, torch.zeros(10), window, prior=prior() if of is None else of
    )


@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_a_history_is_what_was_before_the_log_and_then_the_clicks(length: int) -> None:
    for as_of in (0, 1, 2, 4, 8, 100):
        users = torch.arange(5)
        items, context = log().history(users, torch.full((5,), as_of), length)
        for user in users.tolist():
            clicks = [
                (item, n + 1)
                for n, (who, item) in enumerate(CLICKS)
                if who == user and n + 1 < as_of
            ]
            wanted = [*PRIOR.get(user, []), *(item for item, _ in clicks)][-length:]
            assert items[user].tolist() == wanted + [0] * (length - len(wanted))
            assert context[user].tolist() == [clicks[-1][1] if clicks else 0]


def test_without_rows_the_history_is_what_was_before_the_log() -> None:
    items, _ = log().before(0).history(torch.tensor([1, 2]), torch.tensor([50, 50]), 2)
    assert items.tolist() == [[8, 9], [0, 0]]


def test_items_without_a_code_are_left_out() -> None:
    known = prior().of_items(9)
    assert known.ptr.tolist() == [0, 0, 2, 2, 2, 4]
    assert known.item.tolist() == [7, 8, 7, 7]
    assert log().of_items(9).prior.item.tolist() == [7, 8, 7, 7]


def test_it_is_no_click() -> None:
    counted, plain = log(), log(PriorItems.none())
    everything = torch.arange(10)
    ends = torch.full((10,), 100)
    assert torch.equal(
        counted.clicks(everything, ends * 0, ends), plain.clicks(everything, ends * 0, ends)
    )
    assert torch.equal(counted.user, plain.user)
    assert torch.equal(counted.last_click(everything, ends), plain.last_click(everything, ends))


def config(target: str) -> Config:
    raw = small_config()
    raw |= {
        "features": {"activity": {"enabled": False}, "history": {"length": 4}},
        "split": {"kind": "leave_one_out"},
        "sampler": {"kind": "uniform"},
        "train": {"target": target},
        "evaluation": {"ks": [1], "baselines": ["hot"]},
        "gate": {"k": 1},
    }
    return parse_config(raw)


def table() -> ColumnTable:
    return ColumnTable(torch.zeros(5, 0).long(), torch.zeros(5, 0, 0).long(), torch.zeros(5, 0))


def trained(
    examples: SequenceExamples | UserExamples, seed: int = 0
) -> list[tuple[int, int, tuple[int, ...]]]:
    """User, item and history of each event that counts, in one epoch."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for rows in examples.batches(100, seed=0):
        batch = examples.take(rows, generator)
        histories = batch.inputs.history
        for number, item in enumerate(batch.events.item.tolist()):
            if item == 0:
                continue
            if batch.positions is not None:
                row, place = divmod(int(batch.positions[number]), histories.shape[1])
                shown = histories[row, : place + 1]
            else:
                shown = histories[batch.rows[number]]
            user = int(batch.events.user[number])
            found.append((user, item, tuple(code for code in shown.tolist() if code)))
    return sorted(found)


def test_sequences_begin_with_it_and_have_clicks_as_targets_only() -> None:
    examples = SequenceExamples(config("next"), log(), table())
    wanted = sorted(
        [
            (1, 1, (7, 8, 9)),
            (1, 3, (7, 8, 9, 1)),
            (2, 1, (2,)),
            (3, 1, (9,)),
            (3, 4, (9, 1)),
            (3, 5, (9, 1, 4)),
        ]
    )
    assert trained(examples) == wanted
    assert examples.count == len(wanted)
    assert sum(examples.left_out.values()) == 1  # the first of user 2, who had nothing before


def test_the_first_click_of_a_user_with_a_history_is_an_event() -> None:
    events = training_events(log(), torch.tensor([0]), with_rows=True)
    assert events.row.tolist() == [0, 2, 3, 4, 5, 6]


def test_random_parts_have_clicks_as_targets_only() -> None:
    examples = UserExamples(config("rest"), log(), table())
    assert examples.count == len(CLICKS)
    assert set(examples.left_out.values()) == {0}
    histories = set()
    for seed in range(20):
        for user, item, shown in trained(examples, seed):
            assert (user, item) in CLICKS
            assert item not in shown
            histories |= {(user, code) for code in shown}
    assert {(1, 7), (3, 9)} <= histories  # user 4 had items before the log, but no click
    assert all(user != 4 for user, _ in histories)


def test_weights_stay() -> None:
    weighted = replace(log(), weight=torch.tensor([1.0, 2, 0, 1, 1, 1, 3]))
    assert weighted.with_prior(2).weight.tolist() == [0, 0, 0, 1, 2, 0, 1, 1, 1, 3]
    assert weighted.with_prior(2).item.tolist()[:3] == [8, 9, 9]
