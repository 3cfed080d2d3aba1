"""The served model, logged as code: MLflow runs this file to make it. `dssm_core` travels beside it
in `code/`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from dssm_core.errors import DataError
from dssm_core.retrieval.reloading import ReloadingBundle


class Retriever(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow's class is untyped here
    """Users in, items out: the bundle behind MLflow's pyfunc."""

    bundle: ReloadingBundle

    def load_context(self, context: Any) -> None:
        """Open the bundle that was logged with the model. Where $DSSM_REFRESHED names a folder, its
        refreshes answer (see reloading.py).
        """
        root = os.environ.get("DSSM_REFRESHED")
        self.bundle = ReloadingBundle(context.artifacts["bundle"], Path(root) if root else None)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Columns `item_ids` and `scores`, for each row two lists of at most k (params: {"k":
        200}), best first, and `source`.

        model_input: `user_id`, `history` (item ids, newest last) or both, and context columns.
        source says what a row was answered
        by: `history` (it wins over the exported vector of a known user), `user`, or for newcomers
        `context` (the unknown user's tower) or, of a model that has not learned what to make of
        them, `hot`: what is most clicked. An MlflowException, which servers answer with status 400,
        names what is wrong: neither column, a history that is no list, no rows, k outside 1 to
        10,000.
        """
        try:
            return self.bundle.current().retrieve(model_input, (params or {}).get("k", 200))
        except DataError as error:
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from error


mlflow.models.set_model(Retriever())
