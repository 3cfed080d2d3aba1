"""pass-through for now"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dssm_core.artifacts import Run
from dssm_core.steps import Outcome


def validate(run: Run, work: Path) -> Outcome:
    """Link the ingested tables."""
    for file in run.step("ingest_data").glob("*.parquet"):
        (work / file.name).unlink(missing_ok=True)
        shutil.copy2(file, work / file.name)
    read = run.need("ingest_data").rows["read"]
    return Outcome(rows={"read": read, "clean": read, "quarantined": 0})
