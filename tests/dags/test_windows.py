"""The sliding window: which windows a day is in, which days a window waits for; and the tasks of a
day that arrives.
"""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest
import yaml

from dssm_core.config import read_config
from dssm_core.data import landing
from dssm_core.errors import ConfigError, DataError
from dssm_core.runs.run import create_run
from dssm_core.tuning import sweep
from tasks import landing as tasks
from tasks.windows import INTERACTIONS, TrailingDaysMapper, TrailingDaysWindow, check_daily
from tests.conftest import small_config

DAYS = [f"2024-02-{day:02}" for day in range(20, 30)] + [
    f"2024-03-{day:02}" for day in range(1, 10)
]


def test_a_window_waits_for_its_days_over_a_leap_day():
    assert sorted(TrailingDaysWindow(7).to_upstream("2024-03-02")) == [
        "2024-02-25",
        "2024-02-26",
        "2024-02-27",
        "2024-02-28",
        "2024-02-29",
        "2024-03-01",
        "2024-03-02",
    ]


@pytest.mark.parametrize("days", [1, 2, 7])
def test_both_directions_agree(days):
    mapper, window = TrailingDaysMapper(days), TrailingDaysWindow(days)
    assert all(
        (day in window.to_upstream(last)) == (last in mapper.to_downstream(day))
        for day in DAYS
        for last in DAYS
    )


@pytest.mark.parametrize("made", [TrailingDaysMapper(5), TrailingDaysWindow(5)])
def test_airflow_reads_what_it_kept(made):
    assert type(made).deserialize(made.serialize()).days == 5


@pytest.mark.parametrize(
    ("cron", "timezone", "said"),
    [
        (
            "30 2 * * *",
            "Europe/Berlin",
            "02:30:00, which does not exist in Europe/Berlin",
        ),  # on a Sunday in March
        ("0 0 * * *", "America/Santiago", "00:00:00, which does not exist in America/Santiago"),
        ("0 */6 * * *", "UTC", "give one time of day"),
        ("30 3 * * 1", "UTC", "give one time of day"),
        ("30 3 * * *", "Europe/Berlin", None),
        ("0 0 * * *", "Europe/Berlin", None),
    ],
)
def test_a_schedule_fires_once_a_day_at_a_time_that_every_day_has(cron, timezone, said):
    if said is None:
        check_daily(cron, timezone)
        return
    with pytest.raises(ValueError, match=said):
        check_daily(cron, timezone)


def test_nine_days_complete_three_windows():
    landed: set[str] = set()
    fired = []
    for day in DAYS[:9]:
        landed.add(day)
        fired += [
            last
            for last in TrailingDaysMapper(7).to_downstream(day)
            if set(TrailingDaysWindow(7).to_upstream(last)) <= landed
        ]
    assert fired == DAYS[6:9]


@pytest.fixture
def day(tmp_path, monkeypatch):
    """A function (form fields, partition key) -> what land_day returns."""
    import airflow.sdk

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.yaml").write_text(yaml.safe_dump(small_config()))
    for name in ("configs", "runs", "days"):
        monkeypatch.setenv(f"DSSM_{name.upper()}", str(tmp_path / name))

    def land(partition_key=None, **params):
        context = {
            "params": {"config": "small", "data": None, "day": None} | params,
            "dag_run": SimpleNamespace(partition_key=partition_key),
            "ti": SimpleNamespace(get_dag=lambda dag: SimpleNamespace(is_paused=land.paused)),
        }
        monkeypatch.setattr(airflow.sdk, "get_current_context", lambda: context)
        return tasks.land_day()

    land.paused = False
    return land


class Events(dict):
    """Outlet events, as far as `announce` uses them."""

    def __missing__(self, asset):
        self[asset] = SimpleNamespace(
            keys=[], add_partitions=lambda *keys: self[asset].keys.extend(keys)
        )
        return self[asset]


def test_a_new_day_is_announced_and_repeats_nothing(day):
    landed = day("2024-03-02")
    assert (landed["day"], landed["replaced"]) == ("2024-03-02", False)
    events = Events()
    tasks.announce(landed, events)
    assert events[INTERACTIONS].keys == ["2024-03-02"]
    assert tasks.stale_windows(landed) == []


def test_the_same_day_again_is_skipped(day):
    from airflow.sdk.exceptions import AirflowSkipException

    tasks.announce(day("2024-03-02"), Events())
    with pytest.raises(AirflowSkipException, match="2024-03-02 has landed before, unchanged"):
        day(day="2024-03-02")


def test_a_day_landed_without_announcement_is_announced_by_the_next_run(day, tmp_path):
    landing.land(
        read_config(tmp_path / "configs" / "small.yaml"), date(2024, 3, 2), tmp_path / "days"
    )
    assert not day("2024-03-02")["replaced"]  # killed before it was announced
    landed, events = day("2024-03-02"), Events()
    tasks.announce(landed, events)
    assert events[INTERACTIONS].keys == ["2024-03-02"]


def test_a_replaced_day_repeats_what_was_trained_on_it_and_no_other(day, tmp_path):
    from airflow.sdk.exceptions import AirflowSkipException

    config = read_config(tmp_path / "configs" / "small.yaml")
    for nth in range(1, 8):
        there, _ = landing.land(config, date(2024, 3, nth), tmp_path / "days")
        landing.mark_announced(
            tmp_path / "days", config.name, date(2024, 3, nth), there.fingerprint
        )
    create_run(landing.use_landed_days(config, tmp_path / "days"), tmp_path / "runs", "seventh")
    create_run(
        sweep.on_validation_days(config), tmp_path / "runs", "trial-of-the-log-itself"
    )  # of 2024-03-06
    changed = small_config(
        data__source={"kind": "synthetic", "users": 2000, "items": 600, "clicks": 41000}
    )
    (tmp_path / "configs" / "small.yaml").write_text(yaml.safe_dump(changed))
    landed = day("2024-03-02")
    assert landed["replaced"]
    with pytest.raises(AirflowSkipException, match="are trained again"):
        tasks.announce(landed, Events())
    assert day("2024-03-02") == landed  # not announced yet
    assert tasks.stale_windows(landed) == [
        {"config": "small", "test_day": "2024-03-07", "landed": True}
    ]
    with pytest.raises(AirflowSkipException, match="unchanged"):
        day("2024-03-02")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "no day is given"),
        ("March", "'March' is not a day"),
        ("2024-03-02T01", "is not a day"),
    ],
)
def test_a_missing_or_wrong_day_is_an_error(day, key, said):
    with pytest.raises(ConfigError, match=said):
        day(key)


def test_a_day_that_is_not_over_does_not_land(day):
    with pytest.raises(DataError, match=r"2999-01-01 .* is not over"):
        day("2999-01-01")


def test_a_day_is_announced_only_while_dssm_training_is_not_paused(day):
    landed, events = day("2024-03-02"), Events()
    day.paused = True
    with pytest.raises(
        ConfigError,
        match=r"is paused, so no window would start for 2024-03-02: unpause it, then clear",
    ):
        tasks.announce(day("2024-03-02"), events)
    day.paused = False
    tasks.announce(day("2024-03-02"), events)
    assert events[INTERACTIONS].keys == [landed["day"]]


def test_a_day_of_another_config_starts_no_window_of_this_one(day, tmp_path, monkeypatch):
    from airflow.sdk.exceptions import AirflowSkipException

    (tmp_path / "configs" / "other.yaml").write_text(yaml.safe_dump(small_config(name="other")))
    monkeypatch.setenv("DSSM_CONFIG", "small")
    landed, events = day(day="2024-03-02", config="other"), Events()
    with pytest.raises(
        AirflowSkipException,
        match=r"only windows of 'small' \(\$DSSM_CONFIG\).*dssm_training for 'other'",
    ):
        tasks.announce(landed, events)
    assert not events
