"""Where the latest clicks are looked for."""

from datetime import UTC, date, datetime

from dssm_core.config import parse_config
from dssm_core.data import landing
from dssm_core.operation.latest_clicks import origins
from tests.conftest import small_config

HOUR = 3_600_000


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_ended_days_that_have_landed_come_from_there_and_all_else_from_the_log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    times = [ms("2024-03-01T12:00:00"), ms("2024-03-02T12:00:00"), ms("2024-03-03T12:00:00")]
    (folder / "clicks.csv").write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u,i,{time}\n" for time in times)
    )
    source = {"kind": "delimited", "path": str(folder), "interactions": {"files": "*.csv"}}
    split = {"kind": "days", "test_day": "2024-03-03", "train_days": 2}
    config = parse_config(
        small_config(data={"source": source, "timezone": "America/Sao_Paulo"}, split=split)
    )
    days = tmp_path / "days"
    for day in (1, 3):
        landing.land(config, date(2024, 3, day), days)
    start, noon = ms("2024-03-01T15:00:00"), ms("2024-03-03T15:00:00")  # days begin at 03:00 UTC
    there, log = origins(config, start, noon, days)
    assert list(there.holds["days"]) == ["2024-03-01"]  # the third has landed, but has not ended
    assert there.spans == [(ms("2024-03-01T03:00:00"), ms("2024-03-02T03:00:00"))]
    assert list(log.holds["files"]) == ["clicks.csv"]
    assert log.spans == [
        (ms(f"2024-03-0{day}T03:00:00"), ms(f"2024-03-0{day + 1}T03:00:00")) for day in (2, 3)
    ]
    (only,) = origins(config, start, noon, None)
    assert len(only.spans) == 3
    landing.land(config, date(2024, 3, 2), days)
    (whole,) = origins(config, start, ms("2024-03-04T03:00:00"), days)
    assert list(whole.holds["days"]) == ["2024-03-01", "2024-03-02", "2024-03-03"]
