"""Every source, found through SOURCES: what `dssm_core.sources.protocol` promises of each."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_core import families
from dssm_core.columns import CREATED, ITEM, TIME, USER
from dssm_core.config import Member
from dssm_core.errors import DataError
from dssm_core.families import SOURCES

T0 = 1_507_000_000_000
ADDRESS = "DSSM_TEST_DATABASE"
ICEBERG = "PYICEBERG_CATALOG__TESTING__URI"
IN_FILES = sorted(set(SOURCES) - {"delta", "iceberg", "sql", "synthetic"})


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables with the address of a database are as before after each test."""
    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.setenv(ICEBERG, "")


def _delimited(folder: Path) -> dict[str, object]:
    (folder / "a.csv").write_text(f"user_id,item_id,timestamp\n1,x,{T0}\n2,y,{T0 + 5}\n")
    return {"path": str(folder), "interactions": {"files": "*.csv"}}


def _delta(folder: Path) -> dict[str, object]:
    deltalake = pytest.importorskip("deltalake")
    rows = pa.table({USER: [1, 2], ITEM: ["x", "y"], TIME: [T0, T0 + 5]})
    deltalake.write_deltalake(folder / "clicks", rows)
    return {"path": str(folder), "interactions": {"table": "clicks"}}


def _iceberg(folder: Path) -> dict[str, object]:
    catalogs = pytest.importorskip("pyiceberg.catalog")
    os.environ[ICEBERG] = f"sqlite:///{folder}/catalog.db"
    catalogs._ENV_CONFIG = catalogs._ENV_CONFIG.__class__()  # it is read at import
    catalog = catalogs.load_catalog("testing", warehouse=f"file://{folder}")
    catalog.create_namespace("shop")
    rows = pa.table({USER: [1, 2], ITEM: ["x", "y"], TIME: [T0, T0 + 5]})
    catalog.create_table("shop.clicks", schema=rows.schema).append(rows)
    return {"catalog": "testing", "interactions": {"table": "shop.clicks"}}


def _parquet(folder: Path) -> dict[str, object]:
    pq.write_table(
        pa.table({USER: [1, 2], ITEM: ["x", "y"], TIME: [T0, T0 + 5]}), folder / "a.parquet"
    )
    return {"path": str(folder), "interactions": {"files": "*.parquet"}}


def _json_lines(folder: Path) -> dict[str, object]:
    rows = [{USER: 1, ITEM: "x", TIME: T0}, {USER: 2, ITEM: "y", TIME: T0 + 5}]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(folder), "interactions": {"files": "*.jsonl"}}


def _globo(folder: Path) -> dict[str, object]:
    rest = (
        "click_environment,click_deviceGroup,click_os,click_country,click_region,"
        "click_referrer_type"
    )
    head = (
        f"user_id,session_id,session_start,session_size,click_article_id,click_timestamp,{rest}\n"
    )
    with gzip.open(folder / "clicks_hour_000.csv.gz", "wt") as stream:
        stream.write(
            f"{head}1,11,{T0},2,7,{T0},4,3,20,1,20,2\n2,12,{T0},2,8,{T0 + 5},4,3,20,1,20,2\n"
        )
    return {"path": str(folder)}


def _landed(folder: Path) -> dict[str, object]:
    for day, user, item in (("2017-10-03", "1", "x"), ("2017-10-04", "2", "y")):
        (folder / day / "key").mkdir(parents=True)
        pq.write_table(
            pa.table({USER: [user], ITEM: [item], TIME: [T0]}),
            folder / day / "key" / "interactions.parquet",
        )
    return {"path": str(folder), "days": {"2017-10-03": "key", "2017-10-04": "key"}}


def _movielens(folder: Path) -> dict[str, object]:
    (folder / "ratings.dat").write_text(f"1::7::5::{T0 // 1000}\n2::8::1::{T0 // 1000 + 5}\n")
    (folder / "users.dat").write_text("1::F::1::10::48067\n2::M::56::16::70072\n")
    (folder / "movies.dat").write_bytes(
        '7::Les Misérables, "part one"::Drama|War\n8::B::Comedy\n'.encode("latin-1")
    )
    return {"path": str(folder)}


def _sequences(folder: Path) -> dict[str, object]:
    (folder / "users.txt").write_text("1 7\n2 8\n")
    return {"path": str(folder), "lines": "*.txt"}


def _sql(folder: Path) -> dict[str, object]:
    pytest.importorskip("adbc_driver_sqlite")
    with closing(sqlite3.connect(folder / "log.db")) as con:
        con.execute(f"CREATE TABLE clicks ({USER}, {ITEM}, {TIME})")
        con.executemany("INSERT INTO clicks VALUES (?, ?, ?)", [(1, "x", T0), (2, "y", T0 + 5)])
        con.commit()
    os.environ[ADDRESS] = f"sqlite:///{folder / 'log.db'}"
    return {"connection": ADDRESS, "interactions": {"query": "SELECT * FROM clicks"}}


def _synthetic(folder: Path) -> dict[str, object]:
    return {"users": 20, "items": 30, "clicks": 200, "days": 2}


def _tencent(folder: Path) -> dict[str, object]:
    (folder / "train.csv").write_text("aid,uid,label\n1,7,1\n2,8,-1\n")
    (folder / "adFeature.csv").write_text("aid,advertiserId,adCategoryId\n1,5,3\n2,5,4\n")
    (folder / "userFeature.data").write_text("uid 7|age 4|interest1 93 70\nuid 8|gender 1\n")
    return {"path": str(folder)}


MAKERS = {
    "delimited": _delimited,
    "delta": _delta,
    "globo": _globo,
    "iceberg": _iceberg,
    "json_lines": _json_lines,
    "landed": _landed,
    "movielens": _movielens,
    "parquet": _parquet,
    "sequences": _sequences,
    "sql": _sql,
    "synthetic": _synthetic,
    "tencent": _tencent,
}


def test_every_source_has_a_sample_here() -> None:
    assert set(MAKERS) == set(SOURCES)


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_source_keeps_the_protocol(kind: str, tmp_path: Path) -> None:
    settings = MAKERS[kind](tmp_path)
    source = families.build(SOURCES, Member(kind=kind, **settings))
    files = source.files()
    assert all(file.is_file() and not Path(name).is_absolute() for name, file in files.items())
    with duckdb.connect() as con:
        tables = source.read(con)
        types = dict(
            zip(tables.interactions.columns, map(str, tables.interactions.types), strict=True)
        )
        assert (types[USER], types[ITEM], types[TIME]) == ("VARCHAR", "VARCHAR", "BIGINT")
        rows = tables.interactions.project(f"{USER}, {ITEM}, {TIME}").fetchall()
        assert len(rows) == (200 if kind == "synthetic" else 2)
        assert all(value is not None for row in rows for value in row)
        if tables.users is not None:
            users = [row[0] for row in tables.users.project(USER).fetchall()]
            assert len(users) == len(set(users))
            assert {row[0] for row in rows} <= set(users)
        if tables.items is not None:
            items = [row[0] for row in tables.items.project(ITEM).fetchall()]
            assert {row[1] for row in rows} <= set(items)
            if CREATED in tables.items.columns:
                assert (
                    str(dict(zip(tables.items.columns, tables.items.types, strict=True))[CREATED])
                    == "BIGINT"
                )


@pytest.mark.parametrize("kind", IN_FILES)
def test_source_names_the_folder_without_files(kind: str, tmp_path: Path) -> None:
    settings = MAKERS[kind](tmp_path)
    for file in tmp_path.rglob("*.*"):
        file.unlink()
    with pytest.raises(DataError, match=r"no file in .* matches"):
        families.build(SOURCES, Member(kind=kind, **settings)).files()
    settings["path"] = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match="neither a folder nor a file"):
        families.build(SOURCES, Member(kind=kind, **settings)).files()


@pytest.mark.parametrize("kind", sorted(SOURCES))
def test_source_refuses_unknown_settings(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"extra_forbidden|Extra inputs"):
        families.build(SOURCES, Member(kind=kind, **MAKERS[kind](tmp_path), typo=1))
