"""Logs and configs as people have them, with one or a few things that are odd or damaged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

FIRST_DAY = datetime(2024, 3, 1, tzinfo=UTC)
TEST_DAY = "2024-03-04"
TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"
COLUMNS = ("user_id", "item_id", "timestamp", "label", "device", "amount", "serial")
BASE: dict[str, Any] = {
    "name": "fuzz",
    "seed": 1,
    "data": {
        "source": {
            "kind": "delimited",
            "path": "log",
            "interactions": {"files": "**/*.csv", "time_unit": "ms", "columns": {}},
        },
        "timezone": "UTC",
        "positive": "label == 1",
        "labels": [0, 1],
    },
    "split": {"test_day": TEST_DAY, "train_days": 3, "test_days": 1},
    "validation": {
        "max_quarantine_share": 0.9,
        "min_rows_per_day": 0,
        "ranges": {"amount": [0, 100]},
    },
    "features": {
        "columns": {
            "context": [
                {"column": "device", "kind": "categorical"},
                {"column": "serial", "kind": "categorical"},
            ]
        },
        "history": {"length": 5},
    },
    "train": {"epochs": 1, "learning_rate": 0.01},
    "evaluation": {"ks": [1], "bootstrap": 20, "baselines": ["hot"]},
    "gate": {"k": 1, "floor": 0.0},
}
ODD_NAMES = [
    *(
        "_part",
        "_row",
        "_positive",
        "_outside",
        "_clean",
        "_reason",
        "_day",
        "_own",
        "part",
        "reason",
    ),
    *("start", "nth", "rows", "days", "value", "n", "created_at", "timestamp_raw", "amount_raw"),
    *("file_row_number", "filename", "rowid", "user_id_in_table", "log", "User_ID", "TIMESTAMP"),
    *("Amount", "", " ", "a b", "select", 'quo"te', "it's", "price (€)", "цена", "x/y", "%", "\0"),
    *(
        "dssm_internal_row",
        "_dssm_row",
        "__index_level_0__",
        "Unnamed: 0",
        "column0",
        "e\u0301",
        "🙂",
    ),
    "x" * 300,
]
ODD_CELLS = [
    *(
        "",
        " ",
        "nan",
        "NaN",
        "null",
        "None",
        "inf",
        "-inf",
        "1e400",
        "-1",
        "0",
        "1.0",
        "1.5",
        "007",
    ),
    *("9" * 18, "9" * 25, "-" + "9" * 18, "0x10", "1e3", "1_000", "٣", "true", "\0", "a\nb", 'a"b'),
    *("a,b", "'", "=1+1", "<img src=x onerror=alert(1)>", "é" * 40, "x" * 5000, "\ufeff", "\u202e"),
    *("2024-03-01", "2024-02-30", "2024-13-45T00:00:00", "0001-01-01", "9999-12-31 23:59:59"),
    *("2024-03-01 00:03:21 EST", "2024-03-01 00:03:21 Europe/Berlin", "2024-03-01T00:03:21Z"),
    *("1969-12-31 23:00:00", "-62135596800000", "253402300799999", "9223372036854775807"),
]
ODD_VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        1.5,
        10**6,
        10**30,
        -(10**30),
        1e308,
        "",
        " ",
        "x",
        "0",
        "1e5",
    ),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "nan",
        ".inf",
        "9" * 40,
        [],
        {},
        [1],
        [None],
        {"a": 1},
    ),
    *(
        {"kind": "x"},
        {"kind": [1]},
        [[1, 2]],
        "\0",
        "~",
        ".",
        "..",
        "/",
        "../x",
        "*",
        "**",
        "[a]",
        "a" * 5000,
    ),
    *("2024-03-04", "0001-01-03", "9999-12-31", "2024-02-30", "label", "label == 1", "amount > 5"),
    *(
        "Amount > 1",
        "device == 1",
        "serial > 0",
        "rating > 3",
        "label = 1; drop table x",
        "user_id",
    ),
    *(
        "timestamp",
        "amount",
        "days",
        "fixed",
        "last_n",
        "holdout",
        "leave_one_out",
        "parquet",
        "mlp",
    ),
    *(
        "utf-16",
        "latin-1",
        "s",
        "us",
        "ns",
        "iso",
        ";",
        "::",
        "\t",
        "America/Sao_Paulo",
        "Asia/Kathmandu",
    ),
    *("label == 1 and amount > 5", "device == 'd1' or not (amount in [3, 4])", "device in ['d1']"),
    *("amount == 'x'", "label == 1 and label == 'x'", "amount in []", "'d' in device", "label"),
    *("device == '\\x00'", "label > 1e999", "not " * 40 + "label", "%Y-%m-%d", "%Q %", "%H:%M"),
    *({"column": "device"}, {"column": "item_id", "separator": "i", "label_after": "1"}),
    *(["user_id", "device"], ["a"], ["user_id", 1]),
    *(
        [0, None],
        [None, None],
        [5, 1],
        [float("nan"), 1],
        [0, 1, 2],
        ["x", "y"],
        {"amount": "device"},
    ),
]
MORE_PATHS = [
    *("data.source.interactions.time_format", "data.source.interactions.explode"),
    *("data.source.interactions.anonymous", "features.first_context"),
    *("data.source.interactions.explode.column", "data.source.interactions.explode.label_after"),
    *("data.source.interactions.columns.user_id", "data.source.interactions.columns.item_id"),
    *("data.source.interactions.separator", "data.source.interactions.quote", "split.kind"),
    *("data.source.interactions.encoding", "data.source.interactions.timezone", "split.n"),
    *("data.source.interactions.names", "data.source.items", "data.source.users", "split.share"),
    *("data.source.interactions.columns.label", "data.source.interactions.columns.x", "split.seed"),
    *("validation.drift.warn.volume", "validation.drift.fail.features", "validation.ranges.Amount"),
    *("validation.ranges.price (€)", "features.columns.item", "features.columns.user", "index"),
    *("features.activity.enabled", "features.activity.windows_h", "sampler", "tower", "loss"),
    *("evaluation.rolling", "evaluation.exclude_seen", "item_tower", "extends", "split.relevant"),
]
ODD_YAML = [
    *(
        "a: &a [*a]",
        "seed: 2024-02-30",
        "seed: !!int x",
        "1: 2",
        "seed: 1\nseed: 2",
        "<<: 5",
        "? [a]\n: b",
    ),
    *(
        "[" * 900,
        "{a: " * 900,
        "\0",
        "a: b: c",
        "%YAML 9",
        "--- a\n--- b",
        "!!python/name:os.x y",
        "",
    ),
]


ODD_ARRAYS: list[Callable[[int], pa.Array]] = [
    lambda n: pa.array([bool(i % 2) for i in range(n)]),
    lambda n: pa.array([None if i % 3 == 0 else i % 2 == 0 for i in range(n)]),
    lambda n: pa.array([Decimal(i) / 4 for i in range(n)], pa.decimal128(20, 10)),
    lambda n: pa.array([Decimal(i) for i in range(n)], pa.decimal256(60, 10)),
    lambda n: pa.array(
        [[0.5, math.nan, math.inf, 1.797e308, -1.797e308, 1e39][i % 6] for i in range(n)]
    ),
    lambda n: pa.array([float(i) for i in range(n)], pa.float32()),
    lambda n: pa.array([2**64 - 1 - i for i in range(n)], pa.uint64()),
    lambda n: pa.array([date(2024, 3, 1 + i % 4) for i in range(n)]),
    lambda n: pa.array([FIRST_DAY + timedelta(hours=i) for i in range(n)], pa.timestamp("us")),
    lambda n: pa.array(
        [FIRST_DAY + timedelta(hours=i) for i in range(n)], pa.timestamp("ns", "UTC")
    ),
    lambda n: pa.array([i * 10**9 for i in range(n)], pa.time64("ns")),
    lambda n: pa.array([timedelta(hours=i) for i in range(n)]),
    lambda n: pa.array([[f"a{i % 3}", "b"] for i in range(n)]),
    lambda n: pa.array([[[i]] for i in range(n)]),
    lambda n: pa.array([{"a": i} for i in range(n)]),
    lambda n: pa.array([[("k", i)] for i in range(n)], pa.map_(pa.string(), pa.int64())),
    lambda n: pa.array([b"\xff\x00" + bytes([i]) for i in range(n)]),
    lambda n: pa.nulls(n),
    lambda n: pa.array([f"d{i % 2}" for i in range(n)]).dictionary_encode(),
    lambda n: pa.array(["7", "7.0", "8", "x|y", "", None][:n] + ["z"] * max(0, n - 6)),
]
ENDS = {"delimited": "csv", "parquet": "parquet", "json_lines": "jsonl"}
KINDS = ["categorical", "multi", "text", "numeric"]


@dataclass(frozen=True)
class Input:
    """A config as YAML text, and the files of the log below `log/`.

    times_ms: the time of each row by its serial number, where the files hold it undamaged in the
    unit that the config says; None otherwise.
    """

    config: str
    files: dict[str, bytes]
    rows: int | None
    times_ms: dict[str, int] | None


@st.composite
def inputs(draw: Callable[..., Any]) -> Input:
    """A log and a config; most of them have one or two oddities, some have none."""
    kind = draw(st.sampled_from(list(ENDS)))
    unit = draw(st.sampled_from(["ms", "ms", "s", "us", "ns", "iso", "format"]))
    rows, times = draw(_rows(unit))
    config = deepcopy(BASE)
    interactions = config["data"]["source"]["interactions"]
    interactions |= {"time_unit": unit}
    if unit == "format":
        del interactions["time_unit"]
        interactions["time_format"] = TIME_FORMAT
    explode = draw(st.integers(0, 3)) == 0
    if explode:  # no cell has this separator: the rows stay the same
        interactions["explode"] = {"column": "item_id", "separator": "~~"}
    if draw(st.integers(0, 5)) == 0:  # rows without a user are kept
        interactions["anonymous"] = True
    odd = draw(
        st.sampled_from(
            [
                "nothing",
                "cells",
                "cells",
                "names",
                "bytes",
                "form",
                "types",
                "types",
                "config",
                "yaml",
            ]
        )
    )
    times_ms: dict[str, int] | None = {str(serial): time for serial, time in enumerate(times)}
    header = list(COLUMNS)
    if odd == "cells":
        times_ms = _with_odd_cells(draw, rows, times_ms)
    if odd == "names":
        header, rows = _with_odd_columns(draw, header, rows)
    form = draw(_forms()) if odd == "form" else {}
    interactions |= form
    files = _files(draw, header, rows, kind, form, odd == "form")
    if odd == "types":
        kind, times_ms = "parquet", None
        files = _with_odd_types(draw, config, rows)
    config["data"]["source"]["kind"] = kind
    interactions["files"] = interactions["files"].replace("**/*.csv", f"**/*.{ENDS[kind]}")
    n_rows: int | None = None if odd == "types" and explode else len(rows)
    if odd in ("bytes", "form"):
        n_rows, times_ms = None, None
    if odd == "bytes":
        files = {name: draw(_damaged(data)) for name, data in files.items()}
    if odd == "config" or draw(st.integers(0, 9)) == 0:
        config = _with_odd_settings(draw, config)
        n_rows, times_ms = None, None
    text = yaml.safe_dump(config, allow_unicode=True)
    if odd == "yaml":
        text = draw(st.sampled_from([text + "\n" + part for part in ODD_YAML] + ODD_YAML))
    return Input(text, files, n_rows, times_ms)


@st.composite
def _rows(draw: Callable[..., Any], unit: str) -> tuple[list[list[str]], list[int]]:
    """Rows of COLUMNS as text in the order of the serial number, and their times in ms."""
    times = [
        int((FIRST_DAY + timedelta(seconds=seconds)).timestamp()) * 1000
        for seconds in draw(st.lists(st.integers(-86400, 5 * 86400), min_size=0, max_size=20))
    ]
    times += [_day_ms(day, 3600 * hour) for day in range(4) for hour in (0, 1, 23)]
    rows = []
    for serial, time in enumerate(times):
        rows.append(
            [
                f"u{serial % 5}",
                f"i{serial * 7 % 6}",
                _as_unit(time, unit),
                str(serial % 2),
                f"d{serial % 3}",
                str(serial % 50),
                str(serial),
            ]
        )
    return rows, times


def _day_ms(day: int, seconds: int) -> int:
    return int((FIRST_DAY + timedelta(days=day, seconds=seconds)).timestamp()) * 1000


def _as_unit(time_ms: int, unit: str) -> str:
    if unit == "format":
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(TIME_FORMAT)
    if unit == "iso":
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    factor = {"s": 1 / 1000, "ms": 1, "us": 1000, "ns": 10**6}[unit]
    return str(int(time_ms * factor))


def _with_odd_cells(
    draw: Callable[..., Any], rows: list[list[str]], times: dict[str, int]
) -> dict[str, int]:
    """Replace cells of some rows. Returns the times of the rows without an odd time or serial."""
    left = dict(times)
    for _ in range(draw(st.integers(1, 4))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, len(COLUMNS) - 1))
        rows[row][column] = draw(st.sampled_from(ODD_CELLS))
        if COLUMNS[column] in ("timestamp", "serial"):
            left.pop(str(row), None)
    serials = [str(value) for value in _array([row[-1] for row in rows]).to_pylist()]
    return {serial: time for serial, time in left.items() if serials.count(serial) == 1}


def _with_odd_columns(
    draw: Callable[..., Any], header: list[str], rows: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    names = draw(st.lists(st.sampled_from(ODD_NAMES), min_size=1, max_size=3))
    values = draw(st.lists(st.sampled_from(["0", "1", "test", "x"]), min_size=1, max_size=4))
    filled = [
        [*row, *(values[(place + serial) % len(values)] for place in range(len(names)))]
        for serial, row in enumerate(rows)
    ]
    return [*header, *names], filled


@st.composite
def _forms(draw: Callable[..., Any]) -> dict[str, Any]:
    """How text files are written and read; the two may differ."""
    options = {
        "separator": st.sampled_from([",", ";", "\t", "|", "::", '"', "a"]),
        "quote": st.sampled_from(['"', "'", "", ",", ";"]),
        "encoding": st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=2, unique=True))
    return {name: draw(options[name]) for name in chosen}


def _with_odd_types(
    draw: Callable[..., Any], config: dict[str, Any], rows: list[list[str]]
) -> dict[str, bytes]:
    """A column of the log, or of a table of items with a feature, of another type than text."""
    arrays = {name: _array([row[place] for row in rows]) for place, name in enumerate(COLUMNS)}
    make = draw(st.sampled_from(ODD_ARRAYS))
    if draw(st.booleans()):
        arrays[draw(st.sampled_from(COLUMNS))] = make(len(rows))
        return {"a.parquet": _parquet_file(arrays)}
    config["data"]["source"]["interactions"]["files"] = "a.parquet"
    config["data"]["source"]["items"] = {"files": "items.parquet"}
    feature = {"column": "x", "kind": draw(st.sampled_from(KINDS))}
    config["features"]["columns"]["item"] = [feature]
    if draw(st.integers(0, 3)) == 0:
        config["validation"]["ranges"] = {"x": [0, 5]}
    items = {"item_id": pa.array([f"i{item}" for item in range(6)]), "x": make(6)}
    return {"a.parquet": _parquet_file(arrays), "items.parquet": _parquet_file(items)}


def _files(
    draw: Callable[..., Any],
    header: list[str],
    rows: list[list[str]],
    kind: str,
    form: dict[str, Any],
    odd: bool,
) -> dict[str, bytes]:
    names = draw(
        st.sampled_from([["a"], ["a", "b"], ["[a]"], ["*"], ["a b", "?"], ["day=1/a", "é"]])
    )
    cut = len(rows) // len(names)
    parts = [rows[:cut], rows[cut:]] if len(names) == 2 else [rows]
    if kind != "delimited":
        write = _parquet if kind == "parquet" else _json_lines
        return {
            f"{name}.{ENDS[kind]}": write(header, part)
            for name, part in zip(names, parts, strict=True)
        }
    end = draw(st.sampled_from(["\n", "\r\n", "\r"])) if odd else "\n"
    separator = form.get("separator", ",") if draw(st.booleans()) else ","
    encoding = (
        draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])) if odd else "utf-8"
    )
    return {
        f"{name}.csv": _csv(header, part, separator, end).encode(encoding)
        for name, part in zip(names, parts, strict=True)
    }


def _csv(header: list[str], rows: list[list[str]], separator: str, end: str) -> str:
    text = io.StringIO()
    if len(separator) == 1 and separator != '"':
        csv.writer(text, delimiter=separator, lineterminator=end).writerows([header, *rows])
        return text.getvalue()
    return "".join(separator.join(row) + end for row in [header, *rows])


def _json_lines(header: list[str], rows: list[list[str]]) -> bytes:
    """All values as text."""
    lines = (json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
    return "".join(lines).encode()


def _parquet(header: list[str], rows: list[list[str]]) -> bytes:
    """All columns as text, but whole numbers where a column holds nothing else."""
    arrays = [_array([row[place] for row in rows]) for place in range(len(header))]
    return _parquet_file(pa.Table.from_arrays(arrays, names=header))


def _parquet_file(columns: pa.Table | dict[str, pa.Array]) -> bytes:
    table = pa.table(columns) if isinstance(columns, dict) else columns
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _array(cells: list[str]) -> pa.Array:
    try:
        return pa.array([int(cell) for cell in cells], pa.int64())
    except (ValueError, OverflowError):
        return pa.array(cells)


@st.composite
def _damaged(draw: Callable[..., Any], data: bytes) -> bytes:
    """The bytes of a file, cut, changed or compressed."""
    how = draw(st.sampled_from(["cut", "flip", "insert", "empty", "gzip", "twice", "ends"]))
    place = draw(st.integers(0, max(0, len(data) - 1)))
    if how == "cut":
        return data[:place]
    if how == "flip":
        return (
            data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
        )
    if how == "insert":
        return (
            data[:place]
            + draw(st.sampled_from([b"\0", b'"', b"\xff\xfe", b"\n", b"\r", b",", b"\n\n"]))
            + data[place:]
        )
    if how == "ends":
        return data.replace(b"\n", b"\r\n", draw(st.integers(1, 3)))
    return {"empty": b"", "gzip": gzip.compress(data), "twice": data + data}[how]


def _with_odd_settings(draw: Callable[..., Any], config: dict[str, Any]) -> dict[str, Any]:
    paths = [*_leaves(config), *MORE_PATHS]
    for _ in range(draw(st.integers(1, 2))):
        *parents, last = draw(st.sampled_from(paths)).split(".")
        node: Any = config
        for key in parents:
            node = node.setdefault(key, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[last] = draw(st.sampled_from(ODD_VALUES))
    return config


def _leaves(config: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for key, value in config.items():
        paths.append(f"{prefix}{key}")
        if isinstance(value, dict):
            paths += _leaves(value, f"{prefix}{key}.")
    return paths
