"""The tasks of the Dags dssm_publish and dssm_rollback."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.settings import model_name, publish_target, runs_folder


def notice_champion() -> dict[str, Any]:
    """Write down a champion that somebody set in MLflow itself, and say whom to publish."""
    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion
    from dssm_core.registry.versions import CHAMPION, open_model

    model = model_name(get_current_context()["params"]["config"])
    if made := promotion.notice(model, runs_folder(), datetime.now(UTC)):
        print(f"noticed: {made.action}, champion is {made.champion}, by {made.by}")
    return {
        "model": model,
        "version": open_model(model, runs_folder()).aliases().get(CHAMPION),
    }


def publish_champion(found: dict[str, Any]) -> dict[str, Any]:
    """Publish today's champion, also where the task is cleared later. Skipped without one; what
    readers see is not written again.
    """
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from dssm_core.operation import publish
    from dssm_core.registry.versions import open_model

    if not found["version"]:
        raise AirflowSkipException(f"{found['model']} has no champion")
    target = get_current_context()["params"]["target"] or publish_target()
    return publish.publish_registered(open_model(found["model"], runs_folder()), None, target)


def roll_back() -> dict[str, Any]:
    """Make the previous champion, or the version of the form, champion again."""
    from airflow.sdk import get_current_context

    from dssm_core.operation import promotion
    from dssm_core.registry.check import check_version

    context = get_current_context()
    params, run = context["params"], context["dag_run"]
    made = promotion.decide(
        "rollback",
        model_name(params["config"]),
        runs_folder(),
        run.run_after,
        getattr(run, "triggering_user_name", None) or "Airflow",
        params["reason"],
        params["version"],
        check=lambda store, version: check_version(store.name, version, runs_folder()),
    )
    return {"version": made.version, "champion": made.champion, "previous": made.previous}
