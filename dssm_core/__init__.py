"""Two-tower (DSSM) retrieval: from a click log to a served index."""

import os

# Before torch loads OpenMP: threads that spin while they wait made a training step 8 times slower
# on a machine whose # cores Airflow and MLflow share (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
