"""The served model, logged as code: MLflow runs this file to make it. `dssm_core` travels beside it in `code/`."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd

from dssm_core.bundle import Bundle, open_bundle


class Retriever(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow's class is untyped here
    """Users in, items out: the bundle behind MLflow's pyfunc."""

    bundle: Bundle

    def load_context(self, context: Any) -> None:
        """Open the bundle that was logged with the model."""
        self.bundle = open_bundle(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Columns `item_ids` and `scores`, for each row two lists of at most k (params: {"k": 200}), best first.

        model_input: `user_id`, `history` (item ids, newest last) or both, and context columns. A history wins over the
        exported embedding of a known user; who has neither asks as the unknown user. DataError on missing columns or a bad k.
        """
        return self.bundle.retrieve(model_input, (params or {}).get("k", 200))


mlflow.models.set_model(Retriever())
