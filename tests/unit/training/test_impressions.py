"""From a log of impressions to the candidates of a step: each event draws from its own impression.

User u takes item 7r + u in the r-th impression (modulo the number of items), and is shown the items
1, 4, 7 and 10 after it; the one 7 after it is taken next time. All users have the same impression
ids.
"""

import pytest
import torch

from dssm_core.config import parse_config
from dssm_core.features import shapes
from dssm_core.features.dataset import load_prepared
from dssm_core.features.ids import Ids
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import ITEM_IDS_FILE, USER_IDS_FILE
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training.objective import Objective

USERS, ITEMS, ROUNDS = 30, 40, 6
START, ROUND_MS = 1_709_251_200_000, 12 * 3_600_000  # two rounds a day from 2024-03-01
STEPS = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")
WAYS = {
    "by refresh": {"features": {"activity": {"refresh_h": 12}}},
    "by place": {"features": {"activity": {"enabled": False}}},
    "rest": {"features": {"activity": {"enabled": False}}, "train": {"target": "rest"}},
}


def taken(user, turn):
    return (7 * turn + user) % ITEMS


def only_shown(user, turn):
    """What is shown in an impression of train and taken in none."""
    own = {taken(user, other) for other in range(ROUNDS - 2)}
    return {(taken(user, turn) + step) % ITEMS for step in (1, 4, 7, 10)} - own


def write_log(file):
    lines = ["user_id,item_id,timestamp,label,impression_id"]
    for turn in range(ROUNDS):
        for user in range(USERS):
            time = START + turn * ROUND_MS + user * 60_000
            for step in (0, 1, 4, 7, 10):
                item = (taken(user, turn) + step) % ITEMS
                lines.append(f"u{user},i{item},{time},{int(step == 0)},{turn}")
    file.write_text("\n".join(lines))


@pytest.fixture(scope="module", params=WAYS)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    write_log(folder / "a.csv")
    raw = {
        "name": "t",
        "data": {
            "source": {
                "kind": "delimited",
                "path": str(folder),
                "interactions": {"files": "a.csv"},
            }
        },
        "split": {"test_day": "2024-03-03", "train_days": 2},
        "sampler": {"kind": "exposed", "shares": {"impression": 1}},
        "evaluation": {"ks": [1], "baselines": ["hot"]},
        "gate": {"k": 1},
        **WAYS[request.param],
    }
    raw["train"] = {"batch_size": 50, "negatives": 64, "device": "cpu"} | raw.get("train", {})
    run = create_run(parse_config(raw), folder / "runs", "r")
    for name in STEPS:
        execute(run, name)
    return run


@pytest.fixture
def objective(run):
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    return Objective(run.config, prepared, prepared.log, samples, "refit"), prepared


def test_each_event_draws_what_was_shown_with_it(run, objective):
    objective, _ = objective
    folder = run.step("sample_negatives")
    users, items = (Ids.load(folder / file) for file in (USER_IDS_FILE, ITEM_IDS_FILE))
    turns = {(user, taken(user, turn)): turn for user in range(USERS) for turn in range(4)}
    number = lambda ids, code: int(ids.index[code - 1][1:])  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    events = 0
    for rows in objective.batches(seed=0):
        batch = objective.examples.take(rows, generator)
        drawn = objective._candidates(batch.bucket, batch.events, generator).items
        for user, item, own in zip(
            batch.events.user.tolist(), batch.events.item.tolist(), drawn.tolist(), strict=True
        ):
            user = number(users, user)
            turn = turns[user, number(items, item)]
            assert {number(items, code) for code in own} == only_shown(user, turn)
            events += 1
    assert events > 50


def test_the_step_counts_its_events(run):
    info = run.need("sample_negatives").info
    assert info["drawn_from"]["uniform"] == 0
    assert info["drawn_from"]["impression"] > 50


def test_padding_changes_nothing_that_counts(objective, run, monkeypatch):
    plain, prepared = objective
    torch.manual_seed(0)
    model = TwoTower(run.config, prepared.schema, prepared.items).eval()
    rows = plain.batches(seed=1)[0]
    wanted = plain(model, rows, torch.Generator().manual_seed(3))
    assert wanted.isfinite()
    monkeypatch.setattr(shapes, "fixed", lambda device: True)
    padded = Objective(run.config, prepared, prepared.log, run.step("sample_negatives"), "refit")
    assert padded.padded == (run.config.train.target != "rest")
    loss = padded(model, padded.batches(seed=1)[0], torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss, wanted)
