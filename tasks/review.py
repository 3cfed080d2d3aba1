"""The review of a registered version by a person, or without one if there is nothing to decide."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator

log = logging.getLogger(__name__)


class Review(HITLOperator):
    """Waits for a person, unless `register_model` pushed an answer that needs none.

    That is so if `gate.promote_margin` is reached, and for the version of a past day, which may not
    replace the champion: if 16 runs wait for reviews, Airflow starts no further run.
    """

    def execute(self, context: Any) -> Any:
        """The answer to apply, in the format of a person's answer."""
        alone = context["ti"].xcom_pull(task_ids="register_model", key="review")["alone"]
        answer = next(((option, reason) for option, reason in alone.items() if reason), None)
        if answer is None:
            return super().execute(context)
        option, reason = answer
        log.info("no review needed: %s", reason)
        by, at = {"id": "gate", "name": "gate"}, datetime.now(UTC).isoformat()
        return {
            "chosen_options": [option],
            "params_input": {"reason": reason},
            "responded_at": at,
            "responded_by_user": by,
        }
