"""The fastest index that reaches a given recall, found by measuring several with real queries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dssm_core import families
from dssm_core.aliases import Bools, Floats, Ints
from dssm_core.config import Config, Member
from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.families import INDEXES, did_you_mean
from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.indexes.protocol import Index, check_vectors
from dssm_core.runs.files import write_atomically

FILE = "auto.json"  # what was chosen; its own files lie beside it
FLAT = Member(kind="faiss_flat")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexTrial:
    """An index with its settings, its recall@k against exact search, and its queries a second."""

    kind: str
    settings: dict[str, Any]
    recall: float
    queries_per_s: float


@dataclass(frozen=True)
class Chosen:
    """A built (or loaded) index and the member that searches it; `trials`: what was measured on the
    way.
    """

    choice: Member
    member: Index
    index: Any
    trials: tuple[IndexTrial, ...] = ()


class Auto(BaseModel):
    """The fastest of exact search and `kinds` that finds `min_recall` of exact search's `k` items.

    Each kind is built with sizes that suit the catalogue. For each build, the smallest effort of
    searching that reaches `min_recall` is found, and the fastest of these is taken. Efforts depend
    on recall and so on the seed alone. Which kind is the fastest is measured and may differ between
    machines, so the choice is saved with the index.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    effort: ClassVar[str | None] = None
    exact: ClassVar[bool] = False
    ignores: ClassVar[tuple[str, ...]] = ()
    min_recall: Annotated[float, Field(gt=0, le=1)] = measure.ENOUGH
    """Smallest share of exact search's items that the index must find."""
    k: Annotated[int, Field(ge=1)] = measure.K
    """Number of items of each list that recall is measured on."""
    sample: Annotated[int, Field(ge=1)] = measure.QUERIES
    """Number of queries to measure with."""
    flat_below: Annotated[int, Field(ge=0)] = 20_000
    """Number of items up to which exact search is taken without measuring."""
    kinds: tuple[str, ...] = ("faiss_ivf",)
    """The kinds of index to try. A graph (faiss_hnsw) and a forest (annoy) take minutes to build
    for a million vectors, and are slower than inverted lists at k = 200 (docs/benchmarks.md)."""

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in INDEXES or not families.load(INDEXES, kind).sizes(1):
                valid = [name for name in INDEXES if families.load(INDEXES, name).sizes(1)]
                raise ValueError(f"index {kind!r} cannot be tried: {did_you_mean(kind, valid)}")
        return value

    @property
    def requirements(self) -> tuple[str, ...]:
        """Those of all kinds that may be chosen."""
        kinds = [families.load(INDEXES, kind) for kind in self.kinds]
        return tuple(dict.fromkeys(name for kind in kinds for name in kind.requirements))

    def problems(self, config: Config) -> Iterator[str]:
        """The problems of the kinds that may be chosen."""
        for kind in self.kinds:
            yield from families.problems(families.load(INDEXES, kind)(), config)

    def inner(self, index: Chosen) -> tuple[Member, Any] | None:
        """The index that was chosen."""
        return index.choice, index.index

    def least_effort(self, k: int) -> int:
        """There is no effort to choose."""
        return 1

    @classmethod
    def sizes(cls, items: int) -> tuple[dict[str, Any], ...]:
        """None: it is not one of the kinds that it tries."""
        return ()

    def build(self, vectors: Floats, seed: int, queries: Floats | None = None) -> Chosen:
        """Try and choose; without queries a sample of the vectors themselves asks."""
        vectors = check_vectors(vectors)
        exact = _member(FLAT)
        best = Chosen(FLAT, exact, exact.build(vectors, seed))
        if len(vectors) <= self.flat_below:
            return best
        asked = measure.sample(vectors, queries, self.k, self.sample, seed)
        trials = [_try(asked, best)]
        fastest = trials[0]
        for choice in plans(self.kinds, len(vectors)):
            built = Chosen(choice, _member(choice), _member(choice).build(vectors, seed))
            tried, good = self._tune(asked, built, fastest)
            trials += tried
            if good and good.queries_per_s > fastest.queries_per_s:
                fastest, best = good, built
        choice = _choose(fastest.kind, **fastest.settings)
        return Chosen(choice, _member(choice), best.index, tuple(trials))

    def describe(self, index: Chosen) -> dict[str, Any]:
        """The kind and settings that were chosen, and the table of what was measured (none where
        nothing was tried).
        """
        return {
            "chosen": index.choice.model_dump(),
            "tried": [asdict(trial) for trial in index.trials],
        }

    def save(self, index: Chosen, folder: Path) -> None:
        """Write `auto.json` and the chosen member's own files. No times: the same index is the same
        files.
        """
        write_atomically(folder / FILE, index.choice.model_dump_json().encode())
        index.member.save(index.index, folder)

    def load(self, folder: Path) -> Chosen:
        """Read the choice and its index; ArtifactError where either is missing or damaged."""
        try:
            choice = Member.model_validate_json((folder / FILE).read_bytes())
            member = _member(choice)
        except (OSError, ValidationError, ConfigError) as error:
            raise ArtifactError(
                f"{folder} has no readable {FILE}: run `dssm build_index` again"
            ) from error
        return Chosen(choice, member, member.load(folder))

    def search(
        self, index: Chosen, queries: Floats, k: int, allowed: Bools | None = None
    ) -> tuple[Ints, Floats]:
        """Rows and scores [B, k], best first, from the chosen index."""
        return index.member.search(index.index, queries, k, allowed)

    def _tune(
        self, asked: measure.Sample, built: Chosen, beat: IndexTrial
    ) -> tuple[list[IndexTrial], IndexTrial | None]:
        """All trials of a built index, and the one of least effort that finds enough (None: none
        does and is fast).
        """
        trials: list[IndexTrial] = []
        effort = str(built.member.effort)
        least = built.member.least_effort(asked.k)

        @cache
        def trial(value: int) -> IndexTrial:
            choice = _choose(built.choice.kind, **{**built.choice.settings, effort: value})
            trials.append(_try(asked, Chosen(choice, _member(choice), built.index)))
            return trials[-1]

        good = least_effort(trial, self.min_recall, beat.queries_per_s, least, len(asked.vectors))
        sizes = ", ".join(f"{name} {value}" for name, value in built.choice.settings.items())
        says = (
            f"{good.recall:.3f} with {effort} {good.settings[effort]}:"
            f" {good.queries_per_s:,.0f} queries/s"
            if good
            else "too slow"
        )
        log.info(
            "%s, %s: recall@%d of %g or more %s",
            built.choice.kind,
            sizes,
            asked.k,
            self.min_recall,
            says,
        )
        return trials, good


def plans(kinds: tuple[str, ...], items: int) -> Iterator[Member]:
    """The indexes to build for a catalogue of `items`: each kind at each of its sizes."""
    for kind in kinds:
        for settings in families.load(INDEXES, kind).sizes(items):
            yield _choose(kind, **settings)


def least_effort(
    trial: Callable[[int], IndexTrial], min_recall: float, beat: float, least: int, most: int
) -> IndexTrial | None:
    """The trial of the smallest effort that finds enough, to an eighth of the effort; more effort
    never finds less.

    Doubling first, so that nothing slow is tried before it is needed. None once a trial that does
    not find enough answers fewer queries a second than `beat` does (more effort is slower still),
    or at `most`.
    """
    low, high = 0, least
    while (last := trial(high)).recall < min_recall:
        if last.queries_per_s < beat or high >= most:
            return None
        low, high = high, 2 * high
    while high - low > max(1, low // 8) and high > least:
        middle = (low + high) // 2
        low, high = (low, middle) if trial(middle).recall >= min_recall else (middle, high)
    return trial(high)


def _choose(kind: str, **settings: Any) -> Member:
    return Member.model_validate({"kind": kind, **settings})


def _member(choice: Member) -> Index:
    member: Index = families.build(INDEXES, choice)
    return member


def _try(asked: measure.Sample, built: Chosen) -> IndexTrial:
    recall, rate = asked.measure(built.member, built.index)
    return IndexTrial(built.choice.kind, built.choice.settings, round(recall, 4), round(rate, 1))
