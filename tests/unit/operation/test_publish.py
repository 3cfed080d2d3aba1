"""Publishing to Parquet, and to Redis where a server is there to be started: what readers see, and
when.
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

from dssm_core.errors import ConfigError, ServiceError
from dssm_core.operation import publish as publishing
from dssm_core.operation.publish import Vectors, open_target, publish
from dssm_core.operation.recommend import UserLists
from dssm_core.operation.targets import parquet as folders
from dssm_core.operation.targets import redis as servers
from dssm_core.operation.targets.parquet import ParquetTarget
from dssm_core.operation.targets.redis import RedisTarget
from dssm_core.retrieval.bundle import open_bundle
from dssm_core.retrieval.catalogue import Catalogue
from dssm_core.runs.files import locked
from local.processes import free_port
from tests.conftest import running_redis
from tests.unit.conftest import ITEMS, USERS


@pytest.fixture
def client(redis_server):
    import redis

    with redis.Redis.from_url(redis_server) as found:
        found.flushall()
        yield found


def address(client):
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"


def test_parquet_holds_every_vector_and_the_pointer_comes_last(bundle, tmp_path):
    done = publish(bundle, "dssm-made", "3", str(tmp_path / "out"))
    folder = tmp_path / "out" / "dssm-made"
    users, items = (
        pq.read_table(folder / "3" / f"{name}.parquet").to_pydict()
        for name in ("user_id", "item_id")
    )
    assert users["id"] == [1, 2, 3]
    assert items["id"] == [10, 20, 30, 40]
    assert np.array_equal(np.array(users["vector"], np.float32), USERS[1:])
    assert np.array_equal(np.array(items["vector"], np.float32), ITEMS)
    assert json.loads((folder / "current.json").read_text()) == {
        name: value for name, value in done.items() if name != "target"
    }
    assert (done["user_ids"], done["item_ids"], done["version"]) == (3, 4, "3")


def test_a_version_that_is_there_is_not_written_again(bundle, tmp_path, monkeypatch):
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))
    monkeypatch.setattr(ParquetTarget, "publish", lambda *_: pytest.fail("written again"))
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))


def test_a_version_that_readers_see_is_not_replaced_under_them(bundle, tmp_path, monkeypatch):
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))
    monkeypatch.setattr(publishing, "content_hash", lambda folder: "f" * 64)
    with pytest.raises(
        ConfigError,
        match=r"a version 3 of 'dssm-made' with content \w{12}, this one has f{12}:"
        " publish to another",
    ):
        publish(bundle, "dssm-made", "3", str(tmp_path / "out"))
    publish(bundle, "dssm-made", "4", str(tmp_path / "out"))


def lists_of(bundle, k=2, as_of_ms=None):
    return UserLists(bundle, bundle.rules(as_of_ms), k)


def test_parquet_holds_the_lists_of_all_users(bundle, tmp_path):
    target, folder = str(tmp_path / "out"), tmp_path / "out" / "dssm-made"
    done = publish(bundle, "dssm-made", "3", target, lists_of(bundle, 1))
    assert done["lists"] == {"k": 1}
    table = pq.read_table(folder / "3" / "lists.parquet").to_pydict()
    assert table == {  # by hand: each user points at one item
        "user_id": [1, 2, 3],
        "item_ids": [[10], [20], [30]],
        "scores": [[1.0], [1.0], [1.0]],
        "source": ["user"] * 3,
    }
    assert json.loads((folder / "current.json").read_text())["lists"] == {"k": 1}
    publish(bundle, "dssm-made", "3", target, lists_of(bundle, 2))
    assert len(pq.read_table(folder / "3" / "lists.parquet")["item_ids"][0]) == 2
    assert json.loads((folder / "current.json").read_text())["lists"] == {"k": 2}


def test_lists_are_of_a_time_where_items_are(bundle, tmp_path):
    """Of a catalogue whose items end: published again at another time, the lists are others."""
    until = pd.Series([5_000.0, np.nan, np.nan, np.nan])
    timed = replace(bundle, catalogue=Catalogue(4, {"available_until": until}))
    for of, about in ((bundle, {"k": 1}), (timed, {"k": 1, "as_of_ms": 5_000})):
        done = publish(of, "dssm-made", "3", str(tmp_path / "out"), lists_of(of, 1, 5_000))
        assert done["lists"] == about
    first = pq.read_table(tmp_path / "out" / "dssm-made" / "3" / "lists.parquet")["item_ids"][0]
    assert first.as_py() in ([20], [40])  # not 10, which ended; both are at right angles to user 1


def test_parquet_readers_keep_the_old_version_where_lists_fail(bundle, tmp_path, monkeypatch):
    target = str(tmp_path / "out")
    publish(bundle, "dssm-made", "3", target)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UserLists, "table", full)
    with pytest.raises(ServiceError, match="No space left"):
        publish(bundle, "dssm-made", "4", target, lists_of(bundle))
    assert open_target(target).current("dssm-made")["version"] == "3"
    assert not (tmp_path / "out" / "dssm-made" / "4" / "lists.parquet").exists()


def test_redis_holds_a_list_for_each_user(bundle, client):
    """Lists of another length are other content: they share no key."""
    prefixes = []
    for k, wanted in ((1, [20]), (4, [20, 10, 30, 40])):
        publish(bundle, "dssm-made", "1", address(client), lists_of(bundle, k))
        current = json.loads(client.get("dssm-made:current"))
        prefixes.append(current["prefix"])
        items = json.loads(client.get(f"{current['prefix']}:lists:2"))
        assert (items[0], sorted(items), items[-1]) == (20, sorted(wanted), wanted[-1])
        assert current["lists"] == {"k": k}
    assert len(set(prefixes)) == 2
    assert json.loads(client.get(f"{prefixes[0]}:lists:2")) == [20]  # the one before is kept
    assert client.dbsize() == 2 * (7 + 3) + 1
    publish(bundle, "dssm-made", "2", address(client))
    assert json.loads(client.get(f"{prefixes[1]}:lists:2"))[0] == 20
    assert (client.get(f"{prefixes[0]}:lists:2"), client.dbsize()) == (None, 7 + 10 + 1)


def test_redis_readers_keep_the_old_version_where_a_list_is_lost(bundle, client, monkeypatch):
    publish(bundle, "dssm-made", "1", address(client))
    check = servers._check

    def lose(found, prefix, sample):
        found.delete(f"{prefix}:2" if prefix.endswith(":lists") else "nothing")
        check(found, prefix, sample)

    monkeypatch.setattr(servers, "_check", lose)
    with pytest.raises(ServiceError, match=r"1 of 3 keys below dssm-made:2-\w{8}-\w{8}:lists are"):
        publish(bundle, "dssm-made", "2", address(client), lists_of(bundle))
    assert json.loads(client.get("dssm-made:current"))["version"] == "1"


def test_stopped_in_the_middle_readers_keep_the_old_version(bundle, tmp_path, monkeypatch):
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "_write", full)
    with pytest.raises(ServiceError, match="No space left"):
        publish(bundle, "dssm-made", "4", str(tmp_path / "out"))
    assert open_target(str(tmp_path / "out")).current("dssm-made")["version"] == "3"


def in_the_middle(act):
    """Some ids at a time; `act` is called when only a part of the items is written."""
    parts = Vectors.parts

    def stopped(vectors):
        for part in parts(vectors):
            yield part
            if vectors.name == "item_id":
                act()

    publishing.ROWS_AT_ONCE, Vectors.parts = 2, stopped


def publish_and_die(folder, target):
    in_the_middle(lambda: os.kill(os.getpid(), signal.SIGKILL))
    publish(open_bundle(folder), "dssm-made", "4", target)


def test_parquet_killed_in_the_middle_readers_keep_the_old_version(bundle, tmp_path):
    target, folder = str(tmp_path / "out"), tmp_path / "out" / "dssm-made"
    publish(bundle, "dssm-made", "3", target)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    process = multiprocessing.get_context("spawn").Process(
        target=publish_and_die, args=(bundle.folder, target)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert sorted(file.name for file in (folder / "4").iterdir()) == [
        "item_id.part",
        "user_id.parquet",
    ]
    assert {file: file.read_bytes() for file in before} == before
    assert open_target(target).current("dssm-made")["version"] == "3"
    publish(bundle, "dssm-made", "4", target)
    assert open_target(target).current("dssm-made")["version"] == "4"
    for name in ("item_id.parquet", "user_id.parquet"):
        assert pq.read_table(folder / "4" / name).equals(pq.read_table(folder / "3" / name))
    assert sorted(file.name for file in (folder / "4").iterdir()) == [
        "item_id.parquet",
        "user_id.parquet",
    ]


@pytest.mark.parametrize(("model", "target"), [("../x", "out"), ("dssm-made", "s3://bucket/x")])
def test_what_cannot_be_published_is_said(bundle, model, target):
    with pytest.raises(ConfigError, match=r"must be letters|give a folder, or redis"):
        publish(bundle, model, "1", target)


def key(client, version, side, name):
    """As a reader makes it, from the prefix that the version is told with."""
    prefix = json.loads(client.get("dssm-made:current"))["prefix"].replace(":3-", f":{version}-")
    return f"{prefix}:{side}:{name}"


def test_redis_answers_by_key_and_keeps_one_version_back(bundle, client):
    for version in ("1", "2", "3"):
        publish(bundle, "dssm-made", version, address(client))
    assert json.loads(client.get("dssm-made:current"))["version"] == "3"
    assert np.array_equal(
        np.frombuffer(client.get(key(client, "3", "user_id", 2)), "<f4"), USERS[2]
    )
    assert np.array_equal(
        np.frombuffer(client.get(key(client, "2", "item_id", 40)), "<f4"), ITEMS[3]
    )
    assert list(client.scan_iter("dssm-made:1-*")) == []
    assert client.dbsize() == 2 * 7 + 1


def test_redis_readers_keep_the_old_version_where_the_new_one_is_not_whole(
    bundle, client, monkeypatch
):
    publish(bundle, "dssm-made", "1", address(client))
    check = servers._check

    def lose(found, prefix, sample):
        found.delete(f"{prefix}:{'2' if prefix.endswith('user_id') else '20'}")
        check(found, prefix, sample)

    monkeypatch.setattr(servers, "_check", lose)
    with pytest.raises(
        ServiceError, match=r"1 of 3 keys below dssm-made:2-\w{8}:user_id are not in Redis"
    ):
        publish(bundle, "dssm-made", "2", address(client))
    monkeypatch.undo()
    assert json.loads(client.get("dssm-made:current"))["version"] == "1"
    assert np.array_equal(
        np.frombuffer(client.get(key(client, "1", "user_id", 2)), "<f4"), USERS[2]
    )
    publish(bundle, "dssm-made", "2", address(client))
    assert json.loads(client.get("dssm-made:current"))["version"] == "2"


def test_redis_of_two_publishers_at_once_one_waits_for_the_other(bundle, client, monkeypatch):
    publish(bundle, "dssm-made", "1", address(client))
    parts, lost = Vectors.parts, []

    def second():
        with monkeypatch.context() as patch:
            patch.setattr(servers, "LOCK_TIMEOUT_S", 0.1)
            with pytest.raises(ServiceError, match="Unable to acquire lock") as told:
                publish(bundle, "dssm-made", "3", address(client))
            lost.append(told)

    def meanwhile(vectors):
        second()
        yield from parts(vectors)

    monkeypatch.setattr(Vectors, "parts", meanwhile)
    publish(bundle, "dssm-made", "2", address(client))
    monkeypatch.undo()
    assert len(lost) == 2
    assert (json.loads(client.get("dssm-made:current"))["version"], client.dbsize()) == ("2", 15)
    seen, now = {"version": "1"}, open_target(address(client)).current("dssm-made")
    monkeypatch.setattr(RedisTarget, "current", lambda self, model: seen)  # as of before it waited
    with pytest.raises(
        ServiceError, match="another publisher was faster, readers see version 2: publish again"
    ):
        publish(bundle, "dssm-made", "3", address(client))
    monkeypatch.undo()
    assert (open_target(address(client)).current("dssm-made"), client.dbsize()) == (now, 15)


def test_redis_a_publisher_that_lost_its_lock_lets_nobody_see_what_it_wrote(
    bundle, client, monkeypatch
):
    """It slept for longer than its lease: another may be writing."""
    publish(bundle, "dssm-made", "1", address(client))
    check = servers._check
    monkeypatch.setattr(
        servers, "_check", lambda *told: (client.delete("dssm-made:publisher"), check(*told))
    )
    with pytest.raises(ServiceError, match="lock that's no longer owned"):
        publish(bundle, "dssm-made", "2", address(client))
    assert json.loads(client.get("dssm-made:current"))["version"] == "1"


def test_parquet_of_two_publishers_at_once_the_slower_is_told(bundle, tmp_path, monkeypatch):
    """The one that waits for the lock has seen version 1."""
    target = str(tmp_path / "out")
    publish(bundle, "dssm-made", "1", target)
    seen = ParquetTarget.current
    answers = [seen(ParquetTarget(tmp_path / "out"), "dssm-made")]
    publish(bundle, "dssm-made", "3", target)
    monkeypatch.setattr(
        ParquetTarget,
        "current",
        lambda self, model: answers.pop() if answers else seen(self, model),
    )
    with pytest.raises(
        ServiceError, match="another publisher was faster, readers see version 3: publish again"
    ):
        publish(bundle, "dssm-made", "2", target)
    assert open_target(target).current("dssm-made")["version"] == "3"
    monkeypatch.setattr(folders, "LOCK_TIMEOUT_S", 0.1)
    with (
        locked(tmp_path / "out" / "dssm-made" / ".lock", 1, "test"),
        pytest.raises(ServiceError, match=r"\.lock has been held for 0 s: another publisher hangs"),
    ):
        publish(bundle, "dssm-made", "2", target)


def test_redis_a_number_used_again_by_another_mlflow_shares_no_key(bundle, client, monkeypatch):
    publish(bundle, "dssm-made", "1", address(client))
    publish(bundle, "dssm-made", "2", address(client))
    monkeypatch.setattr(publishing, "content_hash", lambda folder: "f" * 64)
    publish(bundle, "dssm-made", "1", address(client))
    told = json.loads(client.get("dssm-made:current"))
    assert told["prefix"] == "dssm-made:1-ffffffff"
    assert {name.decode().rsplit(":", 2)[0] for name in client.scan_iter("dssm-made:1-*")} == {
        told["prefix"]
    }


def test_redis_that_is_away_is_named(bundle):
    with pytest.raises(
        ServiceError, match=r"Redis at redis://127\.0\.0\.1:9/0|Redis at 127\.0\.0\.1:9/0"
    ):
        publish(bundle, "dssm-made", "1", "redis://127.0.0.1:9/0")


def held(client, version):
    return {
        name.decode().split(":", 2)[2]: client.get(name)
        for name in client.scan_iter(f"dssm-made:{version}-*")
    }


@pytest.mark.parametrize("kept", ["log", "snapshot"])
def test_redis_killed_in_the_middle_readers_keep_the_old_version(
    bundle, tmp_path, monkeypatch, kept
):
    """What a killed Redis comes back with, from its log of writes or from a snapshot of the worst
    moment.
    """
    import redis

    options = ("--appendonly", "yes") if kept == "log" else ()
    port = free_port(0)
    target, client = f"redis://127.0.0.1:{port}/0", redis.Redis(port=port)
    with running_redis(tmp_path, port, *options) as process:
        publish(bundle, "dssm-made", "1", target)
        first = held(client, "1")

        def die():
            if kept == "snapshot":
                client.save()
            process.kill()
            process.wait()

        monkeypatch.setattr(publishing, "ROWS_AT_ONCE", 2)
        monkeypatch.setattr(
            servers, "LEASE_S", 0.5
        )  # what a killed Redis comes back with holds the lock
        monkeypatch.setattr(Vectors, "parts", Vectors.parts)
        in_the_middle(die)
        with pytest.raises(ServiceError, match=r"Redis at .* then publish again"):
            publish(bundle, "dssm-made", "2", target)
        monkeypatch.undo()
    with running_redis(tmp_path, port, *options):
        assert len(held(client, "2")) == 5  # all users and a part of the items
        assert json.loads(client.get("dssm-made:current"))["version"] == "1"
        assert held(client, "1") == first
        assert len(first) == 7
        publish(bundle, "dssm-made", "2", target)
        assert json.loads(client.get("dssm-made:current"))["version"] == "2"
        assert held(client, "2") == held(client, "1") == first


def test_keys_of_others_stay_and_one_that_is_no_text_stops_nothing(bundle, client):
    others = [
        b"dssm-made:cache:user_id:1",
        b"dssm-made:2-abcdef12:notes:1",  # a content that is not published
        b"dssm-made:2-abcdef12x:user_id:1",
        b"dssm-made:\xff\xfe:\xff",
        b"dssm-made:2-abcdef12:\xff:1",
        b"other:2-abcdef12:user_id:1",
    ]
    outdated = [b"dssm-made:2-abcdef12:user_id:1", b"dssm-made:2-abcdef12:item_id:\xff"]
    for name in [*others, *outdated]:
        client.set(name, b"x")
    publish(bundle, "dssm-made", "3", address(client))
    assert [client.exists(name) for name in others] == [1] * len(others)
    assert [client.exists(name) for name in outdated] == [0, 0]
    assert json.loads(client.get("dssm-made:current"))["version"] == "3"
