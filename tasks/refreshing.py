"""The task of the Dag dssm_refresh."""

from __future__ import annotations

from typing import Any

from tasks.settings import config_file, data_path, days_folder, refreshed_folder, runs_folder


def refresh_champion() -> dict[str, Any]:
    """Swap in the champion's bundle as of the run's moment; its lineage. Skipped where there is no
    champion to refresh.
    """
    from datetime import UTC, datetime

    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.config import read_config
    from dssm_core.operation import refresh
    from dssm_core.registry.versions import CHAMPION, open_model

    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    config = read_config(config_file(params["config"]), data_path(params["data"]))
    store = open_model(config.model_name, runs_folder())
    if CHAMPION not in store.aliases():
        raise AirflowSkipException(f"{store.name} has no champion")
    given = (
        datetime.fromisoformat(params["as_of"])
        if params["as_of"]
        else run.data_interval_end or run.run_after
    )
    moment = refresh.passed_ms(given, datetime.now(UTC))
    made = refresh.refresh_registered(
        store, None, config, moment, refreshed_folder(), days_folder()
    )
    return refresh.brief(made)
