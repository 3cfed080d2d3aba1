"""No column of a log meets a name that the queries use: each such name, found in the code, is an
input column of every kind of table, and changes nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

import dssm_core.data
from dssm_core import columns
from dssm_core.columns import INTERNAL, ITEM, LABEL, REASON, TIME, USER
from dssm_core.config import Config, parse_config
from dssm_core.data.landing import land, use_landed_days
from dssm_core.errors import DataError
from dssm_core.operation.latest_clicks import origins, read_latest
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute

T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
HOUR = 3_600_000
STEPS = ("ingest_data", "validate_data", "split_by_time")
OWN = [USER, ITEM, TIME, LABEL]
# Names that queries used before they had a prefix, and those that DuckDB gives files and tables.
OTHERS = [
    *(
        "_part",
        "_outside",
        "_positive",
        "_reason",
        "_row",
        "_clean",
        "_own",
        "_day",
        "days",
        "rows",
    ),
    *("user_id_known", "item_id_known", "user_id_in_table", "item_id_in_table"),
    *("timestamp_raw", "amount_raw", "label_raw"),
    *("file_row_number", "filename", "file_index", "rowid"),
]


def modules() -> list[object]:
    """The modules whose SQL sees the columns of a log."""
    names = [
        found.name for found in pkgutil.walk_packages(dssm_core.data.__path__, "dssm_core.data.")
    ]
    return [importlib.import_module(name) for name in (*names, "dssm_core.operation.latest_clicks")]


def internal_names() -> list[str]:
    """The constants with the prefix."""
    values = [value for module in (columns, *modules()) for value in vars(module).values()]
    texts = {value for value in values if isinstance(value, str) and value.startswith(INTERNAL)}
    return sorted(texts - {INTERNAL})


def query_names() -> list[str]:
    """Aliases, tables and views in the SQL of these modules, and the names in columns.py."""
    sources = [Path(str(module.__file__)).read_text() for module in modules()]  # type: ignore[attr-defined]
    words = re.compile(r"\b(?:AS|VIEW|TABLE|FROM|JOIN|WITH|USING) \(?([A-Za-z]\w*)\b")
    known = {name for source in sources for name in words.findall(source)}
    known |= {
        value for name, value in vars(columns).items() if isinstance(value, str) and name.isupper()
    }
    return sorted({*known, *OTHERS} - {*OWN, *internal_names(), INTERNAL}, key=str.lower)


def distinct(names: list[str]) -> list[str]:
    """The first of the names that differ only in case, without those that every log has."""
    first = {name.lower(): name for name in reversed(names)}
    return [name for key, name in first.items() if key not in OWN]


NAMES = distinct(query_names())


def interactions() -> pd.DataFrame:
    """Three days of a row an hour; then a duplicate, a row before them, and a wrong label."""
    rows = [(f"u{n % 4}", f"i{n % 5}", T0 + n * HOUR, n % 2) for n in range(72)]
    rows += [rows[3], ("u1", "i1", T0 - HOUR, 1), ("u1", "i1", T0 + 5, 2)]
    return pd.DataFrame(rows, columns=OWN).astype({TIME: "int64", LABEL: "int64"})


def with_names(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The frame with 0 or 1 in a column of each name."""
    own = pd.DataFrame({name: [n % 2 for n in range(len(frame))] for name in names})
    return pd.concat([frame, own], axis=1)


def write(folder: Path, kind: str, names: list[str]) -> dict[str, object]:
    """Write the three tables with columns of these names. Returns the source."""
    ids = {"users": (USER, "u", 4), "items": (ITEM, "i", 5)}
    tables = {"interactions": interactions()} | {
        table: pd.DataFrame({key: [f"{prefix}{n}" for n in range(count)]})
        for table, (key, prefix, count) in ids.items()
    }
    folder.mkdir()
    source: dict[str, object] = {"kind": kind, "path": str(folder)}
    for table, frame in tables.items():
        wide = with_names(
            frame, [name for name in names if (table, name) != ("items", "created_at")]
        )
        if kind == "delimited":
            wide.to_csv(folder / f"{table}.csv", index=False)
            source[table] = {"files": f"{table}.csv"}
        else:
            wide.to_parquet(folder / f"{table}.parquet", index=False)
            source[table] = {"files": f"{table}.parquet"}
    return source


def config(source: dict[str, object], names: list[str], split: dict[str, object]) -> Config:
    """A config in which each name is a feature: of interactions, of users or of items."""
    features = {
        side: [{"column": name, "kind": kind} for name in names[place::3] if name not in except_]
        for place, (side, kind, except_) in enumerate(
            (
                ("context", "categorical", ()),
                ("user", "categorical", ()),
                ("item", "numeric", ("created_at", "CREATED_AT")),
            )
        )
    }
    return parse_config(
        {
            "name": "t",
            "data": {"source": source},
            "split": split,
            "validation": {"max_quarantine_share": 0.5},
            "features": {"columns": features, "activity": {"enabled": "test_day" in split}},
            "evaluation": {"ks": [1], "baselines": ["hot"]},
            "gate": {"k": 1},
            "sampler": {"kind": "uniform"},
        }
    )


DAYS: dict[str, object] = {"test_day": "2024-03-03", "train_days": 2}
LAST: dict[str, object] = {"kind": "last_n", "n": 3}
CUTOFF = T0 + 48 * HOUR


def parts(run: Run) -> tuple[dict[str, int], pd.DataFrame, pd.DataFrame]:
    """The counts of a run up to the split, and the tables train and test."""
    manifests = [execute(run, step) for step in STEPS]
    folder = run.step("split_by_time")
    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    return manifests[-1].rows, train, test


def check(table: pd.DataFrame, names: list[str], expected: pd.DataFrame) -> None:
    """The table has the expected rows and labels, and each column still has the row's value."""
    assert list(table.columns) == [*OWN, *names]
    own = table[OWN].astype({LABEL: "int64"})
    pd.testing.assert_frame_equal(own, expected.sort_values(TIME).reset_index(drop=True))
    values = table[names].astype(int)
    assert values.nunique(axis=1).eq(1).all()
    assert (values[names[0]] == expected.sort_values(TIME).index % 2).all()


@pytest.mark.parametrize("kind", ["delimited", "parquet"])
def test_a_column_of_any_internal_name_is_only_a_column(tmp_path: Path, kind: str) -> None:
    names = NAMES if kind == "parquet" else [name.upper() for name in NAMES]
    run = create_run(config(write(tmp_path / "log", kind, names), names, DAYS), tmp_path, "r")
    rows, train, test = parts(run)
    assert rows == {"read": 75, "train": 48, "test": 24, "outside": 1, "quarantined": 2}
    log = interactions()[:72]
    check(train, names, log[log[TIME] < CUTOFF])
    check(test, names, log[log[TIME] >= CUTOFF])


def test_a_split_that_counts_the_rows_of_a_user_reads_no_column_of_the_log(tmp_path: Path) -> None:
    run = create_run(config(write(tmp_path / "log", "parquet", NAMES), [], LAST), tmp_path, "r")
    rows, train, test = parts(run)
    assert rows == {"read": 75, "train": 61, "test": 12, "outside": 0, "quarantined": 2}
    log = interactions().drop(index=[72, 74]).sort_values(TIME)
    last = log.groupby(USER).cumcount(ascending=False) < LAST["n"]
    check(train, NAMES, log[~last])
    check(test, NAMES, log[last])


def test_the_quarantine_says_why_beside_a_column_of_that_name(tmp_path: Path) -> None:
    source = write(tmp_path / "log", "delimited", ["Reason"])
    run = create_run(config(source, [], DAYS), tmp_path, "r")
    parts(run)
    held = pd.read_parquet(run.step("validate_data") / "quarantine.parquet")
    assert held[REASON].tolist() == ["label must be one of 0, 1"]
    assert held[f"{INTERNAL}Reason"].tolist() == ["0"]


def test_landed_days_and_a_refresh_keep_columns_of_internal_names(tmp_path: Path) -> None:
    settings = config(write(tmp_path / "log", "parquet", NAMES), [], DAYS)
    days = tmp_path / "days"
    for day in (1, 2, 3):
        land(settings, date(2024, 3, day), days)
    rows, train, test = parts(create_run(use_landed_days(settings, days), tmp_path, "landed"))
    assert rows == {"read": 74, "train": 48, "test": 24, "outside": 0, "quarantined": 2}
    assert list(train.columns) == list(test.columns) == [*OWN, *NAMES]
    end = T0 + 72 * HOUR
    work = tmp_path / "work"
    work.mkdir()
    latest, counts = read_latest(settings, T0, end, origins(settings, T0, end, None), work)
    assert counts == {"read": 74, "sound": 73, "clean": 72, "positive": 36}
    assert list(latest.clicks.columns) == [USER, ITEM, TIME]


@pytest.mark.parametrize("kind", ["delimited", "parquet"])
@pytest.mark.parametrize("name", internal_names())
def test_a_name_with_the_prefix_is_refused_in_any_case(
    tmp_path: Path, kind: str, name: str
) -> None:
    for number, column in enumerate((name, name.upper())):
        source = write(tmp_path / str(number), kind, [column])
        run = create_run(config(source, [], DAYS), tmp_path, str(number))
        with pytest.raises(DataError, match=f"column '{column}': names that begin with _dssm_"):
            execute(run, "ingest_data")
