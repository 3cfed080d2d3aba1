"""The public layout of MIND by YAML alone: impressions in one cell become a judged model.

Planted: a user clicks news of one of four categories, and hardly any other. Quiet users see one
impression before the test day and click nothing: only their history from before the log says what
they like.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.columns import DAY_MS
from dssm_core.config import read_config
from dssm_core.evaluation.rolling import clicks_of
from dssm_core.features.dataset import load_log
from dssm_core.operation.latest_clicks import origins, read_latest
from dssm_core.retrieval.bundle import assemble, open_bundle
from dssm_core.retrieval.snapshots import Timeline
from dssm_core.runs.gate_report import read_gate_report
from tests.conftest import REPO
from tests.pipeline.own_logs.conftest import judged_run

USERS, NEWS, IMPRESSIONS, SHOWN = 300, 160, 6000, 6
QUIET = range(300, 340)
BEFORE = 4  # news of each user's history when the log begins
CATEGORIES = ("sports", "finance", "travel", "music")
START = datetime(2019, 11, 9, tzinfo=UTC)
K = 20
SMALL = [
    "validation.min_rows_per_day=100",
    "train={epochs: 8, batch_size: 256, negatives: 64, learning_rate: 0.01, device: cpu}",
    f"evaluation={{ks: [{K}], bootstrap: 20, baselines: [hot]}}",
    f"gate={{k: {K}, floor: 0.2, min_index_ratio: 0.0}}",
]


def write_news(folder):
    """Lines with quotation marks, as titles have, and the columns that the config leaves out."""
    rest = 'Abstract\thttps://example.com\t[{"Label": "x"}]\t[]'
    lines = []
    for n in range(NEWS):
        name = CATEGORIES[n % 4]
        lines.append(f'N{n}\t{name}\t{name}{n % 3}\tWhy "{n}" isn\'t {name}\t{rest}\n')
    (folder / "news.tsv").write_text("".join(lines))


def write_behaviors(folder):
    """Impressions of six days; one has nothing shown. Histories grow by the clicks of the log.
    Returns a row for each shown item, and the history of each user when the log begins.
    """
    rng = np.random.default_rng(5)
    seconds = np.sort(rng.integers(0, 6 * 86_400, IMPRESSIONS))
    lines, shown = [], []
    everyone = [*range(USERS), *QUIET]
    before = {u: (rng.permutation(NEWS // 4)[:BEFORE] * 4 + u % 4).tolist() for u in everyone}
    history = {user: list(news) for user, news in before.items()}
    # each quiet user has an impression on one of the first days, and one on the last day
    once = dict(zip(rng.permutation(IMPRESSIONS // 2).tolist(), QUIET, strict=False))
    once |= dict(zip(range(IMPRESSIONS - len(QUIET), IMPRESSIONS), QUIET, strict=True))
    for number, second in enumerate(seconds.tolist()):
        user = once.get(number, int(rng.integers(USERS)))
        news = rng.permutation(NEWS)[:SHOWN].tolist()
        clicks = [int(rng.random() < (0.9 if n % 4 == user % 4 else 0.03)) for n in news]
        if number in once and number < IMPRESSIONS // 2:
            clicks = [0] * SHOWN
        time = START + timedelta(seconds=second)
        cell = " ".join(f"N{n}-{click}" for n, click in zip(news, clicks, strict=True))
        written = time.strftime("%m/%d/%Y %I:%M:%S %p").lstrip("0")  # 9:05, as in the original
        earlier = " ".join(f"N{n}" for n in history[user])
        lines.append(f"{number + 1}\tU{user}\t{written}\t{earlier}\t{cell}")
        history[user] += [n for n, click in zip(news, clicks, strict=True) if click]
        shown += [(number + 1, time.day, click) for click in clicks]
    lines.append(f"{IMPRESSIONS + 2}\tULATE\t11/14/2019 11:58:59 PM\tN0 N4 N8\tN1-0 N2-0")
    shown += [(IMPRESSIONS + 2, 14, 0)] * 2
    lines.append(f"{IMPRESSIONS + 1}\tU1\t11/14/2019 11:59:59 PM\t\t")
    (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    return pd.DataFrame(shown, columns=["impression", "day", "click"]), before


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The shown items, the histories when the log begins, and the run up to the gate."""
    folder = tmp_path_factory.mktemp("MINDsmall_train")
    write_news(folder)
    shown, before = write_behaviors(folder)
    config = read_config(REPO / "configs" / "examples" / "mind.yaml", folder, SMALL)
    return shown, before, judged_run(config, tmp_path_factory.mktemp("runs"))


def test_every_shown_item_is_a_row(judged):
    shown, _, run = judged
    rows = run.need("split_by_time").rows
    assert rows == {
        "read": len(shown) + 1,
        "train": int((shown["day"] < 14).sum()),
        "test": int((shown["day"] == 14).sum()),
        "outside": 0,
        "quarantined": 1,  # the impression with nothing shown
    }
    train = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    assert train["label"].sum() == shown.loc[shown["day"] < 14, "click"].sum()
    assert train.groupby("impression_id").size().eq(SHOWN).all()
    assert not {"history", "_dssm_history"} & set(train.columns)


def test_the_model_finds_the_categories_that_users_click(judged):
    """A list of 20 of the 40 news of the own category finds half of the clicks; the 20 hottest of
    160 find an eighth.
    """
    *_, run = judged
    report = read_gate_report(run)
    served = report.metrics.served.value(f"recall@{K}")
    hot = report.metrics.baselines["hot"].value(f"recall@{K}")
    assert served > 0.3 > hot
    assert report.passed, report.reasons


def test_what_users_had_clicked_before_the_log_is_their_history(judged, tmp_path):
    """Of each user the first cell of the log, and no item of a later one."""
    _, before, run = judged
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    log = load_log(run.step("sample_negatives"))
    users, items = bundle.users.index, bundle.items.index
    prior = {}
    for user, item in zip(log.prior.user.tolist(), log.prior.item.tolist(), strict=True):
        prior.setdefault(users[user - 1], []).append(items[item - 1])
    names = [f"U{user}" for user in (*range(USERS), *QUIET)]
    clicked = set(items)  # a user's first row may be in the test day; all news are clicked in train
    assert prior == {
        name: [f"N{n}" for n in before[int(name[1:])] if f"N{n}" in clicked]
        for name in names
        if name in set(users)
    }
    assert {f"U{user}" for user in QUIET} <= set(users)
    assert not set(log.user.tolist()) & set(users.get_indexer([f"U{user}" for user in QUIET]) + 1)


def test_users_with_such_a_history_only_are_answered_by_it(judged, tmp_path):
    """A quarter of a list is of the own category by chance; a fresh user gets the hot list."""
    *_, run = judged
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    names = [f"U{user}" for user in QUIET]
    lists = bundle.retrieve(pd.DataFrame({"user_id": [*names, "nobody"]}), 10)
    assert lists["source"].tolist()[-1] == "hot"
    own = [
        np.mean([int(item[1:]) % 4 == user % 4 for item in items])
        for user, items in zip(QUIET, lists["item_ids"], strict=False)
    ]
    assert np.mean(own) > 0.8
    seen = bundle.retrieve(pd.DataFrame({"user_id": names}), 10, exclude_seen=True)
    for user, items in zip(QUIET, seen["item_ids"], strict=True):
        assert not {f"N{n}" for n in judged[1][user]} & set(items)


def test_as_of_the_cutoff_a_refresh_knows_the_same(judged, tmp_path):
    *_, run = judged
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    snapshot = Timeline.of(bundle.folder, clicks_of(run, [])).as_of(bundle.cutoff_ms)
    assert snapshot.n_users == len(bundle.user_vectors)
    every = torch.arange(1, snapshot.n_users)
    vectors = snapshot.embed_users(every)
    assert np.allclose(vectors, bundle.user_vectors[1:], atol=1e-6)
    seen = snapshot.seen_items(None)
    assert np.array_equal(seen.ptr, bundle.seen.ptr)
    assert np.array_equal(seen.items, bundle.seen.items)


def test_a_refresh_embeds_new_users_by_such_a_history(judged, tmp_path):
    """ULATE appears in the test day and clicks nothing."""
    *_, run = judged
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    end = bundle.cutoff_ms + DAY_MS
    start = end - 5 * DAY_MS
    sources = origins(run.config, start, end, None)
    (tmp_path / "work").mkdir()
    latest, _ = read_latest(run.config, start, end, sources, tmp_path / "work")
    snapshot = Timeline.of(bundle.folder, latest).as_of(end)
    items = snapshot.embed_items(np.load(bundle.folder / "item_embeddings.npy"))
    users = snapshot.embed_all_users(bundle.user_vectors)
    code = int(snapshot.user_ids.encode(["ULATE"])[0])
    assert code >= len(bundle.user_vectors)
    best = np.argsort(-(items @ users[code]))[:10]
    assert np.mean([int(snapshot.item_ids.index[row][1:]) % 4 == 0 for row in best]) > 0.8
    seen = snapshot.seen_items(bundle.seen).of_users(np.array([code])).items
    assert set(snapshot.item_ids.index[seen]) <= {"N0", "N4", "N8"}
    before = Timeline.of(bundle.folder, latest).as_of(bundle.cutoff_ms)
    assert "ULATE" not in set(before.user_ids.index)
