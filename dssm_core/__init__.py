"""Two-tower (DSSM) retrieval: from a click log to a served index.

The names in `__all__` are what a notebook needs. Each is imported from its module at first use, so
that `import dssm_core` loads neither torch nor pandas. docs/architecture.md describes the packages.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Set before torch loads OpenMP. By default idle OpenMP threads spin while they wait, which made a
# training step 8 times slower on a machine whose cores Airflow and MLflow share (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

MODULES = {
    "Bundle": "retrieval.bundle",
    "Config": "config",
    "DssmError": "errors",
    "Run": "runs.run",
    "assemble": "retrieval.bundle",
    "create_run": "runs.run",
    "find_runs": "runs.run",
    "open_bundle": "retrieval.bundle",
    "open_run": "runs.run",
    "parse_config": "config",
    "read_config": "config",
    "run_pipeline": "runs.pipeline",
    "run_step": "runs.pipeline",
    "summary": "runs.pipeline",
}
__all__ = list(MODULES)

if TYPE_CHECKING:
    from dssm_core.config import Config as Config
    from dssm_core.config import parse_config as parse_config
    from dssm_core.config import read_config as read_config
    from dssm_core.errors import DssmError as DssmError
    from dssm_core.retrieval.bundle import Bundle as Bundle
    from dssm_core.retrieval.bundle import assemble as assemble
    from dssm_core.retrieval.bundle import open_bundle as open_bundle
    from dssm_core.runs.pipeline import run_pipeline as run_pipeline
    from dssm_core.runs.pipeline import run_step as run_step
    from dssm_core.runs.pipeline import summary as summary
    from dssm_core.runs.run import Run as Run
    from dssm_core.runs.run import create_run as create_run
    from dssm_core.runs.run import find_runs as find_runs
    from dssm_core.runs.run import open_run as open_run
else:

    def __getattr__(name: str) -> object:
        """Import a name of `__all__` from its module; AttributeError for any other name."""
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
