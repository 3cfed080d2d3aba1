"""A whole run: every step in order, stopping where the gate says so, and the summary people and
scripts read.
"""

from __future__ import annotations

from collections.abc import Callable

from dssm_core.aliases import JSON
from dssm_core.errors import ConfigError, DataError
from dssm_core.families import named
from dssm_core.runs.gate_report import find_gate_report, read_gate_report
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run
from dssm_core.runs.table import BEFORE_STEP, ON_FAILURE, STEPS, find_step
from dssm_core.runs.transaction import execute


def run_pipeline(
    run: Run,
    before: Callable[[str], None] = lambda name: None,
    after: Callable[[Manifest], None] = lambda m: None,
    until: str | None = None,
) -> JSON:
    """Execute all steps of a run and return its summary; `register_model` only if the gate passed.

    before / after: called with a step's name before it starts, and with its manifest once it is
    finished.
    until: the last step to execute; ConfigError where there is none of that name.
    """
    last = find_step(until).name if until else None
    for name in STEPS:
        if name == "register_model" and not read_gate_report(run).passed:
            break
        before(name)
        after(run_step(run, name))
        if name == last:
            break
    return summary(run)


def run_step(run: Run, name: str) -> Manifest:
    """Execute one step; data or settings that no retry can mend are also written to the MLflow run,
    with the Data Docs. A wrong address of MLflow is refused before any work is done.
    """
    named(BEFORE_STEP)(run)
    try:
        return execute(run, name)
    except (ConfigError, DataError) as error:
        named(ON_FAILURE)(run, str(error))
        raise


def finished(run: Run) -> dict[str, Manifest]:
    """The manifests of the finished steps by name, in their order."""
    return {name: manifest for name in STEPS if (manifest := run.manifest(name))}


def summary(run: Run) -> JSON:
    """The run's numbers as one plain JSON object, as far as it has come."""
    done = finished(run)
    gate = find_gate_report(run)
    version = done["register_model"].info.get("version") if "register_model" in done else None
    return {
        "run": str(run.root),
        "test_day": run.config.split.title,
        "metrics": gate.metrics.as_json() if gate else None,
        "gate": {"passed": gate.passed, "reasons": gate.marked, "k": run.config.gate.k}
        if gate
        else None,
        "rows": done["split_by_time"].rows if "split_by_time" in done else None,
        "seconds": {name: manifest.seconds for name, manifest in done.items()},
        "version": version,
    }
