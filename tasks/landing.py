"""Tasks of the Dag ingest_interactions: store a new or replaced day, start what depends on it."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from typing import Any

from dssm_core.errors import ConfigError
from tasks.connections import provide_connection
from tasks.outcomes import tell
from tasks.settings import config_file, data_path, days_folder, runs_folder

log = logging.getLogger(__name__)

TRAINING = "dssm_training"


def land_day() -> dict[str, Any]:
    """Store one day of the log. Returns the day, its fingerprint and number of rows, and whether it
    replaces an announced day.

    The task is skipped, and with it all tasks after it, if the same content was announced before.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.config import read_config
    from dssm_core.data import landing

    context = get_current_context()
    params = context["params"]
    day = _day(params["day"] or context["dag_run"].partition_key)
    config = read_config(config_file(params["config"]), data_path(params["data"]))
    landing.check_day_is_over(config, day, datetime.now(UTC))
    provide_connection(config)
    stored, _ = landing.land(config, day, days_folder())
    announced = landing.announced_fingerprint(days_folder(), config.name, day)
    if announced == stored.fingerprint:
        raise AirflowSkipException(
            f"{day} has landed before, unchanged ({stored.rows['landed']} rows)"
        )
    tell(f"{config.name}: landed {day} with {stored.rows['landed']:,} rows")
    return {
        "day": day.isoformat(),
        "fingerprint": stored.fingerprint,
        "rows": stored.rows["landed"],
        "replaced": announced is not None,
        "config": params["config"],
        "dataset": config.name,
    }


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError as error:
        problem = f"{text!r} is not a day" if text else "no day is given"
        raise ConfigError(
            f"{problem}: fill in `day` in the form, or trigger with a partition key such as"
            " 2017-10-07"
        ) from error


def announce(landed: dict[str, Any], outlet_events: Any) -> None:
    """Announce a new day to Airflow: the windows that wait for it start.

    The task is skipped for days of a config other than $DSSM_CONFIG, whose windows alone start by
    themselves, and for replaced days. Raises ConfigError while dssm_training is
    paused, because Airflow would not keep the day for it.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from tasks.form import default_config
    from tasks.windows import INTERACTIONS

    config = landed["config"]
    default = default_config()
    if config != default:
        raise AirflowSkipException(
            f"only windows of {default!r} ($DSSM_CONFIG) start by themselves: trigger"
            f" {TRAINING} for {config!r}"
        )
    if landed["replaced"]:
        raise AirflowSkipException(
            f"{landed['day']} replaces a day: the windows that were trained on it are trained again"
        )
    if get_current_context()["ti"].get_dag(TRAINING).is_paused:
        raise ConfigError(
            f"{TRAINING} is paused, so no window would start for {landed['day']}: unpause it, then"
            " clear this task"
        )
    outlet_events[INTERACTIONS].add_partitions(landed["day"])
    mark_announced(landed)
    tell(
        f"{landed['dataset']}: landed {landed['day']} with {landed['rows']:,} rows; windows that"
        " are now complete start"
    )


def mark_announced(landed: dict[str, Any]) -> None:
    """Record that a day was announced. It is the last action for a day: if a task is killed before
    it, the next run of the Dag announces the day again.
    """
    from dssm_core.data import landing

    day = date.fromisoformat(landed["day"])
    landing.mark_announced(days_folder(), landed["dataset"], day, landed["fingerprint"])


def stale_windows(landed: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of the runs to repeat: one for each window that contains a replaced day and was
    trained on its old content.

    Windows that were never trained are not started. Runs that read the log itself and trials of a
    sweep do not use landed days.
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing
    from dssm_core.data.splits.days import Days
    from dssm_core.runs.run import find_runs

    if not landed["replaced"]:
        log.info("%s was not landed before: no window was trained on other rows", landed["day"])
        return []
    config = read_config(config_file(landed["config"]))
    configs = [run.config for run in find_runs(runs_folder()) if run.config.name == config.name]
    trained = {each.split.title for each in configs if each.data.source.kind == "landed"}
    day = date.fromisoformat(landed["day"])
    split = config.split
    windows = landing.windows_containing(day, split) if isinstance(split, Days) else []
    mark_announced(landed)
    stale = [window.isoformat() for window in windows if window.isoformat() in trained]
    tell(f"{landed['dataset']}: replaced {landed['day']}; trains again: {', '.join(stale) or '-'}")
    return [{"config": landed["config"], "test_day": day, "landed": True} for day in stale]
