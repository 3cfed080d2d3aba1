"""The tasks of the Dags dssm_publish and dssm_rollback."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.outcomes import tell
from tasks.settings import model_name, publish_target, published_lists, runs_folder


def notice_champion() -> dict[str, Any]:
    """Record a champion that was set in MLflow directly. Returns the model and its champion's
    version, None if there is no champion.
    """
    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion
    from dssm_core.registry.versions import CHAMPION, open_model

    model = model_name(get_current_context()["params"]["config"])
    decision = promotion.notice(model, runs_folder(), datetime.now(UTC))
    version = open_model(model, runs_folder()).aliases().get(CHAMPION)
    champion = f"champion of {model} is v{version}" if version else f"{model} has no champion"
    tell(f"recorded: {decision.line}" if decision else f"{champion}; no alias was moved by hand")
    return {"model": model, "version": version}


def publish_champion(champion: dict[str, Any]) -> dict[str, Any]:
    """Publish the current champion, which is a later one if the task is cleared later, with lists
    of the items that are available now if the form or $DSSM_PUBLISH_LISTS gives their length.

    Skipped if there is no champion. A version that readers already see is not written again.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.operation import publish
    from dssm_core.registry.versions import open_model

    if not champion["version"]:
        raise AirflowSkipException(f"{champion['model']} has no champion")
    params = get_current_context()["params"]
    target = params["target"] or publish_target()
    k = params["lists"] or published_lists()
    store = open_model(champion["model"], runs_folder())
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    published = publish.publish_registered(store, None, target, k, now_ms)
    tell(f"published {store.name} v{published['version']} to {published['target']}")
    return published


def roll_back() -> dict[str, Any]:
    """Promote the previous champion, or the version that the form names, to champion again."""
    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion
    from dssm_core.registry.check import check_version

    context = get_current_context()
    params = context["params"]
    run = context["dag_run"]
    decision = promotion.decide(
        "rollback",
        model_name(params["config"]),
        runs_folder(),
        run.run_after,
        getattr(run, "triggering_user_name", None) or "Airflow",
        params["reason"],
        params["version"],
        check=lambda store, version: check_version(store.name, version, runs_folder()),
    )
    tell(decision.line)
    return {
        "version": decision.version,
        "champion": decision.champion,
        "previous": decision.previous,
    }
