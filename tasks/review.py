"""The review of a registered version: a person's, or none where there is nothing to decide."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator


class Review(HITLOperator):
    """Waits for a person, unless `register_model` found that none is needed: then it answers in the
    gate's name.

    That is so where `gate.promote_margin` is reached, and for a past day's version, which may not
    replace the champion: sixteen that wait would keep the next day from training.
    """

    def execute(self, context: Any) -> Any:
        """The answer to apply, as a person's would come."""
        alone = context["ti"].xcom_pull(task_ids="register_model", key="review")["alone"]
        answer = next(((option, reason) for option, reason in alone.items() if reason), None)
        if answer is None:
            return super().execute(context)
        option, reason = answer
        self.log.info("nobody is asked: %s", reason)
        by, at = {"id": "gate", "name": "gate"}, datetime.now(UTC).isoformat()
        return {
            "chosen_options": [option],
            "params_input": {"reason": reason},
            "responded_at": at,
            "responded_by_user": by,
        }
