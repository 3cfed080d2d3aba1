"""Protocols of splitting a log into train and test, by name. A member more is a file, an import and
a line here.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from dssm_core.data.splits.days import Days
from dssm_core.data.splits.fixed import Fixed
from dssm_core.data.splits.holdout import Holdout
from dssm_core.data.splits.last_n import LastN
from dssm_core.data.splits.leave_one_out import LeaveOneOut

SPLITS: dict[str, type[BaseModel]] = {
    "days": Days,
    "leave_one_out": LeaveOneOut,
    "last_n": LastN,
    "fixed": Fixed,
    "holdout": Holdout,
}


def _by_days(value: Any) -> Any:
    """Settings without `kind` are those of `days`."""
    return {"kind": "days", **value} if isinstance(value, dict) and "kind" not in value else value


AnySplit = Annotated[Days | LeaveOneOut | LastN | Fixed | Holdout, Field(discriminator="kind")]
Split = Annotated[AnySplit, BeforeValidator(_by_days)]
