"""Publishing to Parquet, and to Redis where a server is there to be started: what readers see, and when."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from dssm_core import publish as publishing
from dssm_core.bundle import assemble, open_bundle
from dssm_core.errors import ConfigError, ServiceError
from dssm_core.publish import ParquetTarget, open_target, publish
from tests.unit.conftest import ITEMS, USERS


@pytest.fixture
def bundle(fabricate, tmp_path):
    return open_bundle(assemble(fabricate(), tmp_path / "bundle"))


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
    users, items = (pq.read_table(folder / "3" / f"{name}.parquet").to_pydict() for name in ("user_id", "item_id"))
    assert users["id"] == ["1", "2", "3"]
    assert items["id"] == ["10", "20", "30", "40"]
    assert np.array_equal(np.array(users["vector"], np.float32), USERS[1:])
    assert np.array_equal(np.array(items["vector"], np.float32), ITEMS)
    assert json.loads((folder / "current.json").read_text()) == {name: value for name, value in done.items() if name != "target"}
    assert (done["user_ids"], done["item_ids"], done["version"]) == (3, 4, "3")


def test_a_version_that_is_there_is_not_written_again(bundle, tmp_path, monkeypatch):
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))
    monkeypatch.setattr(ParquetTarget, "publish", lambda *_: pytest.fail("written again"))
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))


def test_stopped_in_the_middle_readers_keep_the_old_version(bundle, tmp_path, monkeypatch):
    publish(bundle, "dssm-made", "3", str(tmp_path / "out"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "_write_parquet", full)
    with pytest.raises(ServiceError, match="No space left"):
        publish(bundle, "dssm-made", "4", str(tmp_path / "out"))
    assert open_target(str(tmp_path / "out")).current("dssm-made")["version"] == "3"


@pytest.mark.parametrize(("model", "target"), [("../x", "out"), ("dssm-made", "s3://bucket/x")])
def test_what_cannot_be_published_is_said(bundle, model, target):
    with pytest.raises(ConfigError, match=r"must be letters|give a folder, or redis"):
        publish(bundle, model, "1", target)


def test_redis_answers_by_key_and_keeps_one_version_back(bundle, client):
    for version in ("1", "2", "3"):
        publish(bundle, "dssm-made", version, address(client))
    assert json.loads(client.get("dssm-made:current"))["version"] == "3"
    assert np.array_equal(np.frombuffer(client.get("dssm-made:3:user_id:2"), "<f4"), USERS[2])
    assert np.array_equal(np.frombuffer(client.get("dssm-made:2:item_id:40"), "<f4"), ITEMS[3])
    assert list(client.scan_iter("dssm-made:1:*")) == []
    assert client.dbsize() == 2 * 7 + 1


def test_redis_readers_keep_the_old_version_where_the_new_one_is_not_whole(bundle, client, monkeypatch):
    publish(bundle, "dssm-made", "1", address(client))
    check = publishing._check

    def lose(found, prefix, side):
        found.delete(f"{prefix}:{'2' if side.name == 'user_id' else '20'}")
        check(found, prefix, side)

    monkeypatch.setattr(publishing, "_check", lose)
    with pytest.raises(ServiceError, match="1 of 3 vectors below dssm-made:2:user_id are not in Redis"):
        publish(bundle, "dssm-made", "2", address(client))
    monkeypatch.undo()
    assert json.loads(client.get("dssm-made:current"))["version"] == "1"
    assert np.array_equal(np.frombuffer(client.get("dssm-made:1:user_id:2"), "<f4"), USERS[2])
    publish(bundle, "dssm-made", "2", address(client))
    assert json.loads(client.get("dssm-made:current"))["version"] == "2"


def test_redis_that_is_away_is_named(bundle):
    with pytest.raises(ServiceError, match=r"Redis at redis://127\.0\.0\.1:9/0|Redis at 127\.0\.0\.1:9/0"):
        publish(bundle, "dssm-made", "1", "redis://127.0.0.1:9/0")
