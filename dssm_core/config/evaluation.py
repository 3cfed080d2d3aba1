"""How lists are evaluated, and what the gate asks of the served index."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dssm_core.config.base import Named, Section


class Rolling(Section):
    """Evaluation with an index that is refreshed during the test days."""

    refresh_h: Annotated[int, Field(ge=1)] = 1
    """Hours between refreshes of the index."""


class Evaluation(Section):
    """How ranked lists are evaluated."""

    ks: tuple[Annotated[int, Field(ge=1)], ...] = (20, 50, 200)
    """Cut-offs of the ranked lists."""
    bootstrap: Annotated[int, Field(ge=10)] = 500
    """Number of resamples of users for the confidence intervals."""
    max_users: Annotated[int, Field(ge=1)] | None = 20_000
    """Maximum number of users that are asked. If the test set has more, every answerer is asked by
    the same sample of them, which depends on `seed` and the ids of the users; terminal and report
    state its size. null asks all users."""
    exclude_seen: bool = False
    """Whether the items that a user has seen are left out of the user's lists, in the evaluation
    and when the model is served. A request can choose otherwise (`exclude_seen`)."""
    rolling: Rolling | None = None
    """Also evaluate each part of the test days by what was known when it began; `{}` refreshes
    every hour, null turns it off.
    """
    baselines: tuple[Named, ...] = (
        Named(kind="hot", name="hot"),
        Named(kind="recent_hot", name="recent_hot"),
    )
    """The baselines, by kind or with settings: `[hot, {kind: recent_hot, windows_h: [6, 24]}]`. Two
    baselines of one kind need a `name` each."""

    @field_validator("baselines")
    @classmethod
    def _check_names(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        names = [member.name for member in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"{', '.join(twice)} comes twice: give each a name of its own,"
                f" such as {{kind: {twice[0]}, name: {twice[0]}_2}}"
            )
        return value


class Gate(Section):
    """What the served index must reach. All values are recall@`k` of the queries of `population`,
    from 0 to 1.
    """

    k: Annotated[int, Field(ge=1)] = 200
    """Cut-off of the recall that the gate compares."""
    protocol: Literal["daily", "rolling"] = "daily"
    """Whether the index is judged as exported (`daily`) or refreshed during the test days
    (`rolling`, see evaluation.rolling)."""
    population: Literal["warm", "all"] = "warm"
    """Whose queries all rules compare: those of users and items in the training set (`warm`), or of
    all traffic (`all`), in which a new item can only be missed. Both are reported."""
    min_queries: Annotated[int, Field(ge=1)] = 200
    """The smallest number of queries to judge by. With fewer the model does not pass."""
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Level of the interval of a difference, such as 0.95: the model passes if the lower bound of
    (served - best baseline) is at least 0, and that of (served - champion) at least
    -`champion_tolerance`; `promote_margin` is compared with the lower bound too. The interval is a
    bootstrap of the queries' differences. null compares the means, and reports 0.95 intervals."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The smallest recall that passes."""
    min_index_ratio: Annotated[float, Field(ge=0, le=1)] = 0.98
    """The smallest ratio of the served index's recall to the recall of exact search."""
    champion_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    """How far the recall may be below the champion's."""
    promote_margin: Annotated[float, Field(gt=0, le=1)] | None = None
    """A version whose recall is this far above the champion (or, if there is none, above the best
    baseline) is promoted without a person; null never does."""

    @property
    def metric(self) -> str:
        """The name of the figure that is judged: recall@`k`."""
        return f"recall@{self.k}"

    @property
    def level(self) -> float:
        """The level of the reported intervals of differences: `confidence`, or 0.95."""
        return self.confidence or 0.95
