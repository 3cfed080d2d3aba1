"""Logs as they come: zones, decimals, unfinished files, odd encodings, damage. Each is read as it
is meant, or refused in a sentence.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dssm_core.columns import CREATED, ITEM, TIME, USER
from dssm_core.config import parse_config
from dssm_core.data.database import UNREADABLE, unreadable, write_parquet
from dssm_core.data.ingest import ingest
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.sources.delimited import Delimited
from dssm_core.data.sources.files import find_files
from dssm_core.data.sources.parquet import Parquet
from dssm_core.data.sql import numbered_rows, parquet
from dssm_core.errors import DataError
from dssm_core.runs.run import create_run

HEAD = "user_id,item_id,timestamp\n"
YEAR_1 = -62_135_596_800_000
YEAR_10000 = 253_402_300_800_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def read(source: Delimited | Parquet, columns: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as con:
        return source.read(con).interactions.project(columns).fetchall()


def text_log(path: Path, **table: object) -> Delimited:
    return Delimited.model_validate({"path": str(path), "interactions": {"files": "*", **table}})


def parquet_log(path: Path, **table: object) -> Parquet:
    return Parquet.model_validate({"path": str(path), "interactions": {"files": "*", **table}})


def ingested(folder: Path, source: dict[str, object]) -> dict[str, int]:
    """The number of rows that `ingest_data` reads."""
    raw = {
        "name": "t",
        "data": {"source": {"path": str(folder), **source}},
        "split": {"test_day": "2024-03-03"},
    }
    run = create_run(parse_config(raw), folder / "runs", "r")
    work = run.root / ".work"
    work.mkdir()
    return ingest(run, work).rows


def refusal(folder: Path, source: dict[str, object]) -> str:
    """Why `ingest_data` refuses a log."""
    with pytest.raises(DataError) as error:
        ingested(folder, source)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-03-01 12:00:00 EST", "2024-03-01T17:00:00"),
        ("2024-03-01 12:00 Europe/Berlin", "2024-03-01T11:00:00"),
        ("2024-07-01 12:00:00.5 Europe/Berlin", "2024-07-01T10:00:00.5"),
        ("2024-03-01T12:00:00Z", "2024-03-01T12:00:00"),
        ("2024-03-01T12:00:00+05:30", "2024-03-01T06:30:00"),
        ("2024-03-01 12:00:00", "2024-03-01T03:00:00"),
        ("2024-03-01", "2024-02-29T15:00:00"),
        ("1969-07-20 12:00:00 UTC", "1969-07-20T12:00:00"),
    ],
)
def test_a_time_with_a_zone_is_of_that_zone(tmp_path: Path, text: str, utc: str) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD}1,2,{text}\n")
    source = text_log(tmp_path, time_unit="iso", timezone="Asia/Tokyo")
    assert read(source, TIME) == [(ms(utc),)]


@pytest.mark.parametrize(
    "text",
    [
        "2024-03-01 12:00:00 Nowhere/Town",
        "2024-03-01 12:00:00 CEST",
        "2024-03-01 10:00:00 PM",
        "0000-13-01 00:00:00",
        "12024-03-01 00:00:00",
        "infinity",
    ],
)
def test_a_time_that_is_none_is_kept_as_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(f"{HEAD}1,2,{text}\n")
    assert read(text_log(tmp_path, time_unit="iso"), f"{TIME}, {RAW}{TIME}") == [(None, text)]


@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6)])
def test_times_outside_the_years_1_to_9999_are_none(tmp_path: Path, unit: str, per_s: int) -> None:
    first, end = YEAR_1 // 1000 * per_s, YEAR_10000 // 1000 * per_s
    none = [end, first - per_s, 2**62, -(2**62), 10**30, "9" * 5000]
    lines = "".join(f"1,2,{value}\n" for value in (first, end - per_s, *none))
    (tmp_path / "a.csv").write_text(HEAD + lines)
    rows = read(text_log(tmp_path, time_unit=unit), f"{TIME}, {RAW}{TIME}")
    assert rows[:2] == [(YEAR_1, None), (YEAR_10000 - 1000, None)]
    assert rows[2:] == [(None, str(value)) for value in none]


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("ns", "UTC"),
        pa.timestamp("ns", "Europe/Berlin"),
        pa.timestamp("us", "+02:00"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("s", "UTC"),
        pa.timestamp("ns"),
        pa.timestamp("us"),
    ],
    ids=str,
)
def test_every_type_of_timestamp_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    moments = [1_709_251_200_000, -14_182_940_000]
    times = pa.array(moments, pa.timestamp("ms")).cast(pa.timestamp(kind.unit)).view(pa.int64())
    table = pa.table({USER: ["1", "2"], ITEM: ["a", "b"], TIME: times.view(kind)})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(pa.table({ITEM: ["a", "b"], CREATED: times.view(kind)}), tmp_path / "items")
    source = Parquet.model_validate(
        {
            "path": str(tmp_path),
            "interactions": {"files": "*.parquet"},
            "items": {"files": "items"},
        }
    )
    with duckdb.connect() as con:
        tables = source.read(con)
        assert tables.interactions.project(TIME).fetchall() == [(moment,) for moment in moments]
        assert tables.items is not None
        assert tables.items.project(CREATED).fetchall() == [(moment,) for moment in moments]


def test_seven_is_one_id_in_every_type(tmp_path: Path) -> None:
    columns = [
        pa.array([Decimal("7"), Decimal("70"), Decimal("-7.5"), Decimal("0"), None]).cast(kind)
        for kind in (pa.decimal128(38, 10), pa.decimal128(10, 1), pa.decimal128(5, 2))
    ]
    columns.append(pa.array([7.0, 70.0, -7.5, 0.0, float("nan")]))
    columns.append(pa.array(["7.0000000000", "70.0", "-7.5", "0.00", " "]))
    for place, ids in enumerate(columns):
        table = pa.table({USER: ids, ITEM: ids, TIME: list(range(5))})
        pq.write_table(table, tmp_path / f"{place}.parquet")
    whole = pa.array([Decimal("7"), Decimal("70")]).cast(pa.decimal128(20, 0))
    pq.write_table(pa.table({USER: whole, ITEM: whole, TIME: [0, 1]}), tmp_path / "9.parquet")
    rows = [("7",), ("70",), ("-7.5",), ("0",), (None,)]
    assert read(parquet_log(tmp_path), USER) == rows * len(columns) + rows[:2]


def test_a_folder_of_runs_adds_no_column_to_a_step_s_own_file(tmp_path: Path) -> None:
    folder = tmp_path / "user_id=me [1]" / "x=1"
    folder.mkdir(parents=True)
    file = folder / "interactions.parquet"
    with duckdb.connect() as con:
        assert write_parquet(con, "SELECT 'u' AS user_id, 5 AS timestamp", file) == 1
        assert con.sql(numbered_rows(file)).fetchall() == [("u", 5, 0)]
        assert con.sql(f"SELECT * FROM {parquet(file, file)}").fetchall() == [("u", 5)] * 2
    assert pd.read_parquet(file).to_dict("list") == {USER: ["u"], TIME: [5]}


HIDDEN = (
    "_SUCCESS",
    "._a.csv",
    ".b.csv",
    "_temporary/0/task_1/c.csv",
    ".ipynb_checkpoints/a-checkpoint.csv",
    "day/_d.csv",
)


def test_files_that_are_not_there_yet_are_no_data(tmp_path: Path) -> None:
    for name in ("a.csv", "day/b_c.csv", *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{HEAD}1,2,3\n")
    assert list(find_files(str(tmp_path), ["**/*"])) == ["a.csv", "day/b_c.csv"]
    assert list(find_files(str(tmp_path), ["_temporary/**/*.csv"])) == [HIDDEN[3]]
    assert list(find_files(str(tmp_path), [".b*"])) == [".b.csv"]
    (tmp_path / "day" / "b_c.csv").unlink()
    with pytest.raises(DataError, match=r"matches 'day/\*' but 'day/_d\.csv', which is skipped"):
        find_files(str(tmp_path), ["day/*"])


@pytest.mark.parametrize("pattern", ["", ".", "/a", "../a", "a/../../b", "a\0", "**.csv", "~/a"])
def test_patterns_that_name_no_file_are_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        text_log(Path(), files=pattern)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"quote": ","}, "quote ',' is in separator ','"),
        ({"separator": "::", "quote": ":"}, "quote ':' is in separator '::'"),
        ({"separator": "\n"}, "no NUL or end of a line"),
        ({"quote": "\0"}, "no NUL or end of a line"),
        ({"quote": "«"}, "at most 1 bytes"),
        ({"separator": "¦¦¦"}, "at most 4 bytes"),
    ],
)
def test_marks_that_cannot_end_a_value_are_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        text_log(Path(), **settings)


@pytest.mark.parametrize("names", [None, [USER, ITEM, TIME]])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_utf_16_is_read_whole_or_refused(
    tmp_path: Path, names: list[str] | None, mark: str, ends: str
) -> None:
    lines = [f"u{n},日本é{n},{n}" for n in range(20_000)]
    text = mark + ends.join([*(() if names else [HEAD.strip()]), *lines]) + ends
    source = text_log(tmp_path, encoding="utf-16", names=names)
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16-be"))
    with pytest.raises(DataError, match=r"a\.csv' is in big-endian UTF-16: convert it to UTF-8"):
        read(source, USER)
    if names or mark:  # a header without a mark is no UTF-16 for Python
        (tmp_path / "a.csv").write_bytes(text.encode("utf-16-le"))
        rows = read(source, f"{USER}, {ITEM}, {TIME}")
        assert rows == [(f"u{n}", f"日本é{n}", n) for n in range(20_000)]


def test_utf_16_with_characters_beyond_its_first_plane_is_refused(tmp_path: Path) -> None:
    source = text_log(tmp_path, encoding="utf-16")
    (tmp_path / "a.csv").write_text(f"{HEAD}u1,i😀,1\n", encoding="utf-16")
    with pytest.raises(UNREADABLE) as caught:
        read(source, USER)
    message = str(unreadable(caught.value))
    assert "characters beyond U+FFFF, such as emoji" in message
    assert "Convert the files to UTF-8" in message


@pytest.mark.parametrize("ends", [("\r\n", "\n"), ("\n", "\r\n"), ("\n", "\r")])
def test_lines_that_end_in_two_ways_are_named(tmp_path: Path, ends: tuple[str, str]) -> None:
    lines = [HEAD.strip(), *(f"u{n},i,{n}" for n in range(5))]
    text = "".join(line + ends[place > 3] for place, line in enumerate(lines))
    (tmp_path / "a.csv").write_text(text, newline="")
    said = refusal(tmp_path, {"kind": "delimited", "interactions": {"files": "*.csv"}})
    assert "all lines of a file must end in the same way (LF or CRLF)" in said


@pytest.mark.parametrize(
    "content",
    [
        f"{HEAD[:-1]},{'x' * 200_000}\n1,2,3,4\n".encode(),
        HEAD.encode() + b"1,\xff\xfe,3\n",
        f"{HEAD}1,{'x' * 3_000_000},3\n".encode(),
        f'{HEAD}1,"a,3\n'.encode(),
        f"{HEAD}1,2\n".encode(),
        f"{HEAD[:-1]},a\0\n1,2,3\n".encode(),
        b"",
        b"\n",
        b"\0" * 100,
    ],
    ids=["long header", "bytes", "long", "open quote", "short", "nul", "empty", "line", "zeros"],
)
def test_damaged_text_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    said = refusal(tmp_path, {"kind": "delimited", "interactions": {"files": "*.csv"}})
    assert "a.csv" in said
    assert len(said) < 1200


def test_damaged_parquet_is_refused_in_a_sentence(tmp_path: Path) -> None:
    columns = {USER: ["u1", "u2"] * 500, ITEM: ["i"] * 1000, TIME: list(range(1000))}
    pq.write_table(pa.table(columns), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    size = len(whole)
    contents = [whole[:end] for end in (0, 3, 4, 100, size // 2, size - 1)]
    contents += [whole[:at] + b"\0" * 40 + whole[at + 40 :] for at in range(0, size - 40, 97)]
    for place, content in enumerate(contents):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "a.parquet").write_bytes(content)
        source = {"kind": "parquet", "interactions": {"files": "*.parquet"}}
        if place < 6:
            assert len(refusal(folder, source)) < 1200
        else:
            with suppress(DataError):  # not every byte of a file matters
                assert ingested(folder, source) == {"read": 1000}


def test_a_folder_that_vanishes_while_it_is_searched(tmp_path: Path, monkeypatch) -> None:
    def vanished(folder: Path, pattern: str):
        raise FileNotFoundError(2, "No such file or directory", "log/gone")

    monkeypatch.setattr(Path, "glob", vanished)
    with pytest.raises(DataError, match=r"'log/gone' cannot be searched \(No such file or dir"):
        find_files(str(tmp_path), ["*.csv"])
