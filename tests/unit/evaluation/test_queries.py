"""What each query was told, counted by hand; `fabricate` tests the queries of whole users in
test_evaluate.py.
"""

import numpy as np
import pandas as pd
import pytest

from dssm_core.config import parse_config
from dssm_core.data.splits.last_n import LastN
from dssm_core.errors import ArtifactError, DataError
from dssm_core.evaluation import answers
from dssm_core.evaluation.answers import open_served
from dssm_core.evaluation.queries import make_evaluation_data, read_evaluation_data
from dssm_core.evaluation.query_rows import RequestRows
from dssm_core.features.ids import Ids
from dssm_core.retrieval.catalogue import check_enough
from tests.unit.conftest import write_log

TRAIN = [("a", 10, 1), ("b", 20, 1), ("a", 30, 0), ("a", 20, 1), ("b", 10, 1)]
# a's newest three and b's; 99 is in no train row; b's first was not taken
TEST = [("a", 30, 1), ("b", 10, 0), ("a", 99, 1), ("a", 10, 1), ("b", 30, 1), ("b", 20, 1)]


@pytest.fixture
def rolling(fabricate):
    """A run split by `last_n`, and its vocabularies: item 10 is row 0, 20 row 1, 30 row 2."""
    run = fabricate()
    raw = run.config.model_dump() | {"split": {"kind": "last_n"}, "sampler": {"kind": "uniform"}}
    raw["evaluation"] |= {"baselines": ["hot"]}
    raw["features"]["activity"] |= {"enabled": False}
    run.__dict__["config"] = parse_config(raw)
    for name, rows in (("train", TRAIN), ("test", TEST)):
        frame = pd.DataFrame(rows, columns=["user_id", "item_id", "label"]).astype(
            {"label": np.int8}
        )
        frame["timestamp"], frame["device"] = (
            range(len(rows)),
            [f"{name}{place}" for place in range(len(rows))],
        )
        frame.to_parquet(run.step("split_by_time") / f"{name}.parquet")
    ids = Ids(pd.Index(["a", "b"])), Ids(pd.Index([10, 20, 30, 40]))
    write_log(run, *ids)
    return run, *ids


def told(asked):
    """[(user, history)] of a slice."""
    return [
        (user, asked.histories.part(q, q + 1).items.tolist()) for q, user in enumerate(asked.users)
    ]


def test_each_positive_row_asks_with_all_that_came_before_it(rolling):
    data = make_evaluation_data(*rolling)
    assert told(data.all) == [
        ("a", [0, 1]),
        ("a", [0, 1, 2]),
        ("a", [0, 1, 2]),
        ("b", [1, 0]),
        ("b", [1, 0, 2]),
    ]
    assert data.all.relevant.counts.tolist() == [1, 1, 1, 1, 1]
    assert data.all.codes.tolist() == [1, 1, 1, 2, 2]
    # 99 and 30 are in no train positive: warm are a's 10 and b's 20
    assert told(data.warm) == [("a", [0, 1, 2]), ("b", [1, 0, 2])]
    assert data.test_counts.tolist() == [1, 1, 0, 0]


def test_only_relevant_rows_ask_and_the_others_stay_history(rolling):
    run, *vocabularies = rolling
    file = run.step("split_by_time") / "test.parquet"
    pd.read_parquet(file).assign(rating=[5, 5, 2, 3, 1, 3]).to_parquet(file)
    run.__dict__["config"] = run.config.model_copy(update={"split": LastN(relevant="rating >= 3")})
    assert told(make_evaluation_data(run, *vocabularies).all) == [
        ("a", [0, 1]),
        ("a", [0, 1, 2]),
        ("b", [1, 0, 2]),
    ]
    run.__dict__["config"] = run.config.model_copy(update={"split": LastN(relevant="stars > 2")})
    with pytest.raises(
        DataError, match="`stars > 2` needs a column 'stars', but the rows have only"
    ):
        make_evaluation_data(run, *vocabularies)


def test_a_row_of_label_0_is_judged_with_the_past_before_it(rolling):
    pairs = make_evaluation_data(*rolling).pairs
    assert told(pairs.queries) == [("b", [1, 0]), ("a", [0, 1, 2]), ("b", [1, 0, 2])]
    assert (pairs.items.tolist(), pairs.labels.tolist()) == ([0, 0, 1], [0, 1, 1])


def test_rows_that_are_neither_are_not_judged_and_no_history(rolling):
    """Another row of b before its positives, and one of a, both without a label."""
    run, *vocabularies = rolling
    file = run.step("split_by_time") / "test.parquet"
    rows = pd.read_parquet(file)
    neither = rows.iloc[[1, 2]].assign(label=None)
    mixed = pd.concat([neither.iloc[:1], rows.iloc[:4], neither.iloc[1:], rows.iloc[4:]])
    mixed.astype({"label": "Int8"}).to_parquet(file)
    data = make_evaluation_data(run, *vocabularies)
    assert told(data.pairs.queries) == [("b", [1, 0]), ("a", [0, 1, 2]), ("b", [1, 0, 2])]
    assert (data.pairs.items.tolist(), data.pairs.labels.tolist()) == ([0, 0, 1], [0, 1, 1])
    assert told(data.all)[3:] == [("b", [1, 0]), ("b", [1, 0, 2])]


def test_the_context_is_that_of_the_latest_positive_before_the_query(rolling):
    run, users, items = rolling
    asked = make_evaluation_data(run, users, items).all
    requests = RequestRows.of(asked, items, ("device", "unknown"))
    frame = requests.part(0, 5)
    assert requests.part(3, 5).equals(frame.iloc[3:].reset_index(drop=True))
    assert frame["device"].tolist() == ["train3", "test0", "test2", "train4", "test4"]
    newest = [history[-2:] for history in frame["history"]]
    assert newest == [[10, 20], [20, 30], [20, 30], [20, 10], [10, 30]]


def test_rows_ask_by_the_encoder_and_not_by_the_exported_users(rolling, monkeypatch):
    """An encoder whose vector is the history's newest item: each row then finds that item first."""
    run, users, items = rolling

    class Newest:
        def __init__(self, folder):
            assert (folder / "config.json").is_file()

        def embed(self, codes, histories, rows):
            newest = histories.items[histories.ptr[1:] - 1]
            return np.load(run.step("export_embeddings") / "item_embeddings.npy")[newest]

    monkeypatch.setattr("dssm_core.retrieval.bundle.Encoder", Newest)
    monkeypatch.setattr(answers, "QUERIES_AT_ONCE", 2)
    data = make_evaluation_data(run, users, items)
    with open_served(run) as opened:
        search = opened.search(opened.served, opened.encode(data.all))
        assert search(0, 5, 1, data.all.eligible)[:, 0].tolist() == [1, 2, 2, 0, 2]
    assert not list(run.root.glob(".scratch-*"))


def test_a_log_that_older_code_wrote_is_refused_in_words(rolling):
    run, *vocabularies = rolling
    (run.step("sample_negatives") / "code_rows.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"no code_rows.safetensors: another version of this"):
        make_evaluation_data(run, *vocabularies)


def test_unknown_users_and_items_have_no_history(fabricate):
    run = fabricate()
    ids = Ids(pd.Index([1, 2, 3])), Ids(pd.Index([20, 30]))
    write_log(run, *ids)
    data = make_evaluation_data(run, *ids)
    past = {int(user): history for user, history in told(data.all)}
    assert past == {1: [1], 2: [1, 0], 3: [1], 7: []}
    assert data.all.latest.tolist() == [3, 4, 2, -1]


def test_too_few_items_for_a_list_are_a_warning_and_none_are_refused(caplog):
    check_enough(None, 5)
    check_enough(np.array([True, False, True]), 2)
    assert not caplog.records
    check_enough(np.array([True, False, True]), 3)
    (record,) = caplog.records
    assert record.message.startswith("only 2 of the 3 items may be listed as of the cutoff")
    with pytest.raises(DataError, match="none of the 3 items may be listed as of the cutoff"):
        check_enough(np.zeros(3, dtype=np.bool_), 3)


def test_only_relevant_rows_of_the_test_days_are_judged(fabricate):
    """User 1 clicks on 10 and 20 and buys 20 later: the click before does not hide the purchase."""
    run = fabricate()
    raw = run.config.model_dump()
    raw["split"] |= {"relevant": "event == 'purchase'"}
    run.__dict__["config"] = parse_config(raw)
    file = run.step("split_by_time") / "test.parquet"
    rows = pd.read_parquet(file).assign(event="click")
    bought = rows[(rows["user_id"] == 1) & (rows["item_id"] == 20)].assign(event="purchase")
    pd.concat([rows, bought.assign(timestamp=rows["timestamp"].max() + 1)]).to_parquet(file)
    data = read_evaluation_data(run)
    assert data.warm.users.tolist() == data.all.users.tolist() == [1]
    assert data.warm.relevant.counts.tolist() == [1]
    assert data.warm.relevant.hits(np.array([[0, 1, 2]])).tolist() == [[False, True, False]]
    assert data.test_counts.tolist() == [0, 1, 0, 0]
