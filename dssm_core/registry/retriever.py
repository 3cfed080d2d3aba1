"""The served model, logged as code: MLflow runs this file to make it. `dssm_core` travels beside it
in `code/`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from dssm_core.config.conditions import time_ms
from dssm_core.errors import DataError, shorten
from dssm_core.registry import scoring_server
from dssm_core.registry.integrity import check_served
from dssm_core.retrieval.reloading import ReloadingBundle
from dssm_core.retrieval.requests import DEFAULT_K


class Retriever(mlflow.pyfunc.PythonModel):  # type: ignore[misc]  # MLflow's class is untyped here
    """Users in, items out: the bundle behind MLflow's pyfunc."""

    bundle: ReloadingBundle

    def load_context(self, context: Any) -> None:
        """Open the bundle that was logged with the model. Where $DSSM_REFRESHED names a folder, its
        refreshes answer (see reloading.py). ArtifactError if bundle or code was changed.
        """
        bundle = Path(context.artifacts["bundle"])
        check_served(bundle)
        scoring_server.install()
        root = os.environ.get("DSSM_REFRESHED")
        self.bundle = ReloadingBundle(bundle, Path(root) if root else None)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Columns `item_ids` and `scores`, for each row two lists of at most k, best first, and
        `source`: what answered the row, see docs/serving.md.

        model_input: `user_id`, `history` (item ids, newest last) or both; `exclude` (item ids that
        are not to be listed), context columns, and user columns, which describe new users.

        params: `k`, 200 by default; `exclude_seen`: leave out the history and what the user has
        seen; `filters`: conditions on item columns; `as_of`: the time at which items must be
        available, in ISO form, now by default.

        Raises an MlflowException, which servers answer with status 400, that names what is wrong.
        """
        params = params or {}
        try:
            return self.bundle.current().retrieve(
                model_input,
                params.get("k", DEFAULT_K),
                exclude_seen=params.get("exclude_seen"),
                filters=list(params.get("filters", ())),
                as_of_ms=_moment(params.get("as_of")),
            )
        except DataError as error:
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(str(error)) from error


def _moment(as_of: str | None) -> int:
    """A time as ms; without one, the current minute: the items that are available are then found
    once a minute.
    """
    if not as_of:
        return int(time.time() // 60) * 60_000
    moment = time_ms(as_of)
    if moment is None:
        raise DataError(
            f"as_of is {shorten(as_of)!r}: give a time in ISO form, such as 2024-03-07T12:00:00Z"
        )
    return moment


mlflow.models.set_model(Retriever())
