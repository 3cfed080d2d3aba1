"""Recall and latency of the served index at other search efforts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_core import families
from dssm_core.config import Member
from dssm_core.evaluation.answers import ServedRun
from dssm_core.families import INDEXES
from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.indexes.protocol import Index

TIMED_QUERIES = 100
COMPARED = range(400, 200_001)  # numbers of vectors that inverted lists are built for
STEPS_DOWN = 4  # halvings of the effort
STEPS_UP = 1  # doublings of the effort


@dataclass(frozen=True)
class Timing:
    """An index at one search effort: recall@k against exact search, ms per query.

    exact: whether it is exact search.
    """

    label: str
    recall: float
    ms: float
    served: bool
    exact: bool


def timings(opened: ServedRun) -> list[Timing]:
    """The served index at its own and other efforts, the served one first.

    Where the served index is exact, inverted lists over the same vectors are measured beside it.
    """
    run = opened.run
    vectors = opened.items
    sample = measure.sample(
        vectors, opened.users[1:], measure.K, TIMED_QUERIES, run.config.seed, opened.exact.index
    )
    choice, index = served_choice(opened)
    found = [_timing(sample, choice, index, served=True)]
    if families.build(INDEXES, choice).exact and len(vectors) in COMPARED:
        choice = Member.model_validate({"kind": "faiss_ivf", "nprobe": 2**STEPS_DOWN})
        index = families.build(INDEXES, choice).build(np.asarray(vectors), run.config.seed)
        found.append(_timing(sample, choice, index))
    found += [_timing(sample, other, index) for other in other_efforts(choice, len(vectors))]
    return sorted(found, key=lambda timing: (not timing.served, timing.recall, timing.ms))


def served_choice(opened: ServedRun) -> tuple[Member, Any]:
    """The loaded index with the choice of its member: the configured one, or the one it chose."""
    served = opened.served
    return served.member.inner(served.index) or (opened.run.config.index, served.index)


def other_efforts(choice: Member, most: int) -> list[Member]:
    """The same index at half and double its search effort, and so on."""
    member: Index = families.build(INDEXES, choice)
    if member.effort is None:
        return []
    own = getattr(member, member.effort)
    least = member.least_effort(measure.K)
    values = {own * 2**step for step in range(-STEPS_DOWN, STEPS_UP + 1)} - {0, own}
    whole = [int(value) for value in values if value == int(value)]
    valid = sorted(value for value in whole if least <= value <= max(most, own))
    return [Member.model_validate({**choice.model_dump(), member.effort: value}) for value in valid]


def _timing(sample: measure.Sample, choice: Member, index: Any, served: bool = False) -> Timing:
    member: Index = families.build(INDEXES, choice)
    recall, queries_per_s = sample.measure(member, index)
    effort = f", {member.effort} {getattr(member, member.effort)}" if member.effort else ""
    return Timing(f"{choice.kind}{effort}", recall, 1000 / queries_per_s, served, member.exact)
