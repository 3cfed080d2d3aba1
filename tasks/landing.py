"""The tasks of the Dag ingest_interactions: a day arrives, is new, or replaces what was there."""

from __future__ import annotations

from typing import Any

from tasks.settings import config_file, data_path, days_folder, runs_folder


def land_day() -> dict[str, Any]:
    """Keep the day's part of the log; what was announced already, unchanged, is skipped and so wakes nobody."""
    from datetime import date

    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core import landing
    from dssm_core.config import read_config
    from dssm_core.errors import ConfigError

    context = get_current_context()
    params, text = context["params"], context["params"]["day"] or context["dag_run"].partition_key
    if not text:
        raise ConfigError("no day is given: fill in `day` in the form, or trigger with a partition key such as 2017-10-07")
    config, day = read_config(config_file(params["config"]), data_path(params["data"])), date.fromisoformat(text[:10])
    there, _ = landing.land(config, day, days_folder())
    told = landing.announced(days_folder(), config.name, day)
    if told == there.key:
        raise AirflowSkipException(f"{day} is there already, unchanged ({there.rows['landed']} rows)")
    found = {"day": day.isoformat(), "key": there.key, "rows": there.rows, "replaced": told is not None}
    return found | {"config": params["config"], "dataset": config.name}


def announce(landed: dict[str, Any], outlet_events: Any) -> None:
    """Say that a new day is there: windows that were waiting for it start. They are those of $DSSM_CONFIG, so its days alone are said."""
    from airflow.sdk.exceptions import AirflowSkipException

    from tasks.form import default_config
    from tasks.windows import INTERACTIONS

    if (config := landed["config"]) != (own := default_config()):
        raise AirflowSkipException(f"only windows of {own!r} ($DSSM_CONFIG) start by themselves: trigger dssm_training for {config!r}")
    if landed["replaced"]:
        raise AirflowSkipException(f"{landed['day']} was there before: what was trained on it is trained anew instead")
    outlet_events[INTERACTIONS].add_partitions(landed["day"])
    note_announced(landed)


def note_announced(landed: dict[str, Any]) -> None:
    """The last thing that is done for a day: until then another run of the Dag does it again."""
    from datetime import date

    from dssm_core import landing

    landing.note_announced(days_folder(), landed["dataset"], date.fromisoformat(landed["day"]), landed["key"])


def stale_windows(landed: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the runs to repeat: of each window that holds a replaced day and was trained on what it held before."""
    from datetime import date

    from dssm_core import artifacts, landing
    from dssm_core.config import read_config

    if not landed["replaced"]:
        return []
    config, day = read_config(config_file(landed["config"])), date.fromisoformat(landed["day"])
    trained = {run.config.split.title for run in artifacts.find_runs(runs_folder()) if run.config.name == config.name}
    windows = [window.isoformat() for window in landing.windows_with(day, config.split)]
    note_announced(landed)
    return [{"config": landed["config"], "test_day": window, "landed": True} for window in windows if window in trained]
