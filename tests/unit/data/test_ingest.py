"""The first step: time order, file order for ties, typed numbers, and sentences for files that
cannot be read.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from dssm_core.config import Resources, parse_config
from dssm_core.data.database import connect, write_parquet
from dssm_core.data.ingest import ingest, open_source
from dssm_core.errors import DataError, ServiceError
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.step_key import outside_content
from dssm_core.runs.table import STEPS


def run_on(folder: Path, features: dict[str, object] | None = None, **data: object) -> Run:
    source = {
        "kind": "delimited",
        "path": str(folder),
        "interactions": {"files": "*.csv*"},
        **data.pop("source", {}),
    }  # type: ignore[dict-item]
    raw = {
        "name": "t",
        "data": {"source": source, **data},
        "split": {"test_day": "2024-03-03"},
        "features": features or {},
    }
    return create_run(parse_config(raw), folder / "runs", "r")


def ingested(run: Run, table: str = "interactions") -> pd.DataFrame:
    work = run.root / ".work"
    work.mkdir(exist_ok=True)
    ingest(run, work)
    assert sorted(file.name for file in run.root.iterdir()) == [
        ".work",
        "config.json",
    ]  # nothing spilled is left
    return pd.read_parquet(work / f"{table}.parquet")


def test_rows_come_in_time_order_with_file_order_for_ties(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id,timestamp\nb,1,20\na,1,10\nc,1,20\n,1,oops\n")
    (tmp_path / "2.csv").write_text("user_id,item_id,timestamp\na,2,10\nb,2,5\na,3,20\n")
    log = ingested(run_on(tmp_path))
    assert list(zip(log["user_id"].fillna("?"), log["item_id"], strict=True)) == [
        *[("b", "2"), ("a", "1"), ("a", "2"), ("b", "1"), ("c", "1"), ("a", "3")],
        ("?", "1"),  # without a time: last, never lost
    ]
    assert log["_dssm_raw_timestamp"].tolist()[-1] == "oops"


def test_label_and_numeric_features_are_numbers_with_their_text_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,timestamp,rating\n1,7,1,4\n1,7,2,four\n1,7,3,nan\n1,7,4,\n"
    )
    (tmp_path / "items.txt").write_text("item_id,words\n7,12.5\n8,?\n")
    features = {"columns": {"item": [{"column": "words", "kind": "numeric"}]}}
    run = run_on(
        tmp_path,
        features,
        source={"items": {"files": "items.txt"}},
        positive="rating > 2",
        labels=[1, 2, 3, 4, 5],
    )
    log = ingested(run)
    assert log["rating"].fillna(-1).tolist() == [4.0, -1, -1, -1]
    assert log["_dssm_raw_rating"].fillna("").tolist() == ["", "four", "nan", ""]
    items = pd.read_parquet(run.root / ".work" / "items.parquet")
    assert items["words"].fillna(-1).tolist() == [12.5, -1]
    assert items["_dssm_raw_words"].fillna("").tolist() == ["", "?"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"1 2\n3 \xff\xfe\n", r"(?i)unicode.*a\.txt"),
        (b"1 " + b"234 " * 8_500_000, r"line size.*a\.txt"),
        (b"u\n", "has no row"),
    ],
    ids=["encoding", "endless", "no-items"],
)
def test_sequences_that_cannot_be_read_are_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    raw = {
        "name": "t",
        "data": {"source": {"kind": "sequences", "path": str(tmp_path), "lines": "*.txt"}},
        "split": {"kind": "leave_one_out"},
        "features": {"activity": {"enabled": False}},
        "sampler": {"kind": "uniform"},
        "evaluation": {"baselines": ["hot"]},
    }
    with pytest.raises(DataError, match=says):
        ingested(create_run(parse_config(raw), tmp_path / "runs", "r"))


def test_truncated_gzip_is_named(tmp_path: Path) -> None:
    content = gzip.compress(
        (
            "user_id,item_id,timestamp\n"
            + "".join(f"{i},{i * 7919 % 1000},{i}\n" for i in range(50_000))
        ).encode()
    )
    (tmp_path / "cut.csv.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.csv\.gz.*Copy the file again"):
        ingested(run_on(tmp_path))


@pytest.mark.parametrize(("line", "found"), [("1,2", 2), ("1,2,3,4", 4)])
def test_a_line_with_another_number_of_fields_is_named_without_advice_on_sql(
    tmp_path: Path, line: str, found: int
) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    (tmp_path / "2.csv").write_text(f"user_id,item_id,timestamp\n1,2,3\n{line}\n")
    with pytest.raises(DataError) as error:
        ingested(run_on(tmp_path))
    assert str(error.value) == (
        "the log cannot be read: Invalid Input Error: CSV Error on Line: 3 Original Line: "
        f"{line} Expected Number of Columns: 3 Found: {found} in {str(tmp_path / '2.csv')!r}."
        " Copy the file again, or fix or remove the line"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("user_id,item_id,timestamp\n", "the log has no row")],
)
def test_no_rows(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        ingested(run_on(tmp_path))


def test_source_files_are_what_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    run = run_on(tmp_path)
    before = outside_content(run, STEPS["ingest_data"])
    assert list(before) == list(open_source(run.config).files()) == ["a.csv"]
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,4\n")
    assert outside_content(run, STEPS["ingest_data"]) != before


def test_a_full_disk_is_worth_a_retry_once_there_is_space(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.is_char_device():  # a file of that name would be written
        pytest.skip("this system has no /dev/full")
    with pytest.raises(ServiceError) as error, connect(tmp_path / "work", Resources()) as con:
        write_parquet(con, "SELECT 1 AS a", full)
    reason = 'Could not write file "/dev/full": No space left on device'
    assert (
        str(error.value)
        == f"cannot write near {tmp_path / 'work'} ({reason}): free disk space, then retry"
    )


def test_a_full_spill_folder_is_told_without_advice_on_sql(tmp_path: Path) -> None:
    small = "SET memory_limit = '20MB'; SET max_temp_directory_size = '1MB';"
    with (
        pytest.raises(ServiceError, match=r"cannot write near .*Out of Memory Error") as error,
        connect(tmp_path / "work", Resources()) as con,
    ):
        con.execute(
            f"{small} SELECT range AS a, random() AS b FROM range(2000000) ORDER BY b"
        ).fetchall()
    assert "Possible" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_separator_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id;item_id;timestamp\n1;2;3\n")
    with pytest.raises(DataError, match="only column is 'user_id;item_id;timestamp', so check"):
        ingested(run_on(tmp_path))


def test_a_file_that_is_no_gzip_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain.csv.gz").write_text("user_id,item_id,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match=r"plain\.csv\.gz' cannot be read as gzip"):
        ingested(run_on(tmp_path))
