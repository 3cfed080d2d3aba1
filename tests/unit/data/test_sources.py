"""Files in their own format become canonical columns; what cannot be read is named."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from dssm_core.columns import ITEM, PART, TIME, USER
from dssm_core.data.sources.canonical import RAW
from dssm_core.data.sources.delimited import Delimited
from dssm_core.data.sources.files import FileTable, find_files
from dssm_core.data.sources.movielens import MovieLens
from dssm_core.data.sources.parquet import Parquet
from dssm_core.data.sources.sequences import Sequences
from dssm_core.data.sources.tencent import PERSON_KEYS, Tencent
from dssm_core.errors import DataError
from tests.tencent import write_sample

NOON = int(datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp())


def read(source: object, columns: str = f"{USER}, {ITEM}, {TIME}") -> list[tuple[object, ...]]:
    with duckdb.connect() as con:
        return source.read(con).interactions.project(columns).fetchall()  # type: ignore[attr-defined]


def log(path: Path, **table: object) -> Delimited:
    return Delimited.model_validate({"path": str(path), "interactions": {"files": "*", **table}})


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("s", f"{NOON}"),
        ("s", f"{NOON}.0004"),
        ("ms", f"{NOON}000"),
        ("us", f"{NOON}000001"),
        ("ns", f"{NOON}000000001"),
        ("iso", "2024-03-01T12:00:00Z"),
        ("iso", "2024-03-01 12:00"),
        ("iso", "2024-03-01T09:00:00-03:00"),
    ],
)
def test_time_units(tmp_path: Path, unit: str, value: str) -> None:
    (tmp_path / "a.csv").write_text(f"user_id,item_id,timestamp\n1,2,{value}\n")
    assert read(log(tmp_path, time_unit=unit)) == [("1", "2", NOON * 1000)]


def test_iso_times_without_offset_are_local(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,2024-03-01T09:00:00\n")
    assert (
        read(log(tmp_path, time_unit="iso", timezone="America/Sao_Paulo"))[0][2] == NOON * 1000
    )  # UTC-3


@pytest.mark.parametrize(
    ("text", "cell", "zone"),
    [
        ("%m/%d/%Y %I:%M:%S %p", "3/1/2024 12:00:00 PM", "UTC"),
        ("%m/%d/%Y %I:%M:%S %p", " 03/01/2024 9:00:00 am ", "America/Sao_Paulo"),  # UTC-3
        ("%d.%m.%y %H:%M", "01.03.24 21:00", "Asia/Tokyo"),  # UTC+9
        ("%Y-%m-%dT%H:%M:%S.%f%z", "2024-03-01T14:00:00.000000+0200", "America/Sao_Paulo"),
        ("%Y%m%d %H:%M:%S.%n", "20240301 12:00:00.000000000", "UTC"),
        ("%Y-%m-%d %H:%M %Z", "2024-03-01 13:00 Europe/Berlin", "Asia/Tokyo"),
        ("it's %d %b %Y, %H h %%z", "it's 1 Mar 2024, 12 h %z", "UTC"),
    ],
)
def test_time_formats(tmp_path: Path, text: str, cell: str, zone: str) -> None:
    (tmp_path / "a.csv").write_text(f'user_id,item_id,timestamp\n1,2,"{cell}"\n1,2,soon\n1,2,\n')
    rows = read(log(tmp_path, time_format=text, timezone=zone), f"{TIME}, {RAW}{TIME}")
    assert rows == [(NOON * 1000, None), (None, "soon"), (None, None)]


def test_a_format_reads_whole_numbers_and_leaves_timestamps_alone(tmp_path: Path) -> None:
    source = {"path": str(tmp_path), "interactions": {"files": "*", "time_format": "%Y%m%d"}}
    noon = datetime(2024, 3, 1, 12)
    for times, ms in ((pa.array([20240301]), NOON - 12 * 3600), (pa.array([noon]), NOON)):
        pq.write_table(pa.table({USER: [1], ITEM: [1], TIME: times}), tmp_path / "a.parquet")
        assert read(Parquet.model_validate(source)) == [("1", "1", ms * 1000)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%Q", "'%Q' is no format of times .*%Q"),
        ("", "Empty format"),
        ("%Y%", "Trailing"),
        ("noon", "does not say a whole time"),
        ("%H:%M", "does not say a whole time: add the year, the month and the day"),
        ("%Y-%m-%d %I:%M", "and %p beside %I"),
        ("%Y-%m-%d\0", "does not say a whole time"),
        ("%Y" * 5000, "does not say|is no format"),
    ],
)
def test_a_format_that_reads_no_time_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FileTable(files="*", time_format=text)


def test_times_have_a_unit_or_a_format() -> None:
    with pytest.raises(ValidationError, match="time_unit 's' and time_format '%Y%m%d' are two"):
        FileTable(files="*", time_format="%Y%m%d", time_unit="s")


def test_text_that_is_no_time_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n1,2,yesterday\n1,2,\n")
    assert read(log(tmp_path), f"{TIME}, _dssm_raw_timestamp") == [
        (None, "yesterday"),
        (None, None),
    ]


def test_mapping_renames_and_keeps_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("who\twhat\twhen\tdevice\nu\t i \t5\tphone\n")
    source = log(tmp_path, separator="\t", columns={USER: "who", ITEM: "what", TIME: "when"})
    assert read(source, "*") == [("u", "i", 5, None, "phone")]


def test_missing_column_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item_id,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match=r"'a.csv' has no column 'user_id'.*did you mean 'user'"):
        read(log(tmp_path))


def test_a_second_claim_to_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,login,item_id,timestamp\n1,x,2,3\n")
    with pytest.raises(
        DataError, match=r"a column 'user_id', but interactions\.columns maps 'user_id'"
    ):
        read(log(tmp_path, columns={USER: "login"}))


def test_names_that_differ_only_in_case_are_refused(tmp_path: Path) -> None:
    for place, header in enumerate(("user_id,item_id,timestamp,Timestamp", "user_id,User_ID,x,y")):
        (tmp_path / f"{place}.csv").write_text(f"{header}\n1,2,3,4\n")
    with pytest.raises(DataError, match="the columns 'timestamp' and 'Timestamp'"):
        read(log(tmp_path, files="0.csv"))
    with pytest.raises(DataError, match="the columns 'user_id' and 'User_ID'"):
        read(log(tmp_path, files="1.csv", columns={USER: "x"}))
    pq.write_table(pa.table({"a": [1], "A": [2]}), tmp_path / "a.parquet")
    parquet = Parquet.model_validate(
        {"path": str(tmp_path), "interactions": {"files": "a.parquet"}}
    )
    with pytest.raises(DataError, match="the columns 'a' and 'A'"):
        read(parquet)


def test_a_mapped_name_and_a_column_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("visitor,User_ID,item_id,timestamp\n1,x,2,3\n")
    with pytest.raises(DataError, match=r"a column 'User_ID', but interactions\.columns maps 'use"):
        read(log(tmp_path, columns={USER: "visitor"}))
    assert read(log(tmp_path, columns={USER: "visitor", "login": "User_ID"}), f"{USER}, login") == [
        ("1", "x")
    ]


def test_files_whose_names_differ_in_case_are_joined(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id,timestamp,device\n1,2,3,tv\n")
    (tmp_path / "2.csv").write_text("user_id,item_id,timestamp,Device\n4,5,6,pc\n")
    assert read(log(tmp_path), "device") == [("tv",), ("pc",)]


@pytest.mark.parametrize(
    "text", [",user_id,item_id,timestamp\n0,1,2,3\n", "user_id,item_id,timestamp,\n1,2,3,\n"]
)
def test_a_column_without_a_name_is_left_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert read(log(tmp_path), f"COLUMNS(* EXCLUDE ({RAW}timestamp))") == [("1", "2", 3)]


def test_folders_of_a_parquet_log_are_columns_unless_the_file_has_them(tmp_path: Path) -> None:
    base = tmp_path / "user_id=me" / "log"
    folder = base / "date=2024-03-01" / "country=c%C3%B4te"
    folder.mkdir(parents=True)
    table = pa.table({USER: ["u"], ITEM: ["i"], TIME: [1], "Date": ["own"]})
    pq.write_table(table, folder / "a.parquet")
    source = Parquet.model_validate({"path": str(base), "interactions": {"files": "**/*.parquet"}})
    assert read(source, f"{USER}, Date, country") == [("u", "own", "côte")]
    (folder / "a.csv").write_text("user_id,item_id,timestamp,date\nu,i,1,own\n")
    assert read(log(base, files="**/*.csv"), f"{USER}, date") == [("u", "own")]


@pytest.mark.parametrize("name", ["*.csv", "[a].csv", "?.csv", "[*]{x,b}.csv", "a'b.csv", "~.csv"])
def test_the_name_of_a_file_is_no_pattern(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "log [2024]*"
    folder.mkdir()
    for user, file in (("1", name), ("2", "b.csv"), ("3", "x.csv")):
        (folder / file).write_text(f"user_id,item_id,timestamp\n{user},2,3\n")
    assert sorted(read(log(folder))) == [("1", "2", 3), ("2", "2", 3), ("3", "2", 3)]
    source = Delimited.model_validate({"path": str(folder / name), "interactions": {"files": "*"}})
    assert read(source) == [("1", "2", 3)]


def test_files_without_header_quotes_and_gzip(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt") as stream:
        stream.write('1,"a, ""b""",3\n')
    assert read(log(tmp_path, names=[USER, ITEM, TIME])) == [("1", 'a, "b"', 3)]


def test_files_with_other_columns_are_joined_by_name_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    (tmp_path / "2.csv").write_text("timestamp,item_id,user_id,device\n6,5,4,tv\n")
    assert read(log(tmp_path), f"{USER}, {ITEM}, {TIME}, device") == [
        ("1", "2", 3, None),
        ("4", "5", 6, "tv"),
    ]


def test_ids_of_mixed_types_are_one_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({USER: [7, 8], ITEM: [1, 2], TIME: [1, 2]}), tmp_path / "1.parquet")
    pq.write_table(
        pa.table({USER: ["7", "x"], ITEM: pa.array([1.0, None]), TIME: [3, 4]}),
        tmp_path / "2.parquet",
    )
    source = Parquet.model_validate({"path": str(tmp_path), "interactions": {"files": "*.parquet"}})
    assert read(source) == [("7", "1", 1), ("8", "2", 2), ("7", "1", 3), ("x", None, 4)]


def test_float_ids_that_are_no_number_are_missing(tmp_path: Path) -> None:
    ids = pa.array([7.0, float("nan"), float("inf"), 1.5, 1e40])
    pq.write_table(
        pa.table({USER: ids, ITEM: ids.cast(pa.float32()), TIME: [1, 2, 3, 4, 5]}),
        tmp_path / "a.parquet",
    )
    source = Parquet.model_validate({"path": str(tmp_path), "interactions": {"files": "*"}})
    assert read(source, f"{USER}, {ITEM}") == [
        ("7", "7"),
        (None, None),
        (None, None),
        ("1.5", "1.5"),
        ("1e+40", None),
    ]


def test_text_ids_that_pandas_wrote_as_floats_are_the_integers_they_were(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id,timestamp\n7,0,1\n007,1.5,2\n")
    (tmp_path / "2.csv").write_text(
        "user_id,item_id,timestamp\n7.0,0.0,3\n-20.0,007.0,4\nv7.0,1.0.0,5\n7.00, 7.0 ,6\n.0,,7\n"
    )
    assert read(log(tmp_path), f"{USER}, {ITEM}") == [
        *[
            ("7", "0"),
            ("007", "1.5"),
            ("7", "0"),
            ("-20", "007.0"),
            ("v7.0", "1.0.0"),
            ("7", "7"),
        ],
        (".0", None),
    ]


def test_parquet_timestamps_are_converted(tmp_path: Path) -> None:
    naive, aware = (
        pa.array([datetime(2024, 3, 1, 12)], pa.timestamp("us")),
        pa.array([NOON * 1000], pa.timestamp("ms", "Asia/Tokyo")),
    )
    for column in (naive, aware):
        pq.write_table(pa.table({USER: [1], ITEM: [1], TIME: column}), tmp_path / "a.parquet")
        assert read(
            Parquet.model_validate({"path": str(tmp_path), "interactions": {"files": "*"}})
        ) == [("1", "1", NOON * 1000)]


def test_path_may_be_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("user_id,item_id,timestamp\n1,2,3\n")
    (tmp_path / "items.csv").write_text("item_id\n2\n")
    settings = {
        "path": str(tmp_path / "mine.csv"),
        "interactions": {"files": "clicks/*"},
        "items": {"files": "items.csv"},
    }
    source = Delimited.model_validate(settings)
    assert list(source.files()) == ["mine.csv", "items.csv"]
    assert read(source) == [("1", "2", 3)]


@pytest.mark.parametrize("pattern", ["../*.csv", "/etc/*", "a/../../b", ""])
def test_patterns_stay_inside(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValidationError, match="must name files inside"):
        Delimited.model_validate({"path": str(tmp_path), "interactions": {"files": pattern}})


def test_names_of_files_and_columns_are_not_sql(tmp_path: Path) -> None:
    (tmp_path / "it's.csv").write_text('user_id,item_id,timestamp,"a "" b\'; --"\n1,2,3,4\n')
    assert read(log(tmp_path), "*")[0][-1] == "4"
    assert list(find_files(str(tmp_path), ["*.csv"])) == ["it's.csv"]


@pytest.mark.parametrize("column", [3, [], ["a"], ["a", 4], {"a": "b"}])
def test_what_names_no_column_is_one_error(column: Any) -> None:
    with pytest.raises(ValidationError) as error:
        FileTable(files="a.csv", columns={"user_id": column})
    (problem,) = error.value.errors()
    assert problem["loc"] == ("columns", "user_id")
    assert problem["msg"].endswith("give the name of a column, or a list of two or more names")


def test_an_id_of_several_columns_is_one_text_that_no_other_values_make(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "country,device,item_id,timestamp\n"
        "de,7.0,1,1\na|b,c,1,2\na,b|c,1,3\na\\,b,1,4\na,\\|b,1,5\nde,,1,6\n,,1,7\n"
    )
    rows = read(log(tmp_path, columns={USER: ["country", "device"]}), f"{USER}, device")
    assert rows == [
        ("de|7", "7.0"),
        ("a\\|b|c", "c"),
        ("a|b\\|c", "b|c"),
        ("a\\\\|b", "b"),
        ("a|\\\\\\|b", "\\|b"),
        (None, None),
        (None, None),
    ]
    with pytest.raises(DataError, match=r"no column 'os', which interactions\.columns maps to"):
        read(log(tmp_path, columns={USER: ["country", "os"]}))
    for wrong in ({TIME: ["a", "b"]}, {USER: ["a"]}, {USER: []}, {USER: [1, "a"]}):
        with pytest.raises(ValidationError):
            log(tmp_path, columns=wrong)


def test_users_and_items_take_the_text_format_of_the_interactions(tmp_path: Path) -> None:
    (tmp_path / "log.tsv").write_text("user_id\titem_id\ttimestamp\n1\tx\t3\n", "latin-1")
    (tmp_path / "users.tsv").write_text("user_id\tcity\tb\n1\tKöln 'a\tb'\n", "latin-1")
    (tmp_path / "items.csv").write_text("item_id,name\nx,é\n")
    text = {"separator": "\t", "encoding": "latin-1", "quote": "'"}
    settings = {
        "path": str(tmp_path),
        "interactions": {"files": "log.tsv", **text},
        "users": {"files": "users.tsv", "names": [USER, "city", "b"], "quote": ""},
        "items": {"files": "items.csv", "separator": ",", "encoding": "utf-8"},
    }
    source = Delimited.model_validate(settings)
    assert cells(source, "users", "*")[1:] == [("1", "Köln 'a", "b'")]
    assert cells(source, "items", "*") == [("x", "é")]
    with pytest.raises(ValidationError, match=r"quote ',' is in separator ','"):
        Delimited.model_validate(
            settings | {"items": {"files": "x", "quote": ","}, "interactions": {"files": "x"}}
        )


@pytest.mark.parametrize("name", ["*.csv", "[a].csv", "b?.csv"])
def test_a_file_of_exactly_the_name_wins_over_the_pattern(tmp_path: Path, name: str) -> None:
    for user, file in (("1", name), ("2", "a.csv"), ("3", "b1.csv")):
        (tmp_path / file).write_text(f"user_id,item_id,timestamp\n{user},2,3\n")
    assert read(log(tmp_path, files=name)) == [("1", "2", 3)]
    (tmp_path / name).unlink()
    assert ("1", "2", 3) not in read(log(tmp_path, files=name))


def test_movielens_titles_are_latin_1_with_commas_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::7::5::978300760\n")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    (tmp_path / "movies.dat").write_bytes(
        '7::Misérables, "Les" (1995)::Drama|War\n'.encode("latin-1")
    )
    with duckdb.connect() as con:
        tables = MovieLens(path=str(tmp_path)).read(con)
        assert tables.interactions.project("timestamp, rating").fetchall() == [(978300760000, "5")]
        assert tables.items is not None
        assert tables.items.fetchall() == [("7", 'Misérables, "Les" (1995)', "Drama|War")]


def test_sequences_are_lines_of_a_user_and_their_items(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"\xef\xbb\xbfu1 9  7\t9 \r\n\r\n u2 5\r\nu3\r\n"
    )  # a BOM, blanks, an empty line, no items
    with gzip.open(tmp_path / "b.txt.gz", "wt") as stream:
        stream.write('u2 5 "x\n7.0 1')
    assert read(Sequences(path=str(tmp_path), lines="*.txt*")) == [
        *[("u1", "9", 0), ("u1", "7", 1), ("u1", "9", 2)],
        ("u2", "5", 0),
        *[("u2", "5", 1), ("u2", '"x', 2)],  # a second line goes on
        ("7", "1", 0),
    ]


def test_sequences_in_parts_test_after_they_train(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a 1 2 3\nb 4\na 5\n")
    (tmp_path / "test.txt").write_text("b 6 7\nc\n")
    source = Sequences.model_validate(
        {"path": str(tmp_path), "parts": {"train": "train.txt", "test": "test.txt"}}
    )
    assert list(source.files()) == ["train.txt", "test.txt"]
    assert read(source, f"{USER}, {ITEM}, {TIME}, {PART}") == [
        *[
            ("a", "1", 0, "train"),
            ("a", "2", 1, "train"),
            ("a", "3", 2, "train"),
            ("b", "4", 0, "train"),
            ("a", "5", 3, "train"),
        ],
        *[("b", "6", 4, "test"), ("b", "7", 5, "test")],  # the longest train sequence has 4
    ]
    assert read(source.model_copy(update={"path": str(tmp_path / "train.txt")})) == read(source)


def test_sequences_take_the_tables_of_movielens(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("1 7 8\n")
    (tmp_path / "users.dat").write_text("1::F::1::10::48067\n")
    (tmp_path / "movies.dat").write_bytes(
        '7::Misérables, "Les" (1995)::Drama|War\n8::B::Comedy\n'.encode("latin-1")
    )
    users = {
        "files": "users.dat",
        "separator": "::",
        "quote": "",
        "names": [USER, "gender", "age", "occupation", "zip"],
    }
    items = {
        "files": "movies.dat",
        "separator": "::",
        "quote": "",
        "names": [ITEM, "title", "genres"],
        "encoding": "latin-1",
    }
    source = Sequences.model_validate(
        {"path": str(tmp_path / "lines.txt"), "lines": "x", "users": users, "items": items}
    )
    with duckdb.connect() as con:
        tables = source.read(con)
        assert tables.users is not None
        assert tables.users.fetchall() == [("1", "F", "1", "10", "48067")]
        assert tables.items is not None
        assert tables.items.fetchall()[0] == ("7", 'Misérables, "Les" (1995)', "Drama|War")
        assert tables.interactions.fetchall() == [("1", "7", 0), ("1", "8", 1)]


def test_a_sequence_may_be_longer_than_a_usual_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("u " + " ".join(map(str, range(400_000))) + "\nv 1\n")
    with duckdb.connect() as con:
        rows = Sequences(path=str(tmp_path), lines="*").read(con).interactions
        assert rows.aggregate(
            f"count(*), count(*) FILTER ({TIME} = CAST({ITEM} AS BIGINT))"
        ).fetchall() == [(400_001, 400_000)]


def test_shuffled_sequences_hold_the_same_items_in_another_order_test_after_train(
    tmp_path: Path,
) -> None:
    (tmp_path / "train.txt").write_text("1 " + " ".join(map(str, range(20))) + "\n2 5 6\n")
    (tmp_path / "test.txt").write_text("1 20 21\n")
    settings = {"path": str(tmp_path), "parts": {"train": "train.txt", "test": "test.txt"}}

    def rows(shuffle: int | None) -> list[tuple[object, ...]]:
        return sorted(
            read(
                Sequences.model_validate(settings | {"shuffle": shuffle}),
                f"{USER}, {TIME}, {ITEM}, {PART}",
            )
        )

    plain, shuffled = rows(None), rows(1)
    assert shuffled == rows(1)
    assert len({tuple(rows(seed)) for seed in (None, 1, 2)}) == 3
    assert sorted(row[::2] + row[3:] for row in shuffled) == sorted(
        row[::2] + row[3:] for row in plain
    )
    assert [row[:2] + row[3:] for row in shuffled] == [
        row[:2] + row[3:] for row in plain
    ]  # the same places


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lines": "*", "parts": {"train": "a", "test": "b"}},
        {"parts": {"train": "../a", "test": "b"}},
    ],
)
def test_sequences_need_lines_or_parts(tmp_path: Path, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"either `lines`|must name files inside"):
        Sequences.model_validate({"path": str(tmp_path), **settings})


def test_a_file_cannot_train_and_test(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a 1\n")
    with pytest.raises(DataError, match=r"train.txt' matches both parts.train and parts.test"):
        read(
            Sequences.model_validate(
                {"path": str(tmp_path), "parts": {"train": "train.txt", "test": "*.txt"}}
            )
        )


def shown(folder: Path) -> Path:
    (folder / "train.csv").write_text("aid,uid,label\n9,7,-1\n9,8,1\n5,7,2\n")
    return folder


def cells(source: Tencent, table: str, columns: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as con:
        return getattr(source.read(con), table).project(columns).fetchall()


def test_tencent_asks_by_ad_or_by_person(tmp_path: Path) -> None:
    path = str(shown(tmp_path))
    columns = f"{USER}, {ITEM}, {TIME}, label"
    lookalike = [
        ("9", "7", 0, "0"),
        ("9", "8", 1, "1"),
        ("5", "7", 2, "2"),
    ]  # -1 is 0; 2 is for validation to judge
    assert read(Tencent(path=path), columns) == lookalike
    assert read(Tencent(path=path, direction="recall"), columns) == [
        (item, user, *rest) for user, item, *rest in lookalike
    ]
    assert read(Tencent(path=f"{path}/train.csv"), columns) == lookalike
    with duckdb.connect() as con:
        tables = Tencent(path=path).read(con)
    assert (tables.users, tables.items) == (None, None)


def test_tencent_feature_files_are_the_tables_of_their_side(tmp_path: Path) -> None:
    source = Tencent(path=str(shown(tmp_path)))
    (tmp_path / "adFeature.csv").write_text("aid,advertiserId,campaignId\n9,1,2\n5,3,4\n")
    (tmp_path / "userFeature.data").write_bytes(
        b"uid 7|age 4|interest1 93 70 77|house \n\nuid 8|topic3 5|LBS 11|interest1 6|\n"
    )
    assert list(source.files()) == ["train.csv", "adFeature.csv", "userFeature.data"]
    people = [("7", "4", "93 70 77", None, None, None), ("8", None, "6", "5", "11", None)]
    names = "age, interest1, topic3, LBS, house"
    assert cells(source, "items", f"{ITEM}, {names}") == people
    assert cells(source, "users", "*") == [("9", "1", "2"), ("5", "3", "4")]
    recall = source.model_copy(update={"direction": "recall"})
    assert cells(recall, "users", f"{USER}, {names}") == people
    assert cells(recall, "items", "*") == [("9", "1", "2"), ("5", "3", "4")]
    with duckdb.connect() as con:
        assert source.read(con).items.columns == [ITEM, *PERSON_KEYS]


def test_tencent_files_may_have_other_names(tmp_path: Path) -> None:
    shown(tmp_path).joinpath("train.csv").rename(tmp_path / "t.csv")
    (tmp_path / "a.csv").write_text("aid\n9\n")
    with gzip.open(tmp_path / "p.gz", "wt") as stream:
        stream.write("uid 7")
    source = Tencent(path=str(tmp_path), train="t.*", ads="a.*", people="p.*")
    assert list(source.files()) == ["t.csv", "a.csv", "p.gz"]
    assert (cells(source, "users", "*"), cells(source, "items", ITEM)) == ([("9",)], [("7",)])


@pytest.mark.parametrize("line", ["uid 7|age 1|interest9 4", "uid 7|age 1|age 2", "uid,7"])
def test_tencent_refuses_keys_that_no_column_is_made_for(tmp_path: Path, line: str) -> None:
    (shown(tmp_path) / "userFeature.data").write_text(f"uid 8|age 1\n{line}\n")
    with pytest.raises(duckdb.InvalidInputException, match="a key twice, or a key other than"):
        cells(Tencent(path=str(tmp_path)), "items", "*")


def test_tencent_without_labels_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("aid,uid\n1,2\n")
    with pytest.raises(DataError, match=r"train.csv' has no column 'label'"):
        read(Tencent(path=str(tmp_path)))


def test_a_written_tencent_sample_is_read_whole(tmp_path: Path) -> None:
    write_sample(tmp_path, people=60, ads=12, topics=3, rows=120)
    source = Tencent(path=str(tmp_path))
    assert len(read(source)) == 120
    people = cells(source, "items", f"{ITEM}, interest1, age, house")
    assert [row[0] for row in people] == [str(10000 + person) for person in range(60)]
    assert all(
        {(int(i) - 1) // 8 for i in str(row[1]).split(" ")} == {int(str(row[0])) % 10000 % 3}
        for row in people
    )
    assert {row[2] for row in people} == {None, "1", "2", "3", "4", "5"}
    assert {row[3] for row in people} == {None, "1"}
    assert cells(source, "users", f"{USER}, adCategoryId")[4] == ("104", "2")


CLICK = "user_id,item_id,timestamp\n1,2,3\n"


@pytest.mark.parametrize("link", ["b.csv", "day"])
def test_a_link_out_of_the_folder_of_the_data_is_refused(tmp_path: Path, link: str) -> None:
    """A file or a folder: what it points to would be read with the rights of the pipeline."""
    folder = tmp_path / "log"
    (folder / "real").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "b.csv").write_text(CLICK)
    (folder / "real" / "a.csv").write_text(CLICK)
    pattern = "*.csv" if link.endswith("csv") else "*/*.csv"
    (folder / link).symlink_to(tmp_path / "secret" / ("b.csv" if link.endswith("csv") else ""))
    with pytest.raises(DataError, match=f"log/{link}.* is a link to .*secret/b.csv', outside the"):
        find_files(str(folder), [pattern])
    (folder / "inside.csv").symlink_to("real/a.csv")
    assert find_files(str(folder), ["inside*"]) == {"inside.csv": folder / "inside.csv"}


def test_the_folder_of_the_data_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.csv").write_text(CLICK)
    (tmp_path / "log").symlink_to("there")
    assert list(find_files(str(tmp_path / "log"), ["*.csv"])) == ["a.csv"]
    assert list(find_files(str(tmp_path / "log" / "a.csv"), ["*"])) == ["a.csv"]
