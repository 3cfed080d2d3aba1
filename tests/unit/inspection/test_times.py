import duckdb
import pytest

from dssm_core.inspection.columns import describe
from dssm_core.inspection.times import guess_format, guess_time, quiet_hour, zone_doubt, zones_at

JULY_2024_MS = 1_720_000_000_000


def guess(values, kind="VARCHAR"):
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t (c {kind})")
        con.executemany("INSERT INTO t VALUES (?)", [[value] for value in values])
        return guess_time(con, "t", describe(con, "t")["c"])


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
def test_the_unit_follows_from_the_magnitude(unit, factor):
    times = [str((1_709_251_200 + 86_400 * day) * factor) for day in range(5)]
    assert guess(times).settings == {"time_unit": unit}


def test_iso_times():
    assert guess(["2024-03-01T10:00:00Z", "2024-03-02T10:00:00+02:00"]).doubts == ()
    local = guess(["2024-03-01 10:00:00", "2024-03-02"])
    assert local.settings == {"time_unit": "iso"}
    assert "no UTC offset" in local.doubts[0]
    assert guess(["2024-03-01 10:00:00"], "TIMESTAMP").settings == {"time_unit": "iso"}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["03/31/2024 09:05:00 PM", "03/01/2024 10:00:00 AM"], "%m/%d/%Y %I:%M:%S %p"),
        (["31/03/2024", "01/03/2024"], "%d/%m/%Y"),
        (["03/31/2024", "03/01/2024"], "%m/%d/%Y"),
        (["31.03.2024 10:00", "01.03.2024 10:00"], "%d.%m.%Y %H:%M"),
        (["20240331", "20240301"], "%Y%m%d"),
    ],
)
def test_the_format_of_dates(values, expected):
    found = guess(values)
    assert found.settings == {"time_format": expected}
    assert len(found.doubts) == 1


def test_day_and_month_may_be_swapped():
    found = guess(["07/03/2024", "05/03/2024"])
    assert found.format == "%m/%d/%Y"
    assert "'%d/%m/%Y' as well" in found.doubts[1]


def test_what_holds_no_times():
    for values in (["1", "2"], ["a", "b"], [None, ""], ["12345", "99999999999999999999999"]):
        assert guess(values) is None


def test_a_format_with_an_offset_has_no_doubt():
    assert guess_format(["%a %b %d %H:%M:%S %z %Y"]).doubts == ()


def test_the_quiet_hour_and_where_it_is_night():
    hours = [100] * 24
    assert quiet_hour(hours) is None
    for hour in (5, 6, 7, 8, 9):
        hours[hour] = 10
    assert quiet_hour(hours) == 7  # 04:00 at UTC-3
    assert zones_at(-3, JULY_2024_MS) == ["America/Sao_Paulo"]
    assert "UTC-3, such as America/Sao_Paulo" in zone_doubt(hours, JULY_2024_MS)
    assert "no night shows" in zone_doubt([0] * 24, 0)
    late = [100] * 24
    for hour in (18, 19, 20, 21, 22):
        late[hour] = 10
    assert "UTC+8, such as Asia/Shanghai" in zone_doubt(late, JULY_2024_MS)
