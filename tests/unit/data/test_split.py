"""Days are local, every row is counted once, and the guards hold."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from dssm_core.config import parse_config
from dssm_core.data.split import split, window_of
from dssm_core.data.splits.days import day_start_ms
from dssm_core.errors import DataError
from dssm_core.runs.files import write_atomically
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run, create_run

HOUR = 3_600_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def make_run(
    root: Path,
    rows: list[tuple[object, ...]],
    columns: str = "user_id item_id timestamp",
    **changes: object,
) -> Run:
    """A run whose validated log is `rows`, three of which validation quarantined."""
    data = {
        "source": {"kind": "synthetic"},
        **{key: changes.pop(key) for key in ("timezone", "positive") if key in changes},
    }
    items, ks = changes.pop("items", None), changes.pop("ks", [1])
    split = changes if "kind" in changes else {"test_day": "2024-03-03", "train_days": 2, **changes}
    raw = {
        "name": "t",
        "data": data,
        "split": split,
        "evaluation": {"ks": ks, "baselines": ["hot"]},
        "gate": {"k": ks[0]},
    }
    raw |= {"sampler": {"kind": "uniform"}, "features": {"activity": {"enabled": False}}}
    run = create_run(parse_config(raw), root, "r")
    folder = run.step("validate_data")
    folder.mkdir()
    frame = pd.DataFrame(rows, columns=columns.split())
    frame.to_parquet(folder / "interactions.parquet", index=False)
    if items is not None:
        pd.DataFrame(items, columns=["item_id", "created_at"]).astype(
            {"created_at": "Int64"}
        ).to_parquet(folder / "items.parquet", index=False)
    for step, count in (
        ("ingest_data", {"read": len(rows) + 3}),
        ("validate_data", {"clean": len(rows), "quarantined": 3}),
    ):
        manifest = Manifest(step=step, key="", files={}, rows=count, info={}, seconds=0, seed=0)
        write_atomically(run.step(step) / "manifest.json", manifest.model_dump_json().encode())
    return run


def work_of(run: Run) -> Path:
    work = run.root / ".work"
    work.mkdir()
    return work


LOG = [
    ("a", "x", ms("2024-02-29 23:59:59")),  # outside: before
    ("a", "x", ms("2024-03-01 00:00:00")),  # the first instant of train
    ("a", "y", ms("2024-03-02 10:00:00")),
    ("a", "y", ms("2024-03-02 10:00:00")),  # the same again
    ("b", "y", ms("2024-03-02 23:59:59")),
    ("b", "z", ms("2024-03-03 00:00:00")),  # the first instant of test; z was never seen
    ("c", "x", ms("2024-03-03 12:00:00")),  # c was never seen
    ("a", "x", ms("2024-03-03 13:00:00")),
    ("a", "x", ms("2024-03-03 14:00:00")),
    ("a", "x", ms("2024-03-04 00:00:00")),  # outside: after
]


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG)
    work = work_of(run)
    outcome = split(run, work)
    assert outcome.rows == {"read": 13, "train": 3, "test": 4, "outside": 2, "quarantined": 4}
    train, test = (pd.read_parquet(work / f"{part}.parquet") for part in ("train", "test"))
    assert list(train.columns) == ["user_id", "item_id", "timestamp", "label"]
    assert train["label"].tolist() == [1, 1, 1]
    assert str(train["label"].dtype) == "int8"
    assert train["timestamp"].tolist() == [LOG[1][2], LOG[2][2], LOG[4][2]]
    assert test["user_id"].tolist() == ["b", "c", "a", "a"]
    assert outcome.info["cold_user_share"] == 0.25  # c
    assert outcome.info["cold_item_share"] == 0.25  # z
    assert (outcome.info["start_ms"], outcome.info["cutoff_ms"]) == (
        ms("2024-03-01"),
        ms("2024-03-03"),
    )
    assert outcome.info["end_ms"] == ms("2024-03-04")


def test_duplicates_are_quarantined_with_the_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG)
    work = work_of(run)
    split(run, work)
    quarantine = pd.read_parquet(work / "quarantine.parquet")
    assert quarantine.to_dict("records") == [
        {
            "user_id": "a",
            "item_id": "y",
            "timestamp": LOG[3][2],
            "reason": "an earlier row has the same user, item and time",
        }
    ]


def test_clicks_older_than_their_item_are_quarantined(tmp_path: Path) -> None:
    born = ms("2024-03-02 10:00:01")
    run = make_run(tmp_path, LOG, items=[("x", None), ("y", born), ("z", ms("2024-03-03"))])
    work = work_of(run)
    assert split(run, work).rows == {
        "read": 13,
        "train": 2,
        "test": 4,
        "outside": 2,
        "quarantined": 5,
    }
    reasons = pd.read_parquet(work / "quarantine.parquet")["reason"].tolist()
    assert reasons == [
        "clicked 1000 ms before its item was created",
        "an earlier row has the same user, item and time",
    ]


def test_positive_decides_the_label_and_context_stays(tmp_path: Path) -> None:
    rows = [
        ("a", "x", ms("2024-03-01"), 2.0, "tv"),
        ("a", "y", ms("2024-03-02"), 3.0, None),
        ("a", "x", ms("2024-03-03"), 5.0, "tv"),
    ]
    run = make_run(tmp_path, rows, "user_id item_id timestamp rating device", positive="rating > 2")
    work = work_of(run)
    split(run, work)
    train = pd.read_parquet(work / "train.parquet")
    assert train["label"].tolist() == [0, 1]
    assert list(train.columns) == ["user_id", "item_id", "timestamp", "label", "rating", "device"]


def test_cold_shares_look_at_positives_only(tmp_path: Path) -> None:
    rows = [
        ("a", "x", ms("2024-03-01"), 0),
        ("b", "y", ms("2024-03-01"), 1),
        ("b", "x", ms("2024-03-03"), 1),
        ("a", "y", ms("2024-03-03"), 0),
    ]
    outcome = split(
        run := make_run(tmp_path, rows, "user_id item_id timestamp label"), work_of(run)
    )
    assert (outcome.info["cold_user_share"], outcome.info["cold_item_share"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("day", "part"), [("2024-03-01", "train"), ("2024-03-05", "test"), ("2025-01-01", "train")]
)
def test_a_day_outside_the_data_names_the_days_there_are(
    tmp_path: Path, day: str, part: str
) -> None:
    run = make_run(tmp_path, LOG[1:9], test_day=day)
    with pytest.raises(
        DataError, match=rf"no row is left for {part}: .*the log has 2024-03-01 to 2024-03-03"
    ):
        split(run, work_of(run))


def test_rows_that_do_not_add_up_are_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG)
    wrong = run.need("validate_data").model_copy(update={"rows": {"quarantined": 2}})
    write_atomically(run.step("validate_data") / "manifest.json", wrong.model_dump_json().encode())
    with pytest.raises(DataError, match=r"13 read, but .* = 3 \+ 4 \+ 2 \+ 3"):
        split(run, work_of(run))


def test_days_begin_at_local_midnight_and_follow_daylight_saving() -> None:
    assert day_start_ms(date(2017, 10, 7), ZoneInfo("America/Sao_Paulo")) == ms("2017-10-07 03:00")
    raw = {
        "name": "t",
        "data": {"source": {"kind": "synthetic"}, "timezone": "Europe/Berlin"},
        "split": {"test_day": "2024-04-01", "train_days": 2},
    }
    edges = parse_config(raw).split.edges_ms(ZoneInfo("Europe/Berlin"))
    assert [(b - a) // HOUR for a, b in pairwise(edges)] == [24, 23, 24]  # 31 March has 23 hours
    window = window_of(parse_config(raw))
    assert (window.start_ms, window.cutoff_ms, window.end_ms) == (
        ms("2024-03-29 23:00"),
        ms("2024-03-31 22:00"),
        ms("2024-04-01 22:00"),
    )


def test_a_day_without_midnight_begins_when_clocks_jump() -> None:
    """In São Paulo 2017-10-15 began at 01:00, which is 03:00 UTC."""
    assert day_start_ms(date(2017, 10, 15), ZoneInfo("America/Sao_Paulo")) == ms("2017-10-15 03:00")


def parts(run: Run) -> dict[str, list[tuple[object, ...]]]:
    """(user, item) of each part, in file order."""
    work = work_of(run)
    rows = split(run, work).rows
    assert rows["read"] == rows["train"] + rows["test"] + rows["outside"] + rows["quarantined"]
    frames = {part: pd.read_parquet(work / f"{part}.parquet") for part in ("train", "test")}
    return {
        part: list(frame[["user_id", "item_id"]].itertuples(index=False, name=None))
        for part, frame in frames.items()
    }


RATED = "user_id item_id timestamp rating"
RATINGS = [  # in time order, as ingested; a's last three rows tie
    ("a", "v", 1, 5),
    ("b", "v", 2, 5),
    ("a", "w", 3, 1),
    ("a", "x", 9, 5),
    ("a", "y", 9, 4),
    ("a", "z", 9, 2),
    ("b", "x", 9, 1),
    ("c", "v", 9, 5),
    ("c", "w", 9, 3),
]


def test_leave_one_out_takes_the_last_positive_in_file_order(tmp_path: Path) -> None:
    found = parts(make_run(tmp_path, RATINGS, RATED, kind="leave_one_out", positive="rating > 2"))
    assert found["test"] == [
        ("a", "y"),
        ("c", "w"),
    ]  # b has one positive only; a's z came after and is outside
    assert found["train"] == [
        ("a", "v"),
        ("b", "v"),
        ("a", "w"),
        ("a", "x"),
        ("b", "x"),
        ("c", "v"),
    ]


def test_leave_one_out_tests_nobody_below_min_positives(tmp_path: Path) -> None:
    found = parts(
        make_run(
            tmp_path, RATINGS, RATED, kind="leave_one_out", min_positives=3, positive="rating > 2"
        )
    )
    assert found["test"] == [("a", "y")]
    assert ("c", "w") in found["train"]


def test_last_n_takes_the_newest_rows_of_any_label(tmp_path: Path) -> None:
    found = parts(make_run(tmp_path, RATINGS, RATED, kind="last_n", n=2, positive="rating > 2"))
    assert found["test"] == [("a", "y"), ("a", "z")]  # b and c have no third row to be known by
    found = parts(
        make_run(tmp_path / "one", RATINGS, RATED, kind="last_n", n=1, positive="rating > 2")
    )
    assert found["test"] == [("a", "z"), ("b", "x"), ("c", "w")]


def test_a_quarantined_row_is_nobodys_last(tmp_path: Path) -> None:
    rows = [("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("a", "z", 3)]
    for name, settings in {
        "loo": {"kind": "leave_one_out"},
        "last": {"kind": "last_n", "n": 1},
    }.items():
        found = parts(make_run(tmp_path / name, rows, **settings))
        assert found == {"train": [("a", "x"), ("a", "y")], "test": [("a", "z")]}


def test_without_a_cutoff_all_of_train_counts_as_known(tmp_path: Path) -> None:
    run = make_run(tmp_path, RATINGS, RATED, kind="last_n", n=2)
    info = split(run, work_of(run)).info
    assert (info["start_ms"], info["cutoff_ms"], info["end_ms"], info["days"]) == (1, 10, 10, [])


def test_fixed_goes_by_the_rows_own_word(tmp_path: Path) -> None:
    rows = [
        ("a", "x", 0, "train"),
        ("b", "x", 0, "test"),
        ("a", "y", 1, "test"),
        ("a", "z", 2, "dev"),
        ("b", "z", 2, None),
    ]
    run = make_run(tmp_path, rows, "user_id item_id timestamp part", kind="fixed")
    assert parts(run) == {"train": [("a", "x")], "test": [("b", "x"), ("a", "y")]}


def test_fixed_without_its_column_says_what_to_map(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG, kind="fixed")
    with pytest.raises(DataError, match="no column 'part': map a column"):
        split(run, work_of(run))


def holdout(
    root: Path, rows: list[tuple[object, ...]], **settings: object
) -> dict[str, list[tuple[object, ...]]]:
    return parts(
        make_run(root, rows, "user_id item_id timestamp label", kind="holdout", **settings)
    )


def test_holdout_takes_its_share_of_each_users_positives_and_negatives(tmp_path: Path) -> None:
    rows = [("a", item, 0, int(item < 10)) for item in range(30)] + [("b", 1, 0, 1), ("b", 2, 0, 0)]
    found = holdout(tmp_path / "one", rows, share=0.3)
    tested = [item for user, item in found["test"] if user == "a"]
    assert (sum(item < 10 for item in tested), sum(item >= 10 for item in tested)) == (3, 6)
    assert all(user == "a" for user, _ in found["test"]), "one row of each sort always trains"
    assert len(found["train"]) + len(found["test"]) == 32
    assert holdout(tmp_path / "two", rows[::-1], share=0.3)["test"][::-1] == found["test"], (
        "the rows' order says nothing"
    )
    assert holdout(tmp_path / "three", rows, share=0.3, seed=1) != found


def test_lists_longer_than_the_catalogue_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG, ks=[3])
    with pytest.raises(
        DataError,
        match=r"needs lists of 3 items, but .* have only 2 items: .* --set gate\.k=1",
    ):
        split(run, work_of(run))


def test_nobody_to_test_says_which_setting_to_change(tmp_path: Path) -> None:
    run = make_run(tmp_path, RATINGS, RATED, kind="leave_one_out", min_positives=9)
    with pytest.raises(
        DataError,
        match=r"no row is left for test: users with 9 positives .* lower split\.min_positives",
    ):
        split(run, work_of(run))


def test_a_log_without_positives_names_the_comparison(tmp_path: Path) -> None:
    run = make_run(tmp_path, LOG, ks=[3])
    data = run.config.data.model_copy(update={"positive": "timestamp == 7"})
    run.__dict__["config"] = run.config.model_copy(update={"data": data})
    with pytest.raises(DataError, match=r"no row of train is a positive: .*`timestamp == 7`"):
        split(run, work_of(run))
