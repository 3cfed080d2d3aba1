"""JSON lines become canonical columns; a damaged line is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import parse_config
from dssm_core.data.ingest import ingest
from dssm_core.data.sources.json_lines import JsonLines
from dssm_core.errors import DataError
from dssm_core.runs.run import create_run


def read(
    folder: Path, selected: str = f"{USER}, {ITEM}, {TIME}", **table: object
) -> list[tuple[Any, ...]]:
    source = {"path": str(folder), "interactions": {"files": "*.*", **table}}
    with duckdb.connect() as con:
        rows = JsonLines.model_validate(source).read(con).interactions
        return rows.project(selected).fetchall()


def write(file: Path, *objects: object) -> None:
    file.write_text("".join(json.dumps(one) + "\n" for one in objects))


def test_ids_are_text_as_written_and_other_values_keep_their_types(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        {"user_id": 7, "item_id": "007", "timestamp": 3, "n": 1, "x": 1.5, "ok": True},
        {"user_id": 12345678901234567890, "item_id": " b ", "timestamp": 4, "n": 2, "tags": ["q"]},
        {"user_id": 7.0, "item_id": "", "timestamp": "5", "day": "2024-03-01", "n": None},
    )
    with gzip.open(tmp_path / "b.ndjson.gz", "wt") as stream:
        stream.write('\n{"timestamp": 6, "item_id": 1.5, "user_id": "x"}\n\n')
    assert read(tmp_path) == [
        ("7", "007", 3),
        ("12345678901234567890", "b", 4),
        ("7", None, 5),
        ("x", "1.5", 6),
    ]
    assert read(tmp_path, "n, x, ok, tags, day")[:3] == [
        (1, 1.5, True, None, None),
        (2, None, None, ["q"], None),
        (None, None, None, None, "2024-03-01"),
    ]


def test_keys_of_inner_objects_are_dotted_names(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        {"who": {"id": 7, "geo": {"country": "de"}}, "what": {"Sku": "a"}, "at": "2024-03-01"},
        {"who": {"id": 8}, "at": "2024-03-02T00:00:00Z"},
    )
    columns = {USER: "who.id", ITEM: "what.Sku", TIME: "at"}
    rows = read(
        tmp_path, f'{USER}, {ITEM}, {TIME}, "who.geo.country"', columns=columns, time_unit="iso"
    )
    assert rows == [("7", "a", 1709251200000, "de"), ("8", None, 1709337600000, None)]
    with pytest.raises(DataError, match=r"no column 'who.ID'.*did you mean 'who.id'"):
        read(tmp_path, columns=columns | {USER: "who.ID"})


def test_values_of_several_types_are_text(tmp_path: Path) -> None:
    rows = [{USER: n, ITEM: 1, TIME: 2, "x": x} for n, x in enumerate([1, "a", {"b": 1}, [2]])]
    write(tmp_path / "a.jsonl", *rows)
    assert [row[0] for row in read(tmp_path, "x")] == ["1", "a", '{"b":1}', "[2]"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n\n{"user_id": oops}\n', "line 3 of '.*a.j"),
        ('{"user_id": 1, "item_id": 2, "timestamp": 3}\n{"user_id": 1, "item', "line 2 of '.*a.js"),
        ('{"user_id": 1, "user_id": 2, "item_id": 2, "timestamp": 3}\n', "duplicate key"),
        ("user_id,item_id,timestamp\n1,2,3\n", "line 1 of '.*' is no JSON object. Fix"),
        ("[1, 2]\n", "has no JSON object with keys"),
        ("{}\n", "has no JSON object with keys"),
        ("", "has no JSON object with keys"),
        ('{"user_id": 1}\n', "has no column 'item_id'"),
        ('{"a.b": 1, "a": {"b": 2}}\n', "the columns 'a.b' and 'a.b'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, lines: str, said: str) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "a.jsonl").write_text(lines)
    source = {"kind": "json_lines", "path": str(log), "interactions": {"files": "*"}}
    raw = {"name": "t", "data": {"source": source}, "split": {"test_day": "2024-03-03"}}
    run = create_run(parse_config(raw), tmp_path / "runs", "r")
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError, match=said) as error:
        ingest(run, tmp_path / "work")
    assert "a.jsonl" in str(error.value)
