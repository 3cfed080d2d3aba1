"""The tasks of the Dag ingest_interactions: a day arrives, is new, or replaces what was there."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from dssm_core.errors import ConfigError
from tasks.settings import config_file, data_path, days_folder, runs_folder

TRAINING = "dssm_training"


def land_day() -> dict[str, Any]:
    """Keep the day's part of the log; what was announced already, unchanged, is skipped and so
    wakes nobody.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.config import read_config
    from dssm_core.data import landing

    context = get_current_context()
    params, day = (
        context["params"],
        _day(context["params"]["day"] or context["dag_run"].partition_key),
    )
    config = read_config(config_file(params["config"]), data_path(params["data"]))
    landing.check_day_is_over(config, day, datetime.now(UTC))
    there, _ = landing.land(config, day, days_folder())
    told = landing.announced_clicks(days_folder(), config.name, day)
    if told == there.clicks:
        raise AirflowSkipException(
            f"{day} is there already, unchanged ({there.rows['landed']} rows)"
        )
    found = {
        "day": day.isoformat(),
        "clicks": there.clicks,
        "rows": there.rows,
        "replaced": told is not None,
    }
    return found | {"config": params["config"], "dataset": config.name}


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError as error:
        told = f"{text!r} is no day" if text else "no day is given"
        raise ConfigError(
            f"{told}: fill in `day` in the form, or trigger with a partition key such as 2017-10-07"
        ) from error


def announce(landed: dict[str, Any], outlet_events: Any) -> None:
    """Say that a new day is there: windows that were waiting for it start. They are those of
    $DSSM_CONFIG, so its days alone are said.

    ConfigError while dssm_training is paused: Airflow keeps no day for a Dag that is.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from tasks.form import default_config
    from tasks.windows import INTERACTIONS

    if (config := landed["config"]) != (own := default_config()):
        raise AirflowSkipException(
            f"only windows of {own!r} ($DSSM_CONFIG) start by themselves: trigger dssm_training for {config!r}"
        )
    if landed["replaced"]:
        raise AirflowSkipException(
            f"{landed['day']} was there before: what was trained on it is trained anew instead"
        )
    if get_current_context()["ti"].get_dag(TRAINING).is_paused:
        raise ConfigError(
            f"{TRAINING} is paused, its windows would never hear of {landed['day']}: unpause it, then clear this task"
        )
    outlet_events[INTERACTIONS].add_partitions(landed["day"])
    mark_announced(landed)


def mark_announced(landed: dict[str, Any]) -> None:
    """The last thing that is done for a day: until then another run of the Dag does it again."""
    from dssm_core.data import landing

    landing.mark_announced(
        days_folder(), landed["dataset"], date.fromisoformat(landed["day"]), landed["clicks"]
    )


def stale_windows(landed: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the runs to repeat: of each window that holds a replaced day and was trained on
    what it held before.

    Neither runs on the log itself nor trials are of landed days: no window is begun that was not.
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing
    from dssm_core.runs.run import find_runs

    if not landed["replaced"]:
        return []
    config, day = read_config(config_file(landed["config"])), date.fromisoformat(landed["day"])
    ours = (run.config for run in find_runs(runs_folder()) if run.config.name == config.name)
    trained = {each.split.title for each in ours if each.data.source.kind == "landed"}
    windows = [window.isoformat() for window in landing.windows_containing(day, config.split)]
    mark_announced(landed)
    return [
        {"config": landed["config"], "test_day": window, "landed": True}
        for window in windows
        if window in trained
    ]
