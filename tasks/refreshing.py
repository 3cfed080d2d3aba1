"""The task of the Dag dssm_refresh."""

from __future__ import annotations

from typing import Any

from tasks.connections import provide_connection
from tasks.outcomes import tell
from tasks.settings import config_file, data_path, days_folder, refreshed_folder, runs_folder


def refresh_champion() -> dict[str, Any]:
    """Refresh the champion's bundle as of the form's time, or the end of the run's data interval.

    Returns the lineage of the refreshed bundle. Skipped if there is no champion.
    """
    from datetime import UTC, datetime

    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.config import read_config
    from dssm_core.operation import refresh
    from dssm_core.registry.versions import CHAMPION, open_model

    context = get_current_context()
    params = context["params"]
    run = context["dag_run"]
    config = read_config(config_file(params["config"]), data_path(params["data"]))
    provide_connection(config)
    store = open_model(config.model_name, runs_folder())
    if CHAMPION not in store.aliases():
        raise AirflowSkipException(f"{store.name} has no champion")
    if params["as_of"]:
        as_of = datetime.fromisoformat(params["as_of"])
    else:
        as_of = run.data_interval_end or run.run_after
    as_of_ms = refresh.past_ms(as_of, datetime.now(UTC))
    lineage = refresh.refresh_registered(
        store, None, config, as_of_ms, refreshed_folder(), days_folder()
    )
    tell(f"refreshed {store.name} v{lineage['version']} as of {lineage['as_of']}")
    return refresh.without_file_names(lineage)
