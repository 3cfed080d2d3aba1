"""The whole config of a run. In: sections; out: one frozen `Config`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from dssm_core.config.base import SAFE_NAME, Member, Section
from dssm_core.config.data import Data, Split, Validation
from dssm_core.config.evaluation import Evaluation, Gate
from dssm_core.config.features import Features
from dssm_core.config.resources import Resources
from dssm_core.config.serving import Serving
from dssm_core.config.training import Model, Train


class Config(Section):
    """Everything that decides a run's numbers."""

    name: str
    """Name of the runs' folder; the registered model is called dssm-NAME. a-z, 0-9, - and _ only.
    """
    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of all random numbers. The same seed gives the same numbers."""
    data: Data
    """Where the log is and what its columns mean."""
    validation: Validation = Validation()
    """What the data must be like."""
    split: Split
    """How the log is split into train and test: a member of the splits family; without `kind` it is
    `days`."""
    features: Features = Features()
    """What the towers see."""
    sampler: Member = Member(kind="active")
    """Where negatives come from: a member of the samplers family. Losses over the whole catalogue
    do not use it.
    """
    tower: Member = Member(kind="mlp")
    """The network of each side: a member of the towers family."""
    item_tower: Member | None = None
    """Another network for the item side; null takes the item side of `tower`."""
    loss: Member = Member(kind="sampled_softmax")
    """What training minimises: a member of the losses family."""
    model: Model = Model()
    """The space that users and items share."""
    train: Train = Train()
    """How long and how fast."""
    index: Member = Member(kind="faiss_flat")
    """The index that is served: a member of the indexes family."""
    serving: Serving = Serving()
    """What a served list may hold."""
    evaluation: Evaluation = Evaluation()
    """How ranked lists are evaluated."""
    gate: Gate = Gate()
    """What the served index must reach."""
    resources: Resources = Resources()
    """What a step may use of the machine."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not SAFE_NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} names folders and a registered model: use a-z, 0-9, - and _ only"
            )
        return value

    @model_validator(mode="after")
    def _follow_gate(self) -> Self:
        """Fill in train.metric, so that training depends on nothing else of the gate, and a
        config.json of an earlier version, where it was recall@200, is the same config.
        """
        if self.train.metric is None:
            self.__dict__["train"] = self.train.model_copy(update={"metric": self.gate.metric})
        return self

    _changed: tuple[str, ...] = PrivateAttr(())

    @property
    def changed(self) -> tuple[str, ...]:
        """The settings that were laid over the config file, as `key.path=value`; none for a config
        that was not read from a file.
        """
        return self._changed

    def with_changes(self, overrides: Iterable[str]) -> Self:
        """The same config, which knows that `overrides` were laid over its file."""
        config = self.model_copy()
        config._changed = tuple(overrides)
        return config

    def deciding(self) -> dict[str, Any]:
        """All settings that decide a run's numbers, as JSON has them: all but `resources`."""
        return self.model_dump(mode="json", exclude={"resources"})

    @property
    def model_name(self) -> str:
        """The registered model's name in MLflow."""
        return f"dssm-{self.name}"
