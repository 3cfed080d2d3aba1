"""The coded log that SQL makes, against a twin that codes a pandas frame at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dssm_core.config import Feature, FeatureColumns, Features, Resources
from dssm_core.data.database import connect
from dssm_core.errors import ConfigError
from dssm_core.features.dataset import empty_log
from dssm_core.features.ids import Ids
from dssm_core.features.interactions import Interactions
from dssm_core.features.tables import encode_context
from dssm_core.runs.memory import SHARE_OF_A_PART, Memory
from dssm_core.sampling.coded_log import (
    BYTES_A_ROW,
    check_memory,
    code_context,
    fit_ids,
    open_train,
    unlisted,
    write_log,
)

WINDOW = (0, 1000)
CONTEXT = Features(
    columns=FeatureColumns(
        context=(
            Feature(column="device", kind="categorical"),
            Feature(column="place", kind="categorical", buckets=9),
        )
    )
)


def coded(
    folder: Path,
    train: pd.DataFrame,
    items: pd.DataFrame | None = None,
    features: Features | None = None,
    catalogue: bool = False,
    rows_at_once: int = 1000,
    listed_first: bool = False,
) -> tuple[Interactions, dict[str, Ids], int]:
    """The log, the ids and the number of positives that are not listed."""
    train.to_parquet(folder / "train.parquet")
    listed = folder / "items.parquet" if catalogue else None
    if listed and items is not None:
        items.to_parquet(listed)
    features = features or Features()
    work = folder / "work"
    work.mkdir()
    memory = Memory(int(rows_at_once * BYTES_A_ROW / SHARE_OF_A_PART))
    with connect(work, Resources()) as con:
        open_train(con, folder / "train.parquet", listed)
        ids = fit_ids(con, listed, listed_first)
        code_context(con, features, work, folder)
        log = write_log(con, features, ids, items, WINDOW, work, folder, memory)
        return log, ids, unlisted(con, len(log.item))


def rows(*clicks: tuple[str, str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(clicks, columns=["user_id", "item_id", "timestamp", "label"])


CLICKS = rows(("u1", "a", 10, 1), ("u2", "b", 20, 1), ("u1", "b", 30, 1), ("u1", "c", 40, 1))


def test_an_item_is_known_from_its_creation_else_its_first_click(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a", "b"], "created_at": [3.0, None]})
    log, _, _ = coded(tmp_path, CLICKS, items)
    assert log.created.tolist() == [1000, 3, 20, 40]
    assert log.item.tolist() == [1, 2, 2, 3]


def test_an_item_without_a_click_is_known_at_the_end(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["b", "c", "d", "e"]})
    log, ids, left_out = coded(tmp_path, CLICKS, items, catalogue=True)
    assert ids["item_id"].index.tolist() == ["b", "c", "d", "e"]
    assert (log.item.tolist(), left_out) == ([1, 1, 2], 1)  # item a is not in the catalogue
    assert log.created.tolist() == [1000, 20, 40, 1000, 1000]


def test_items_without_a_positive_can_come_last(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a0", "b", "b0", "c", "d"]})
    log, ids, _ = coded(tmp_path, CLICKS, items, catalogue=True, listed_first=True)
    assert ids["item_id"].index.tolist() == ["b", "c", "a0", "b0", "d"]
    assert ids["user_id"].index.tolist() == ["u1", "u2"]
    assert log.item.tolist() == [1, 1, 2]


def test_a_log_of_the_first_items_leaves_out_what_was_shown_of_others(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a", "b", "c", "z"], "available_until": [1.0, 2, 3, 4]})
    shown = rows(("u2", "z", 50, 0), ("u1", "a", 60, 0))
    train = pd.concat([CLICKS, shown], ignore_index=True)
    log, _, _ = coded(tmp_path, train, items, catalogue=True)
    first = log.of_items(4)
    assert (log.shown_item.tolist(), first.shown_item.tolist()) == ([4, 1], [1])
    assert (first.shown_user.tolist(), first.shown_time.tolist()) == ([1], [60])
    assert first.created.equal(log.created[:4])
    assert first.available_until.tolist()[1:] == [1, 2, 3]
    assert len(log.available(0)) == len(first.available(0)) + 1
    same_answers(first, first.without(torch.zeros_like(first.user, dtype=torch.bool)))


def test_availability_by_code_without_limits_where_there_are_none(tmp_path: Path) -> None:
    limits = torch.iinfo(torch.int64)
    items = pd.DataFrame({"item_id": ["c", "a"], "available_until": [50.0, None]})
    log, _, _ = coded(tmp_path, CLICKS, items)
    assert log.available_from.tolist() == [limits.min] * 4
    assert log.available_until.tolist() == [limits.max, limits.max, limits.max, 50]
    assert log.before(40).available(49).tolist() == [True] * 4
    assert log.available(50).tolist() == [True, True, True, False]


def test_items_are_always_available_if_their_table_has_no_limits(tmp_path: Path) -> None:
    log, _, _ = coded(tmp_path, CLICKS, pd.DataFrame({"item_id": ["c", "a"]}))
    assert not log.timed_items
    assert log.available(50).tolist() == [True] * 4


def test_shown_rows_of_known_users_and_items_are_kept(tmp_path: Path) -> None:
    shown = rows(
        ("u2", "a", 50, 0), ("new", "a", 60, 0), ("u1", "never clicked", 70, 0), ("u1", "c", 80, 0)
    )
    log, _, _ = coded(tmp_path, pd.concat([CLICKS, shown], ignore_index=True))
    assert (log.shown_user.tolist(), log.shown_item.tolist(), log.shown_time.tolist()) == (
        [2, 1],
        [1, 3],
        [50, 80],
    )
    assert log.before(80).shown_item.tolist() == [1]


def made_up_train(rng: np.random.Generator, n: int = 500) -> pd.DataFrame:
    """Rows in time order, with ties, nulls, odd ids and both labels."""
    names = np.array(["é", "Z", "a", "aa", "ß", "10", "9", "user 7", "😀", "~"])
    return pd.DataFrame(
        {
            "user_id": names[rng.integers(0, 10, n)],
            "item_id": names[rng.integers(0, 10, n)] + rng.integers(0, 9, n).astype(str),
            "timestamp": np.sort(rng.integers(0, 200, n)),
            "label": rng.integers(0, 2, n).astype(np.int8),
            "device": rng.choice(["web", "app", None], n),
            "place": rng.choice([1.5, 7.0, 2.0**60, np.nan], n),
        }
    )


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_the_log_in_parts_equals_one_frame(tmp_path: Path, rows_at_once: int) -> None:
    """Codes, order and sorted rows are those of pandas and of a sort in memory."""
    train = made_up_train(np.random.default_rng(3))
    log, ids, left_out = coded(tmp_path, train, None, CONTEXT, rows_at_once=rows_at_once)
    clicks = train[train["label"] == 1]
    for column, codes in (("user_id", log.user), ("item_id", log.item)):
        assert ids[column].index.equals(Ids.fit(clicks[column]).index)
        assert codes.tolist() == Ids.fit(clicks[column]).encode(clicks[column]).tolist()
    assert log.time.tolist() == clicks["timestamp"].tolist()
    assert log.context.equal(encode_context(CONTEXT.columns, clicks, tmp_path / "work"))
    assert left_out == 0
    shown = train[train["label"] == 0]
    shown = shown[shown["item_id"].isin(clicks["item_id"])]
    assert log.shown_time.tolist() == shown["timestamp"].tolist()
    assert log.shown_item.tolist() == ids["item_id"].encode(shown["item_id"]).tolist()
    for part in (log, log.before(120), log.before(0)):
        same_answers(part, part.without(torch.zeros_like(part.user, dtype=torch.bool)))


def same_answers(stored: Interactions, computed: Interactions) -> None:
    """What is asked of a log is the same from stored rows and from rows that are sorted now."""
    assert stored.by_user is not None
    assert computed.by_user is None
    asked: dict[str, Any] = {"as_of": torch.tensor([0, 60, 119, 120, 121, 500]).repeat(9)}
    code = torch.arange(54) % 10
    for name, arguments in {"history": (3,), "clicks_before": (), "last_click": ()}.items():
        if not len(computed.user) and name != "history":
            continue
        ours = getattr(stored, name)(code, asked["as_of"], *arguments)
        theirs = getattr(computed, name)(code, asked["as_of"], *arguments)
        if name == "clicks_before":  # only differences of it mean something
            ours = ours - getattr(stored, name)(code, asked["as_of"] * 0)
            theirs = theirs - getattr(computed, name)(code, asked["as_of"] * 0)
        assert all(map(torch.equal, *(x if type(x) is tuple else (x,) for x in (ours, theirs))))
    assert all(map(torch.equal, stored.sequences(), computed.sequences()))


def test_an_empty_log_has_empty_sequences() -> None:
    order, ptr = empty_log().sequences()
    assert (order.tolist(), ptr.tolist()) == ([], [0, 0])


def test_memory_that_cannot_hold_the_ids_is_refused_with_the_number() -> None:
    ids = {"user_id": Ids(pd.RangeIndex(9_000_000)), "item_id": Ids(pd.RangeIndex(1_000_000))}
    check_memory(Resources(memory_gib=5.3), ids)  # 2 x (300 MiB + 10 million x 250 bytes)
    check_memory(Resources(), ids)
    message = r"memory_gib is 5\.2, but 10,000,000 users and items need at least 5\.3 GiB: raise it"
    with pytest.raises(ConfigError, match=message):
        check_memory(Resources(memory_gib=5.2), ids)
