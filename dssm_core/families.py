"""Families of interchangeable parts, by name.

A family is a dict ``{"name": "module:Class"}``. A member is a frozen pydantic model: its fields are
its settings, its methods and class variables those of the family's Protocol. A member is imported
when it is used, so that a Dag file lists names without importing torch.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from dssm_core.errors import ConfigError, shown

PACKAGE = Path(__file__).parent
MAX_INT = 2**63 - 1

SOURCES = {
    "delimited": "dssm_core.data.sources.delimited:Delimited",
    "delta": "dssm_core.data.sources.delta:Delta",
    "globo": "dssm_core.data.sources.globo:Globo",
    "iceberg": "dssm_core.data.sources.iceberg:Iceberg",
    "json_lines": "dssm_core.data.sources.json_lines:JsonLines",
    "landed": "dssm_core.data.sources.landed:LandedDays",
    "movielens": "dssm_core.data.sources.movielens:MovieLens",
    "parquet": "dssm_core.data.sources.parquet:Parquet",
    "sequences": "dssm_core.data.sources.sequences:Sequences",
    "sql": "dssm_core.data.sources.sql_database:SqlDatabase",
    "synthetic": "dssm_core.data.sources.synthetic:Synthetic",
    "tencent": "dssm_core.data.sources.tencent:Tencent",
}

SPLITS = {
    "days": "dssm_core.data.splits.days:Days",
    "fixed": "dssm_core.data.splits.fixed:Fixed",
    "holdout": "dssm_core.data.splits.holdout:Holdout",
    "last_n": "dssm_core.data.splits.last_n:LastN",
    "leave_one_out": "dssm_core.data.splits.leave_one_out:LeaveOneOut",
}

TOWERS = {
    "linear": "dssm_core.models.towers.linear:LinearTower",
    "mlp": "dssm_core.models.towers.mlp:Mlp",
    "recurrent": "dssm_core.models.towers.recurrent:Recurrent",
    "senet": "dssm_core.models.towers.senet:Senet",
    "sequence": "dssm_core.models.towers.sequence:Sequence",
    "youtube": "dssm_core.models.towers.youtube:Youtube",
}

SAMPLERS = {
    "active": "dssm_core.sampling.samplers.active:Active",
    "exposed": "dssm_core.sampling.samplers.exposed:Exposed",
    "frequency_bands": "dssm_core.sampling.samplers.frequency_bands:FrequencyBands",
    "hard": "dssm_core.sampling.samplers.hard:Hard",
    "in_batch": "dssm_core.sampling.samplers.in_batch:InBatch",
    "mixed": "dssm_core.sampling.samplers.mixed:Mixed",
    "popularity": "dssm_core.sampling.samplers.popularity:Popularity",
    "ralm": "dssm_core.sampling.samplers.ralm:Ralm",
    "rank_suppressed": "dssm_core.sampling.samplers.rank_suppressed:RankSuppressed",
    "uniform": "dssm_core.sampling.samplers.uniform:Uniform",
    "unseen": "dssm_core.sampling.samplers.unseen:Unseen",
}

LOSSES = {
    "bce": "dssm_core.training.losses.bce:Bce",
    "bpr": "dssm_core.training.losses.bpr:Bpr",
    "ccl": "dssm_core.training.losses.ccl:Ccl",
    "full_softmax": "dssm_core.training.losses.full_softmax:FullSoftmax",
    "gbce": "dssm_core.training.losses.gbce:Gbce",
    "in_batch_softmax": "dssm_core.training.losses.in_batch_softmax:InBatchSoftmax",
    "sampled_softmax": "dssm_core.training.losses.sampled_softmax:SampledSoftmax",
    "triplet": "dssm_core.training.losses.triplet:Triplet",
}

INDEXES = {
    "annoy": "dssm_core.retrieval.indexes.annoy:Annoy",
    "auto": "dssm_core.retrieval.indexes.auto:Auto",
    "faiss_flat": "dssm_core.retrieval.indexes.faiss_flat:FaissFlat",
    "faiss_hnsw": "dssm_core.retrieval.indexes.faiss_hnsw:FaissHnsw",
    "faiss_ivf": "dssm_core.retrieval.indexes.faiss_ivf:FaissIvf",
}

BASELINES = {
    "hot": "dssm_core.evaluation.baselines.hot:Hot",
    "recent_hot": "dssm_core.evaluation.baselines.recent_hot:RecentHot",
    "itemcf": "dssm_core.evaluation.baselines.itemcf:ItemCf",
    "swing": "dssm_core.evaluation.baselines.swing:Swing",
    "als": "dssm_core.evaluation.baselines.als:Als",
    "ease": "dssm_core.evaluation.baselines.ease:Ease",
}


class Choice(Protocol):
    """What a config says of a member: `kind`, and the settings beside it (config.Member)."""

    @property
    def kind(self) -> str:
        """The member's name in its family."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """The member's own settings."""
        ...


def did_you_mean(name: str, valid: list[str]) -> str:
    """A hint for a misspelt name: the closest valid name, else all of them."""
    if not valid:
        return "there are none, leave it out."
    same = [other for other in valid if other.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, valid, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(sorted(valid))}."


def load(family: Mapping[str, str], kind: str) -> type[Any]:
    """The class of the member called `kind`. Raises ConfigError if there is none."""
    if kind not in family:
        raise ConfigError(f"unknown kind {kind!r}: {did_you_mean(kind, list(family))}")
    member: type[Any] = named(family[kind])
    return member


def named(path: str) -> Any:
    """The object that `module:name` names. Imports the module."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@cache
def summary(path: str) -> str:
    """The first sentence of the docstring of the class that `module:Class` names, without the dot.
    It is read from the source, because importing a member can take seconds.
    """
    module, _, name = path.partition(":")
    file = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    body = ast.parse(file.read_text(encoding="utf-8")).body
    classes = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
    text = " ".join((ast.get_docstring(next(classes)) or "").split())
    first = text.replace("et al.", "et al").partition(". ")[0]
    return first.removesuffix(".").replace("`", "")


def build(family: Mapping[str, str], choice: Choice) -> Any:
    """The chosen member with its settings. Raises ConfigError if there is no member of that name or
    a number is not finite, and pydantic's ValidationError if a setting is wrong.
    """
    member = load(family, choice.kind)(**choice.settings)
    if improper := list(improper_numbers(member)):
        raise ConfigError("; ".join(improper))
    return member


def improper_numbers(settings: Any, path: str = "") -> Iterator[str]:
    """A sentence for each number in settings that is not finite or does not fit 64 bits.

    settings: a model, mapping or list. path: where it stands in the config, dotted.
    """
    if isinstance(settings, float) and not math.isfinite(settings):
        yield f"{path} is {settings}: give a finite number"
    elif isinstance(settings, int) and abs(settings) > MAX_INT:
        yield f"{path} is {shown(settings)}: give a number of at most {MAX_INT}"
    elif not isinstance(settings, str):
        for key, value in _parts(settings):
            yield from improper_numbers(value, f"{path}.{key}".lstrip("."))


def _parts(settings: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(settings, BaseModel):
        return settings
    if isinstance(settings, Mapping):
        return settings.items()
    return enumerate(settings) if isinstance(settings, list | tuple) else ()


def problems(member: Any, config: Any) -> Iterator[str]:
    """A sentence for each setting of a config that does not go with a member.

    This is what the member's own `problems(config)` says; a member that goes with everything does
    not define it.
    """
    if hasattr(member, "problems"):
        yield from member.problems(config)
