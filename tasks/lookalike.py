"""The task of the Dag dssm_lookalike."""

from __future__ import annotations

from typing import Any

from tasks.outcomes import tell
from tasks.settings import audiences_folder, data_path, model_name, run_folder, runs_folder


def find_audience() -> dict[str, Any]:
    """Write the audience of the form's seed users or item. Returns its file and its numbers.

    A retry writes the same file again.
    """
    from airflow.sdk import get_current_context

    from dssm_core.operation import lookalike
    from dssm_core.operation.opened import opened
    from dssm_core.operation.user_files import read_seeds
    from dssm_core.registry.versions import open_model
    from dssm_core.runs.run import open_run, safe_run_id

    context = get_current_context()
    params = context["params"]
    if params["run"]:
        of = open_run(run_folder(params["run"]))
    else:
        of = open_model(model_name(params["config"]), runs_folder())
    file = data_path(params["seeds_file"])
    from_file = read_seeds(file) if file else []
    name = f"{safe_run_id(context['dag_run'].run_id)}.{params['format']}"
    with opened(of, params["version"]) as (bundle, about):
        target = audiences_folder() / bundle.config.model_name / name
        audience = lookalike.make_audience(
            bundle,
            target,
            params["top"],
            params["seeds"] or (),
            params["item"],
            params["exclude_seeds"] is not False,
            from_file,
        )
    tell(f"audience of {audience['users']:,} users: {audience['file']}")
    return about | audience
