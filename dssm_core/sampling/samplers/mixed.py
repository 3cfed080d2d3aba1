"""Several samplers in given shares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from dssm_core import families
from dssm_core.config import Config, Member
from dssm_core.errors import ConfigError
from dssm_core.families import SAMPLERS
from dssm_core.features.events import Events
from dssm_core.features.interactions import Interactions
from dssm_core.sampling.samplers.protocol import Bucket, FittedIds, Sampler, Tables


class Part(Member):
    """A sampler with its settings, and its share of the draws."""

    share: Annotated[float, Field(gt=0, le=1)]
    """Share of the draws that this sampler makes; all shares add up to 1."""


class Mixed(BaseModel):
    """Each draw is made by one of several samplers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    from_batch: ClassVar[bool] = False
    same_for_all: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    parts: Annotated[tuple[Part, ...], Field(min_length=2)]
    """The samplers, two or more: `{kind: uniform, share: 0.5}`."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        total = sum(part.share for part in self.parts)
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"the shares of sampler.parts add up to {total:g}: let them add up to 1"
            )
        for part in self.parts:
            build_inner(part)
        return self

    @cached_property
    def samplers(self) -> list[Sampler]:
        """A member for each part."""
        return [build_inner(part) for part in self.parts]

    @property
    def own(self) -> bool:
        """Whether any part gives events candidates of their own."""
        return any(sampler.own for sampler in self.samplers)

    @property
    def fixed_shapes(self) -> bool:
        """Whether the shapes of all parts are fixed."""
        return all(sampler.fixed_shapes for sampler in self.samplers)

    @property
    def even(self) -> bool:
        """Whether every part draws its items alike."""
        return all(sampler.even for sampler in self.samplers)

    @property
    def draws_positives(self) -> bool:
        """Whether any part can draw a user's positives."""
        return any(sampler.draws_positives for sampler in self.samplers)

    def problems(self, config: Config) -> Iterator[str]:
        """The problems of the parts."""
        for sampler in self.samplers:
            yield from families.problems(sampler, config)

    def files(self) -> dict[str, Path]:
        """What the parts' `fit` reads, by path."""
        paths = [file for sampler in self.samplers for file in sampler.files().values()]
        return {str(file): file for file in paths}

    def fit(self, log: Interactions, as_of: Tensor, ids: FittedIds) -> Tables:
        """Every part's tables, `number.name`."""
        fitted = [sampler.fit(log, as_of, ids) for sampler in self.samplers]
        return {
            f"{place}.{name}": table
            for place, tables in enumerate(fitted)
            for name, table in tables.items()
        }

    def draw(
        self, tables: Tables, bucket: Bucket, count: int, events: Events, generator: torch.Generator
    ) -> Tensor:
        """[count] item codes, or [B, count]. Each part draws `count`, and a random one is taken at
        each place, the same for all events.
        """
        chosen = torch.rand(count, generator=generator, device=generator.device)
        drawn = [
            self._part(tables, place, bucket, count, events, generator)
            for place in range(len(self.parts))
        ]
        items = drawn[-1]
        for part, passed in zip(reversed(drawn[:-1]), reversed(self._passed), strict=True):
            items = torch.where(chosen < passed, part, items)
        return items

    def log_q(self, tables: Tables, bucket: Bucket, items: Tensor, events: Events) -> Tensor:
        """The log of the share-weighted sum of the parts' probabilities. items: [n] or [B, n] → the
        same.
        """
        each = [
            sampler.log_q(_of(tables, place), bucket, items, events)
            for place, sampler in enumerate(self.samplers)
        ]
        weighted = [
            log_q + math.log(part.share) for log_q, part in zip(each, self.parts, strict=True)
        ]
        return torch.stack(weighted, dim=-1).logsumexp(-1)

    def drawn_from(self, tables: Tables, events: Events) -> dict[str, int]:
        """Number of events by source, of the first part with several sources; empty without one."""
        for place, sampler in enumerate(self.samplers):
            if hasattr(sampler, "drawn_from"):
                return dict(sampler.drawn_from(_of(tables, place), events))
        return {}

    @property
    def _passed(self) -> list[float]:
        """Sum of the shares up to each part but the last."""
        return list(accumulate(part.share for part in self.parts))[:-1]

    def _part(
        self,
        tables: Tables,
        place: int,
        bucket: Bucket,
        count: int,
        events: Events,
        generator: torch.Generator,
    ) -> Tensor:
        """`count` candidates of a part. in_batch returns the batch's items, however many."""
        sampler = self.samplers[place]
        drawn = sampler.draw(_of(tables, place), bucket, count, events, generator)
        if not sampler.from_batch:
            return drawn
        even = torch.rand(count, generator=generator, device=generator.device, dtype=torch.double)
        return drawn[(even * (drawn > 0).sum()).long()]  # padding is last


def build_inner(member: Member) -> Any:
    """A sampler inside a sampler; ValueError, which pydantic takes, in one line where its settings
    are wrong.
    """
    try:
        return families.build(SAMPLERS, member)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ValueError(f"sampler {member.kind!r} inside a sampler: {problems}") from error
    except ConfigError as error:
        raise ValueError(str(error)) from error


def _of(tables: Tables, place: int) -> Tables:
    prefix = f"{place}."
    return {
        name.removeprefix(prefix): table
        for name, table in tables.items()
        if name.startswith(prefix)
    }
