"""Days of a small log in São Paulo, where midnight is 03:00 UTC: what lands, what is replaced, what
a window reads.
"""

import json
import shutil
from datetime import UTC, date, datetime

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.config import parse_config
from dssm_core.data import landing
from dssm_core.data.ingest import ingest, source_content
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import create_run
from tests.conftest import small_config

FIRST, SECOND, THIRD = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


ROWS = [
    ("a", "x", ms("2024-03-01T02:59:59")),  # still February there
    ("b", "x", ms("2024-03-01T03:00:00")),
    ("c", "y", ms("2024-03-02T02:59:59")),
    ("a", "z", ms("2024-03-01T12:00:00")),
    ("d", "x", ms("2024-03-02T03:00:00")),
    ("e", "y", ms("2024-03-03T09:00:00")),
    ("f", "y", "soon"),
]


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    write(folder, ROWS)
    return folder


def write(folder, rows):
    (folder / "clicks.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows)
    )


def config(log, **split):
    source = {"kind": "delimited", "path": str(log), "interactions": {"files": "*.csv"}}
    split = {"kind": "days", "test_day": str(THIRD), "train_days": 2} | split
    return parse_config(
        small_config(data={"source": source, "timezone": "America/Sao_Paulo"}, split=split)
    )


def users(days, made):
    return pq.read_table(days / "small" / made.day.isoformat() / made.key / "interactions.parquet")[
        "user_id"
    ].to_pylist()


def test_a_local_day_lands_in_time_order_and_every_row_is_counted(log, tmp_path):
    made, changed = landing.land(config(log), FIRST, tmp_path / "days")
    assert changed
    assert users(tmp_path / "days", made) == ["b", "a", "c"]
    assert made.rows == {"read": 7, "landed": 3, "without_time": 1, "other_days": 3}
    kept = pq.read_table(
        tmp_path / "days" / "small" / "2024-03-01" / made.key / "quarantine.parquet"
    )
    assert kept["_dssm_raw_timestamp"].to_pylist() == ["soon"]
    assert landing.find_day(tmp_path / "days", "small", FIRST) == made


def test_the_same_day_again_is_the_same_and_a_replaced_one_is_another(log, tmp_path):
    days = tmp_path / "days"
    first, _ = landing.land(config(log), FIRST, days)
    assert landing.land(config(log), FIRST, days) == (first, False)
    write(log, [*ROWS, ("late", "x", ms("2024-03-01T20:00:00"))])
    second, changed = landing.land(config(log), FIRST, days)
    assert changed
    assert users(days, second) == ["b", "a", "late", "c"]
    assert users(days, first) == ["b", "a", "c"]  # for the runs that have begun with it
    write(log, ROWS)
    assert landing.land(config(log), FIRST, days) == (first, True)
    assert landing.find_day(days, "small", FIRST) == first


def test_a_day_is_known_by_its_clicks(log, tmp_path):
    """A row without a time, or of another day, is nothing new on this one, and runs that have begun
    keep their folder.
    """
    first, _ = landing.land(config(log), FIRST, tmp_path)
    write(log, [*ROWS, ("g", "y", "later"), ("g", "y", ms("2024-03-03T10:00:00"))])
    second, changed = landing.land(config(log), FIRST, tmp_path)
    assert not changed
    assert second.fingerprint == first.fingerprint
    assert (second.rows["without_time"], second.rows["other_days"]) == (2, 4)
    assert users(tmp_path, first) == users(tmp_path, second) == ["b", "a", "c"]


def test_a_day_that_is_not_over_does_not_land(log, tmp_path):
    """2024-03-01 ends in São Paulo at 03:00 UTC of the next day."""
    with pytest.raises(
        DataError,
        match=r"2024-03-01 \(America/Sao_Paulo\) is not over: it ends at 2024-03-02 03:00 UTC",
    ):
        landing.check_day_is_over(config(log), FIRST, datetime(2024, 3, 2, 2, 59, 59, tzinfo=UTC))
    landing.check_day_is_over(config(log), FIRST, datetime(2024, 3, 2, 3, tzinfo=UTC))
    (tmp_path / "small.json").write_text(config(log).model_dump_json())
    done = CliRunner().invoke(
        main, ["land", str(tmp_path / "small.json"), "--day", "2999-01-01", "--days", str(tmp_path)]
    )
    assert (
        done.exit_code,
        "2999-01-01 (America/Sao_Paulo) is not over: it ends at 2999-01-02 03:00 UTC"
        in done.stderr,
    ) == (1, True)


def test_a_day_without_rows_is_refused_and_leaves_what_is_there(log, tmp_path):
    made, _ = landing.land(config(log), THIRD, tmp_path)
    write(log, ROWS[:3])
    with pytest.raises(
        DataError, match=r"has no row of 2024-03-03 \(America/Sao_Paulo\); 3 rows are of other days"
    ):
        landing.land(config(log), THIRD, tmp_path)
    assert landing.find_day(tmp_path, "small", THIRD) == made
    assert [
        file.name
        for file in (tmp_path / "small" / "2024-03-03").iterdir()
        if file.name.startswith(".")
    ] == []


def test_a_window_reads_its_days_and_no_more(log, tmp_path):
    days = tmp_path / "days"
    for day in (FIRST, SECOND):
        landing.land(config(log), day, days)
    with pytest.raises(DataError, match=r"2024-03-03 of 'small' have not landed in .*dssm land"):
        landing.use_landed_days(config(log), days)
    landing.land(config(log), THIRD, days)
    run = create_run(landing.use_landed_days(config(log), days), tmp_path / "runs", "one")
    work = tmp_path / "work"
    work.mkdir()
    assert ingest(run, work).rows == {"read": 5}
    assert pq.read_table(work / "interactions.parquet")["user_id"].to_pylist() == [
        "b",
        "a",
        "c",
        "d",
        "e",
    ]
    assert list(source_content(run)) == [
        f"{day}/{key}/interactions.parquet" for day, key in run.config.data.source.days.items()
    ]


def test_a_replaced_day_is_another_run(log, tmp_path):
    for day in (FIRST, SECOND, THIRD):
        landing.land(config(log), day, tmp_path / "days")
    before = landing.use_landed_days(config(log), tmp_path / "days")
    write(log, [*ROWS, ("late", "x", ms("2024-03-02T20:00:00"))])
    landing.land(config(log), SECOND, tmp_path / "days")
    after = landing.use_landed_days(config(log), tmp_path / "days")
    assert {
        day
        for day in before.data.source.days
        if before.data.source.days[day] != after.data.source.days[day]
    } == {"2024-03-02"}


def test_what_does_not_fit_is_said(log, tmp_path):
    landing.land(config(log, train_days=2), FIRST, tmp_path)
    for day in (SECOND, THIRD):
        landing.land(config(log), day, tmp_path)
    other = config(log).model_copy(
        update={"data": config(log).data.model_copy(update={"timezone": "UTC"})}
    )
    with pytest.raises(DataError, match=r"landed in America/Sao_Paulo, but data\.timezone is UTC"):
        landing.use_landed_days(other, tmp_path)
    settings = {
        "features": {"activity": {"enabled": False}},
        "sampler": {"kind": "uniform"},
        "evaluation": {"baselines": ["hot"]},
    }
    timeless = parse_config(small_config(split={"kind": "leave_one_out"}, **settings))
    with pytest.raises(ConfigError, match="split 'leave_one_out' has no days to wait for"):
        landing.use_landed_days(timeless, tmp_path)


def test_the_windows_that_hold_a_day(log):
    split = config(log).split  # two days to train, one to test
    assert landing.windows_containing(FIRST, split) == [FIRST, SECOND, THIRD]


def test_the_command(log, tmp_path):
    (tmp_path / "small.json").write_text(config(log).model_dump_json())  # JSON is YAML
    arguments = [
        "land",
        str(tmp_path / "small.json"),
        "--day",
        "2024-03-01",
        "--day",
        "2024-03-02",
        "--days",
        str(tmp_path / "days"),
    ]
    lines = [json.loads(line) for line in CliRunner().invoke(main, arguments).stdout.splitlines()]
    assert [(line["day"], line["rows"]["landed"], line["changed"]) for line in lines] == [
        ("2024-03-01", 3, True),
        ("2024-03-02", 1, True),
    ]
    again = CliRunner().invoke(main, arguments)
    assert [json.loads(line)["changed"] for line in again.stdout.splitlines()] == [False, False]


def test_a_landed_day_that_is_a_link_to_elsewhere_is_refused(log, tmp_path):
    days = tmp_path / "days"
    for day in (FIRST, SECOND, THIRD):
        landing.land(config(log), day, days)
    (day,) = days.glob(f"*/{SECOND}")
    shutil.move(day, tmp_path / "elsewhere")
    day.symlink_to(tmp_path / "elsewhere")
    run = create_run(landing.use_landed_days(config(log), days), tmp_path / "runs", "one")
    (tmp_path / "work").mkdir()
    with pytest.raises(DataError, match=r"is a link to .*elsewhere.*, outside the folder of the"):
        ingest(run, tmp_path / "work")
