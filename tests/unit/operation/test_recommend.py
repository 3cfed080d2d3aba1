"""Lists of many users: equal to those of `Bundle.retrieve`, whatever the number of users at a
time; what is unknown is counted, and a file is whole or not there.
"""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.errors import ConfigError, DataError, ServiceError
from dssm_core.features.ids import Ids
from dssm_core.operation import recommend as recommending
from dssm_core.operation.recommend import UserLists, recommend
from dssm_core.retrieval import requests
from dssm_core.retrieval.bundle import Bundle, open_bundle
from dssm_core.retrieval.catalogue import Catalogue
from dssm_core.retrieval.indexes.faiss_flat import FaissFlat
from dssm_core.retrieval.item_index import build_item_index
from dssm_core.retrieval.seen_items import SeenItems

N_USERS, N_ITEMS = 30, 40


@pytest.fixture
def large(bundle):
    """30 users and 40 items with text ids, item columns, and 3 seen items a user. Vectors are whole
    numbers, so that scores are exact; most scores differ.
    """
    rng = np.random.default_rng(5)
    users, items = (
        rng.integers(-999, 999, (n, 8)).astype(np.float32) / 64 for n in (N_USERS + 1, N_ITEMS)
    )
    seen = [rng.choice(N_ITEMS, 3, replace=False) for _ in range(N_USERS)]
    category = pd.Series(["news" if n % 4 else "sport" for n in range(N_ITEMS)])
    until = pd.Series([1_000 if n < 10 else np.nan for n in range(N_ITEMS)])
    return replace(
        bundle,
        users=Ids(pd.Index([f"u{n:02}" for n in range(N_USERS)])),
        items=Ids(pd.Index([f"a{n:02}" for n in range(N_ITEMS)])),
        user_vectors=users,
        index=build_item_index(FaissFlat(), items, 0),
        catalogue=Catalogue(N_ITEMS, {"category": category, "available_until": until}),
        seen=SeenItems.of(
            np.repeat(np.arange(1, N_USERS + 1), 3), np.concatenate(seen), N_USERS + 1, N_ITEMS
        ),
    )


def written(file):
    return pq.read_table(file).to_pandas()


def same(found, wanted, users):
    pd.testing.assert_series_equal(
        found["user_id"].astype("string"), pd.Series(users, dtype="string", name="user_id")
    )
    for column in ("item_ids", "scores"):
        assert [list(part) for part in found[column]] == [list(part) for part in wanted[column]]
    assert found["source"].tolist() == wanted["source"].tolist()


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("filters", [(), ("category == 'sport'",)])
@pytest.mark.parametrize("as_of_ms", [999, 1_000])
def test_all_users_get_what_the_server_answers(large, tmp_path, exclude_seen, filters, as_of_ms):
    file = tmp_path / "new" / "lists.parquet"
    lists = UserLists(large, large.rules(as_of_ms, exclude_seen, filters), 35)
    about = recommend(lists, file)
    users = large.users.index.tolist()
    wanted = large.retrieve(pd.DataFrame({"user_id": users}), 35, exclude_seen, filters, as_of_ms)
    same(written(file), wanted, users)
    assert about == {
        "lists": str(file),
        "users": N_USERS,
        "unknown_users": 0,
        "k": 35,
        "exclude_seen": exclude_seen,
        "filters": list(filters),
    }
    # By hand: of 40 items, 10 are sport; 10 items, 3 of them sport, end at 1,000 ms.
    eligible = {(): {999: 40, 1_000: 30}, ("category == 'sport'",): {999: 10, 1_000: 7}}
    if not exclude_seen:
        lengths = written(file)["item_ids"].map(len)
        assert (lengths == min(35, eligible[filters][as_of_ms])).all()
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_the_columns_have_plain_types(large, bundle, tmp_path):
    for of, text in ((large, "string"), (bundle, "int64")):
        recommend(UserLists(of, of.rules(None), 2), tmp_path / "lists.parquet")
        schema = pq.read_schema(tmp_path / "lists.parquet")
        assert {name: str(schema.field(name).type) for name in schema.names} == {
            "user_id": text,
            "item_ids": f"list<element: {text}>",
            "scores": "list<element: float>",
            "source": "string",
        }


@pytest.mark.parametrize("at_once", [1, 7, N_USERS])
def test_few_users_at_a_time_give_the_same_file(large, tmp_path, monkeypatch, at_once):
    """`at_once` users, and never more, are asked for at a time."""
    lists = UserLists(large, large.rules(0), 20)
    recommend(lists, tmp_path / "one.parquet")
    answer, sizes = Bundle.answer, []

    def counted(self, queries, *rest):
        sizes.append(len(queries))
        return answer(self, queries, *rest)

    monkeypatch.setattr(Bundle, "answer", counted)
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", at_once)
    recommend(lists, tmp_path / "parts.parquet")
    assert pq.read_table(tmp_path / "parts.parquet").equals(pq.read_table(tmp_path / "one.parquet"))
    assert (max(sizes), sum(sizes)) == (at_once, N_USERS)


def test_long_lists_are_fewer_at_a_time(large, monkeypatch):
    monkeypatch.setattr(recommending, "ITEMS_AT_ONCE", 100)
    for k, sizes in ((20, [5] * 6), (10_000, [1] * N_USERS)):
        lists = UserLists(large, large.rules(0), k)
        assert [len(queries) for _, queries in lists.exported()] == sizes


def test_given_users_are_answered_row_by_row(large, tmp_path):
    """A row for each row of the file: one for unknown users, two for a user who is there twice."""
    users, file = tmp_path / "users.csv", tmp_path / "lists.parquet"
    users.write_text("user_id,exclude\nu03,a01 a02 zz\nnobody,\nu03,\n,a07\n")
    about = recommend(UserLists(large, large.rules(0), 35), file, users)
    exclude = [["a01", "a02", "zz"], [], [], ["a07"]]
    names = ["u03", "nobody", "u03", None]
    wanted = large.retrieve(pd.DataFrame({"user_id": names, "exclude": exclude}), 35, as_of_ms=0)
    same(written(file), wanted, ["u03", "nobody", "u03", pd.NA])
    assert (about["users"], about["unknown_users"]) == (4, 2)


def test_ids_are_written_as_they_are_given(bundle, tmp_path):
    """The model's ids are whole numbers: 2, 2.0 and "2" are one of them."""
    pd.DataFrame({"user_id": [2.0, 9.0]}).to_parquet(tmp_path / "users.parquet")
    (tmp_path / "users.txt").write_text("2\nnobody\n")
    lists, file = UserLists(bundle, bundle.rules(None), 1), tmp_path / "lists.parquet"
    for users, ids in (("users.parquet", [2.0, 9.0]), ("users.txt", ["2", "nobody"])):
        about = recommend(lists, file, tmp_path / users)
        assert written(file)["user_id"].tolist() == ids
        # User 2 points at item 20, and the vector of unknown users at item 40.
        assert [list(items) for items in written(file)["item_ids"]] == [[20], [40]]
        assert about["unknown_users"] == 1


def test_more_ids_than_a_request_may_have_are_answered_in_parts(large, tmp_path, monkeypatch):
    """Ten users with up to 4 ids each, and 6 or fewer at a time."""
    for module in (recommending, requests):
        monkeypatch.setattr(module, "MAX_IDS", 6)
    names = large.users.index[:10].tolist()
    exclude = [["a00", "a01", "a02", "a03"][: n % 5] for n in range(10)]
    pd.DataFrame({"user_id": names, "exclude": exclude}).to_parquet(tmp_path / "users.parquet")
    file = tmp_path / "lists.parquet"
    recommend(UserLists(large, large.rules(0), N_ITEMS), file, tmp_path / "users.parquet")
    found = written(file)
    assert found["user_id"].tolist() == names
    for row, items in zip(exclude, found["item_ids"], strict=True):
        assert len(items) == N_ITEMS - len(row)
        assert not set(row) & set(items)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("user_id,histroy\nu1,a1\n", "column 'histroy' .* did you mean 'history'"),
        ("user_id\n", "users file .* has no users"),
    ],
)
def test_a_wrong_file_of_users_is_named(large, tmp_path, content, problem):
    (tmp_path / "users.csv").write_text(content)
    lists = UserLists(large, large.rules(0), 5)
    with pytest.raises(DataError, match=problem):
        recommend(lists, tmp_path / "lists.parquet", tmp_path / "users.csv")
    assert not (tmp_path / "lists.parquet").exists()


def test_wrong_questions_are_named(large, tmp_path):
    lists = UserLists(large, large.rules(0), 5)
    with pytest.raises(
        ConfigError, match=r"lists file 'lists\.csv': its name must end in .parquet"
    ):
        recommend(lists, tmp_path / "lists.csv")
    with pytest.raises(DataError, match="k is 0"):
        UserLists(large, large.rules(0), 0)
    wrong = UserLists(large, large.rules(0, filters=["categroy == 'news'"]), 5)
    with pytest.raises(DataError, match="did you mean 'category'"):
        recommend(wrong, tmp_path / "lists.parquet")
    assert not (tmp_path / "lists.parquet").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_in_the_middle_the_old_file_stays(large, tmp_path, monkeypatch, error):
    lists, file = UserLists(large, large.rules(0), 5), tmp_path / "out" / "lists.parquet"
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", 10)
    table, parts = UserLists.table, []

    def failing(*asked):
        parts.append(asked)
        if len(parts) == 3:
            raise error
        return table(*asked)

    monkeypatch.setattr(UserLists, "table", failing)
    wanted = ServiceError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        recommend(lists, file)
    assert list(file.parent.iterdir()) == []
    file.write_bytes(b"old")
    parts.clear()
    with pytest.raises(wanted):
        recommend(lists, file)
    assert [(left.name, left.read_bytes()) for left in file.parent.iterdir()] == [
        ("lists.parquet", b"old")
    ]


def recommend_and_die(folder, file):
    table, parts = UserLists.table, []

    def dying(*asked):
        parts.append(asked)
        if len(parts) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return table(*asked)

    recommending.USERS_AT_ONCE, UserLists.table = 1, dying
    bundle = open_bundle(folder)
    recommend(UserLists(bundle, bundle.rules(None), 2), file)


def test_killed_in_the_middle_there_is_no_file_to_read(bundle, tmp_path):
    file = tmp_path / "out" / "lists.parquet"
    process = multiprocessing.get_context("spawn").Process(
        target=recommend_and_die, args=(bundle.folder, file)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not file.exists()
    assert all(left.name.startswith(".") for left in file.parent.iterdir())


def test_long_work_is_logged(large, monkeypatch, caplog):
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", 20)
    monkeypatch.setattr(recommending, "LOG_EVERY_S", -1.0)
    caplog.set_level("INFO")
    list(UserLists(large, large.rules(0), 5).parts())
    assert [record.getMessage() for record in caplog.records] == [
        "lists of 20 users are computed",
        "lists of 30 users are computed",
    ]


def test_the_command_writes_lists_and_says_what_it_did(fabricate, tmp_path):
    """By hand: each user points at one item, and at right angles to two; seen items are left out
    where asked.
    """
    run, file = fabricate(), tmp_path / "lists.parquet"
    command = ["recommend", "--run", str(run.root), "--k", "1", "--to", str(file)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "run": "one",
        "lists": str(file),
        "users": 3,
        "unknown_users": 0,
        "k": 1,
        "exclude_seen": False,
        "filters": [],
    }
    assert written(file)["user_id"].tolist() == [1, 2, 3]
    assert [list(items) for items in written(file)["item_ids"]] == [[10], [20], [30]]
    refused = CliRunner().invoke(main, [*command, "--filter", "category == 'news'"])
    assert refused.exit_code == 1
    assert "names 'category', which is no item column of the model" in refused.output
    assert CliRunner().invoke(main, ["recommend", "--to", str(file)]).exit_code == 1
