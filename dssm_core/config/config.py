"""The settings of a run: frozen, complete, and refused as a whole when anything in them is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dssm_core import families
from dssm_core.columns import ITEM, LABEL, USER
from dssm_core.config.yaml_files import read_yaml
from dssm_core.data.splits import SPLITS, Split
from dssm_core.errors import ConfigError
from dssm_core.families import BASELINES, INDEXES, LOSSES, SAMPLERS, SOURCES, TOWERS
from dssm_core.metrics import METRICS

Pooling = Literal["sum", "mean", "max", "attention"]
Normalising = Literal["standard", "log", "rank", "none"]
SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
REPORTED = (
    "served",
    "exact",
    "daily",
    "ceiling",
    "champion",
    "all",
    "queries",
)  # who else stands in the gate's report


class Section(BaseModel):
    """A part of the config: unknown keys are errors, nothing changes after it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(BaseModel):
    """The choice of one member of a family, with that member's own settings beside `kind`."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: str

    @property
    def settings(self) -> dict[str, Any]:
        """The member's own settings, without `kind`."""
        return dict(self.__pydantic_extra__ or {})


class Named(Member):
    """One of several members, by kind alone or with settings; `name` tells two of one kind apart
    where they are reported.
    """

    name: str

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        value = {"kind": value} if isinstance(value, str) else value
        return (
            {"name": value["kind"], **value}
            if isinstance(value, Mapping) and "kind" in value
            else value
        )

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if not SAFE_NAME.fullmatch(value) or value in REPORTED:
            raise ValueError(
                f"{value!r} names a row of the report: use a-z, 0-9, - and _ only, and not {', '.join(REPORTED)}"
            )
        return value


class Feature(Section):
    """One feature column.

    kind: `categorical` (an id), `multi` (several ids in one cell, see `separator`), `text` (letter
    trigrams of its words, as in the DSSM paper), `numeric`, `target_mean` (how much better than all
    rows the rows with the column's value did so far; the column may be the id itself).
    dim: width of the embedding. buckets: hash into so many rows instead of fitting a vocabulary:
    for vocabularies that are open or too large, and always for text (30,000 if not said). pooling:
    of the several values into one field. most: values of a row that are kept, the first ones.
    normaliser: of a number, fitted on train (see normalise.Normaliser).
    shares: the item column (or `item_id`) whose vocabulary and embedding this one uses, such as a
    user's interests in the
    categories of items. target: the column of interactions that is averaged, `label` or a number
    such as a rating;
    smoothing: so many rows of the general mean are added to each value's own.
    """

    column: str
    kind: Literal["categorical", "multi", "text", "numeric", "target_mean"]
    separator: str = "|"
    dim: Annotated[int, Field(ge=1)] = 8
    buckets: Annotated[int, Field(ge=1)] | None = None
    pooling: Pooling = "mean"
    most: Annotated[int, Field(ge=1)] = 100
    normaliser: Normalising = "standard"
    shares: str | None = None
    target: str = LABEL
    smoothing: Annotated[float, Field(gt=0)] = 10.0

    @model_validator(mode="after")
    def _settings_of_its_kind(self) -> Feature:
        fields = type(self).model_fields
        changed = [
            name
            for name in fields
            if name not in ("column", "kind") and getattr(self, name) != fields[name].default
        ]
        if idle := [name for name in changed if name not in SETTINGS_OF[self.kind]]:
            raise ValueError(
                f"{self.kind} column {self.column!r} has no use for {', '.join(idle)}: leave it out"
            )
        if self.shares and (twice := [name for name in ("dim", "buckets") if name in changed]):
            raise ValueError(
                f"column {self.column!r} shares the table of {self.shares!r}: leave out {' and '.join(twice)}"
            )
        return self

    @property
    def in_table(self) -> bool:
        """Whether its column must stand in a users or items table: a mean of the ids themselves
        needs none.
        """
        return not (self.kind == "target_mean" and self.column in (USER, ITEM))

    @property
    def rows(self) -> int | None:
        """Hash buckets of its table; None where a vocabulary is fitted."""
        return self.buckets or (TRIGRAM_BUCKETS if self.kind == "text" else None)


TRIGRAM_BUCKETS = 30_000  # the DSSM paper counts 30,621 trigrams in 500,000 words
SETTINGS_OF = {
    "categorical": ("dim", "buckets", "shares"),
    "multi": ("dim", "buckets", "shares", "separator", "pooling", "most"),
    "text": ("dim", "buckets", "shares", "pooling", "most"),
    "numeric": ("normaliser",),
    "target_mean": ("target", "smoothing"),
}


class FeatureColumns(Section):
    """Which columns describe users, items, and the situation of a user's latest interaction."""

    user: tuple[Feature, ...] = ()
    item: tuple[Feature, ...] = ()
    context: tuple[Feature, ...] = ()

    @field_validator("context")
    @classmethod
    def _categorical(cls, value: tuple[Feature, ...]) -> tuple[Feature, ...]:
        if wrong := [feature.column for feature in value if feature.kind != "categorical"]:
            raise ValueError(
                f"context columns must be categorical; {', '.join(wrong)} is not: bin it in the log first"
            )
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> FeatureColumns:
        if problems := [*self._twice(), *self._lenders()]:
            raise ValueError("; ".join(problems))
        return self

    def _twice(self) -> Iterator[str]:
        for side in ("user", "item", "context"):
            names = [
                feature.column for feature in getattr(self, side) if feature.kind != "target_mean"
            ]
            yield from (
                f"{side} column {name!r} is named twice: once is enough"
                for name in sorted(set(names))
                if names.count(name) > 1
            )

    def _lenders(self) -> Iterator[str]:
        for side in ("user", "item", "context"):
            for feature in getattr(self, side):
                if feature.shares and not self._may_share(side, feature):
                    have = [ITEM, *(other.column for other in self.item if not other.shares)]
                    yield (
                        f"{side} column {feature.column!r} cannot share the table of {feature.shares!r}: a user's column may share an"
                        f" item's, words with words and ids with ids, an item's only {ITEM}; the item columns are {', '.join(have)}"
                    )

    def _may_share(self, side: str, feature: Feature) -> bool:
        lender = self.lender(feature)
        if feature.shares == ITEM:
            return side != "context" and feature.kind != "text"
        alike = (
            lender is not None
            and lender.kind != "numeric"
            and (lender.kind == "text") == (feature.kind == "text")
        )
        return side == "user" and alike and lender is not None and not lender.shares

    def targets(self) -> list[str]:
        """The columns of interactions that target means are taken of, `label` left out: every log
        has one.
        """
        return sorted(
            {
                feature.target
                for feature in (*self.user, *self.item)
                if feature.kind == "target_mean"
            }
            - {LABEL}
        )

    def lender(self, feature: Feature) -> Feature | None:
        """The item column whose table a feature shares; None where it has its own, or the items'
        ids.
        """
        return next(
            (
                other
                for other in self.item
                if other.column == feature.shares and other.kind != "target_mean"
            ),
            None,
        )


class Data(Section):
    """Where the log is and what its columns mean. `source` is a member of the sources family."""

    source: Member
    timezone: str = "UTC"
    positive: str = "label == 1"
    labels: tuple[float, ...] = (0, 1)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(
                f"unknown time zone {value!r}; use an IANA name such as America/Sao_Paulo or UTC"
            )
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which a day begins."""
        return ZoneInfo(self.timezone)


class DriftLimits(Section):
    """How far a day may lie from the days before it in the window before a warning is given; null
    asks nothing.

    volume: of its rows from their mean, a share of the mean. new_items: of the share of its rows
    whose item the day before did not have
    from their mean share. features: of a feature column's values from all of theirs, Jensen-Shannon
    divergence in bits (see drift.py); not of days with too few rows to tell it from chance.
    """

    volume: Annotated[float, Field(gt=0)] | None = 0.5
    new_items: Annotated[float, Field(gt=0, le=1)] | None = 0.2
    features: Annotated[float, Field(gt=0, le=1)] | None = 0.1


class DriftRefusals(DriftLimits):
    """The same distances; beyond them the log is refused. Nothing is unless said."""

    volume: Annotated[float, Field(gt=0)] | None = None
    new_items: Annotated[float, Field(gt=0, le=1)] | None = None
    features: Annotated[float, Field(gt=0, le=1)] | None = None


class DayDrift(Section):
    """Drift from day to day, of the split `days`; other splits have no days."""

    warn: DriftLimits = DriftLimits()
    fail: DriftRefusals = DriftRefusals()


class Validation(Section):
    """What the data must be like. `max_quarantine_share` is a share of the rows in the window (0 to
    1).

    min_rows_per_day: of each day of the split `days`; other splits have no days.
    """

    max_quarantine_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    min_rows_per_day: Annotated[int, Field(ge=0)] = 1
    ranges: dict[str, tuple[float | None, float | None]] = {}
    drift: DayDrift = DayDrift()


class History(Section):
    """A user's latest positives before an event, oldest first: `length` of them at most.

    pools: how the towers without a sequence of their own see them (mean, sum, max, last, attention:
    mean by a learned
    weight, decay: mean by decay ** places back, one field for each of `decays`, which learn_decays
    makes parameters).
    fields: an item of a history is a linear map of its own columns (features.columns.item) added to
    its id's embedding.
    """

    length: Annotated[int, Field(ge=0)] = 20
    pools: tuple[Literal["mean", "sum", "max", "last", "decay", "attention"], ...] = (
        "mean",
        "decay",
    )
    decays: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.7,)
    learn_decays: bool = False
    fields: bool = False


class Activity(Section):
    """Point-in-time item activity: log counts over `windows_h` hours, as of the latest refresh
    before an event.

    refresh_h: hours between refreshes of the served index. Training sees activity exactly that
    stale, so set it to how
    often embeddings are exported: 24 for a daily index, 1 for an hourly one.
    audience: the contexts (features.columns.context) of so many latest clicks on an item are pooled
    into its features: who takes an article up first tells much of what becomes of it. 0 leaves it
    out.
    """

    enabled: bool = True
    windows_h: tuple[Annotated[int, Field(ge=1)], ...] = (1, 3, 6, 24)
    refresh_h: Annotated[int, Field(ge=1)] = 24
    audience: Annotated[int, Field(ge=0)] = 10


class Features(Section):
    """Feature columns, history and activity.

    id_dim: width of an item id's embedding, shared by items and histories (and of what a sequence
    tower computes in).
    init_std: standard deviation of new embeddings; smaller ones turn faster, which suits cosine
    over long training.
    user_id_dim: width of a user id's; 0 leaves it out, so that users unknown in training are
    answered by what they did.
    max_embedding_gib: the largest embedding table that is not refused.
    item_ids: false leaves item ids out, in the item tower and in histories: items are told apart by
    their columns alone.
    catalogue: the items that are embedded and served, those with a positive in train or all of the
    items table; the latter by their columns alone, as the id of an item that nobody took has
    learned nothing.
    """

    columns: FeatureColumns = FeatureColumns()
    history: History = History()
    activity: Activity = Activity()
    id_dim: Annotated[int, Field(ge=1)] = 32
    init_std: Annotated[float, Field(gt=0)] = 0.05
    user_id_dim: Annotated[int, Field(ge=0)] = 0
    max_embedding_gib: Annotated[float, Field(gt=0)] = 2.0
    item_ids: bool = True
    catalogue: Literal["positives", "table"] = "positives"

    @model_validator(mode="after")
    def _means_have_refreshes(self) -> Features:
        means = [
            feature.column
            for feature in (*self.columns.user, *self.columns.item)
            if feature.kind == "target_mean"
        ]
        if means and not self.activity.enabled:
            raise ValueError(
                f"target_mean of {', '.join(means)} is taken as of each refresh, which there is only with item activity:"
                " set features.activity.enabled to true, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _hashed_tables_fit(self) -> Features:
        sides = (self.columns.user, self.columns.item, self.columns.context)
        sizes = [
            (feature.column, feature.rows, feature.dim)
            for side in sides
            for feature in side
            if feature.rows
        ]
        if problems := too_large(sizes, self.max_embedding_gib):
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _items_are_told_apart(self) -> Features:
        if self.history.fields and not self.columns.item:
            raise ValueError(
                "history.fields shows columns of items, but columns.item names none: name some, or set it to false"
            )
        if not self.item_ids and not self.columns.item:
            raise ValueError(
                "item_ids is false and columns.item names none: nothing would tell items apart"
            )
        if not self.item_ids and self.history.length and not self.history.fields:
            raise ValueError(
                "without item_ids a history shows nothing: set history.fields to true, or history.length to 0"
            )
        if self.catalogue == "table" and self.item_ids:
            raise ValueError(
                "catalogue 'table' serves items that nobody took in train, whose ids are noise: set item_ids to false"
            )
        return self


def too_large(tables: Iterable[tuple[str, int, int]], max_gib: float) -> list[str]:
    """A sentence for each embedding table (column, rows, width) whose float32 weights take more
    than `max_gib`.
    """
    return [
        f"{column!r} needs an embedding table of {rows:,} x {width} = {gib:.3g} GiB (features.max_embedding_gib is {max_gib:g}; training"
        " takes four times the weights): hash the column into fewer `buckets`, take a smaller dim (id_dim for ids), or raise the limit"
        for column, rows, width in tables
        if (gib := rows * width * 4 / 2**30) > max_gib
    ]


class Model(Section):
    """`dim` of the shared space; similarity (`cosine` of unit vectors, or `dot`) divided by
    `temperature`, learned on request.
    """

    dim: Annotated[int, Field(ge=2)] = 64
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: Annotated[float, Field(gt=0)] = 0.07
    learn_temperature: bool = True


class Train(Section):
    """How long and how fast. `device: auto` takes a GPU where there is one.

    The last train day (or each user's last item, where the split has no days) validates: `epochs`
    at most, judged by `metric` every `judge_every` epochs, stopping after `patience` of these
    without a better one; then both towers are trained anew on everything for the epochs that were
    best (refit: false keeps the best towers of the selection).
    target: what a place of a history is trained toward where item activity is off, the `next` item
    or a random `future` one; or, for data without an order, the `rest`: all of a user's items but a
    random part that is the history (with features.history.length 0 all of them). ema_decay: the
    weights that are evaluated and exported are an exponential moving average over steps (0 takes
    the latest). sparse_rows: embedding tables with more rows than this are neither averaged,
    decayed nor clipped, and only the rows of a batch are updated (lazy Adam), so that a step's cost
    does not grow
    with the vocabulary. id_dropout: the share of a batch's items whose id the item tower is not
    shown, so that it learns to place by its features alone what a refresh will add after training.
    """

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_size: Annotated[int, Field(ge=2)] = 1024
    negatives: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    patience: Annotated[int, Field(ge=1)] = 2
    metric: str = "recall@200"
    judge_every: Annotated[int, Field(ge=1)] = 1
    refit: bool = True
    target: Literal["next", "future", "rest"] = "next"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 30.0
    sparse_rows: Annotated[int, Field(ge=0)] = 200_000
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("metric")
    @classmethod
    def _metric_at_k(cls, value: str) -> str:
        name, _, k = value.partition("@")
        if name not in METRICS or not k.isdecimal() or int(k) < 1:
            raise ValueError(
                f"write a metric and a cut-off, such as recall@200 or ndcg@10; metrics: {', '.join(METRICS)}"
            )
        return value


class Rolling(Section):
    """The test days with an index that is refreshed every `refresh_h` hours, beside the one of the
    start: see rolling.py.
    """

    refresh_h: Annotated[int, Field(ge=1)] = 1


class Evaluation(Section):
    """Cut-offs of the ranked lists, and resamples of users for the confidence intervals.

    exclude_seen: items of a query's own history are left out of everybody's answers.
    rolling: also answer each part of the test days by what was known when it began (`{}` for
    hours); null leaves it out.
    baselines: by name, or with settings: `[hot, {kind: recent_hot, windows_h: [6, 24]}]`; `name`
    where one kind comes twice.
    """

    ks: tuple[Annotated[int, Field(ge=1)], ...] = (20, 50, 200)
    bootstrap: Annotated[int, Field(ge=10)] = 500
    exclude_seen: bool = False
    rolling: Rolling | None = None
    baselines: tuple[Named, ...] = (
        Named(kind="hot", name="hot"),
        Named(kind="recent_hot", name="recent_hot"),
    )

    @field_validator("baselines")
    @classmethod
    def _distinct(cls, value: tuple[Named, ...]) -> tuple[Named, ...]:
        names = [member.name for member in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"{', '.join(twice)} comes twice: give each a name of its own, such as {{kind: {twice[0]}, name: {twice[0]}_2}}"
            )
        return value


class Gate(Section):
    """What the served index must reach; all on recall@`k` of warm users and items, shares of 1.

    protocol: judge the index as it is exported (`daily`), or refreshed through the test days
    (`rolling`, see evaluation.rolling).
    promote_margin: so far above the champion (or, without one, above the best baseline) a version
    is promoted without a person.
    """

    k: Annotated[int, Field(ge=1)] = 200
    protocol: Literal["daily", "rolling"] = "daily"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.1
    min_index_ratio: Annotated[float, Field(ge=0, le=1)] = 0.98
    champion_tolerance: Annotated[float, Field(ge=0, le=1)] = 0.01
    promote_margin: Annotated[float, Field(gt=0, le=1)] | None = None


class Config(Section):
    """Everything that decides a run's numbers."""

    name: str
    seed: int = 42
    data: Data
    validation: Validation = Validation()
    split: Split
    features: Features = Features()
    sampler: Member = Member(kind="active")  # not asked by a loss over the whole catalogue
    tower: Member = Member(kind="mlp")
    item_tower: Member | None = None
    loss: Member = Member(kind="sampled_softmax")
    model: Model = Model()
    train: Train = Train()
    index: Member = Member(kind="faiss_flat")
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()

    @field_validator("name")
    @classmethod
    def _safe_name(cls, value: str) -> str:
        if not SAFE_NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} names folders and a registered model: use a-z, 0-9, - and _ only"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Config:
        if problems := [*_gate_problems(self), *_time_problems(self), *_history_problems(self)]:
            raise ValueError("; ".join(problems))
        return self

    @property
    def model_name(self) -> str:
        """The registered model's name in MLflow."""
        return f"dssm-{self.name}"


def _gate_problems(config: Config) -> list[str]:
    k, problems = config.gate.k, []
    if k not in config.evaluation.ks:
        problems.append(f"evaluation.ks must hold {k}: the gate judges recall@{k} (gate.k)")
    if config.gate.protocol == "rolling" and config.evaluation.rolling is None:
        problems.append(
            "gate.protocol is 'rolling' but nothing rolls: set evaluation.rolling.refresh_h, such as 1, or take daily"
        )
    if config.evaluation.rolling and config.split.kind != "days":
        problems.append(
            f"evaluation.rolling goes through test days, which split {config.split.kind!r} has not: leave it out"
        )
    return problems


def _history_problems(config: Config) -> list[str]:
    """Settings of history, target and similarity that would have no effect, or nothing to work on."""
    problems, history, kind = [], config.features.history, config.tower.kind
    if not history.length and kind in ("sequence", "recurrent"):
        problems.append(
            f"tower {kind!r} reads histories, but features.history.length is 0: give it 20 or more, or take tower mlp"
        )
    if "decay" in history.pools and not history.decays:
        problems.append(
            "features.history.pools names decay, but features.history.decays is empty: give a decay such as 0.7"
        )
    if history.learn_decays and "decay" not in history.pools:
        problems.append(
            "features.history.learn_decays has nothing to learn: add decay to features.history.pools"
        )
    target = config.train.target
    if target != "next" and config.features.activity.enabled:
        problems.append(
            f"train.target {target!r} is for training by place: set features.activity.enabled to false, or target to next"
        )
    if target == "rest" and config.features.columns.context:
        problems.append(
            "train.target 'rest' knows no latest context: leave features.columns.context out, or set target to next"
        )
    if config.train.id_dropout and not config.features.item_ids:
        problems.append(
            "train.id_dropout hides item ids, which features.item_ids leaves out already: set it to 0"
        )
    if config.model.similarity == "dot" and config.index.kind == "annoy":
        problems.append(
            "index 'annoy' ranks by cosine, not by model.similarity 'dot': take a faiss index, or cosine"
        )
    return problems


def _time_problems(config: Config) -> list[str]:
    """What goes by the clock, where the split has no cutoff."""
    if config.split.by_time:
        return []
    problems, no_cutoff = [], f"split {config.split.kind!r} has no cutoff in time"
    if config.validation.drift.fail != DriftRefusals():
        problems.append(f"{no_cutoff} and so no days to compare: leave validation.drift.fail out")
    if config.features.activity.enabled:
        problems.append(
            f"{no_cutoff}: set features.activity.enabled to false and sampler.kind to another than active"
        )
    known = [member for member in config.evaluation.baselines if member.kind in BASELINES]
    if timed := [
        member.name
        for member in known
        if getattr(families.load(BASELINES, member.kind), "needs_time", False)
    ]:
        problems.append(
            f"{no_cutoff}: leave {', '.join(timed)} out of evaluation.baselines, such as [hot]"
        )
    return problems


FAMILIES = {
    "data.source": SOURCES,
    "sampler": SAMPLERS,
    "tower": TOWERS,
    "item_tower": TOWERS,
    "loss": LOSSES,
    "index": INDEXES,
    "evaluation.baselines": BASELINES,
}


def read_config(
    path: Path | str, data: Path | str | None = None, overrides: Iterable[str] = ()
) -> Config:
    """Read a YAML file and what it extends, apply `key.path=value` overrides (values are YAML), and
    check all of it.

    `extends: other.yaml` (relative to the file) takes that file's settings first and lays this
    file's over them, section by section.
    data: folder or file that replaces `data.source.path`. Raises ConfigError naming every wrong
    setting at once.
    """
    raw = read_yaml(path)
    for override in overrides:
        _override(raw, override)
    if data is not None:
        _set(raw, ["data", "source", "path"], str(data))
    return parse_config(raw)


def parse_config(raw: Mapping[str, Any]) -> Config:
    """Check a mapping and every chosen family member's own settings; ConfigError lists all that is
    wrong.
    """
    try:
        config, problems = Config.model_validate(raw), []
    except ValidationError as error:
        config, problems = None, [_explain(error, "", Config)]
    problems += [problem for where in FAMILIES for problem in _check_members(raw, where)]
    if config and not problems:
        problems = _needs_times(config) + _tower_problems(config) + _misfits(config)
    if problems or config is None:
        raise ConfigError("\n".join(problems))
    return config


def _needs_times(config: Config) -> list[str]:
    """What the config asks of time where the source has none: an order is enough for histories, but
    not for hours.
    """
    source = families.load(SOURCES, config.data.source.kind)
    if not config.features.activity.enabled or getattr(source, "timed", True):
        return []
    return [
        f"source {config.data.source.kind!r} has no times, which item activity is counted by: set features.activity.enabled to false"
    ]


def _tower_problems(config: Config) -> list[str]:
    """Attention heads that cannot share the width of a history."""
    heads, width = getattr(families.build(TOWERS, config.tower), "heads", 1), config.features.id_dim
    return (
        [f"tower.heads {heads} does not divide features.id_dim {width}, the width it works in"]
        if width % heads
        else []
    )


def _misfits(config: Config) -> list[str]:
    """Why this loss, this sampler and these features cannot work together; each with what to do
    instead.
    """
    loss, sampler = families.build(LOSSES, config.loss), config.sampler
    if (
        loss.whole_catalogue
    ):  # compares with every item: the sampler, which the form always names, is not asked
        return []
    kinds, problems = _kinds(sampler.model_dump()), []
    if config.train.target != "next" and (loss.in_batch or "in_batch" in kinds):
        target = config.train.target
        problems.append(
            f"in-batch candidates have no exact log-Q under train.target {target!r}: take sampler uniform, or target next"
        )
    if (
        config.model.similarity == "dot"
        and loss.on_scores
        and config.loss.kind in ("ccl", "triplet")
    ):
        problems.append(
            f"loss {config.loss.kind!r} has its margin in cosines: set model.similarity to cosine"
        )
    if "active" in kinds and not config.features.activity.enabled:
        problems.append(
            "sampler 'active' draws by activity: set features.activity.enabled to true or take another sampler"
        )
    if config.loss.kind == "gbce" and kinds - {"uniform", "unseen", "mixed"}:
        problems.append(
            f"loss 'gbce' is calibrated for uniform negatives, not for sampler {sampler.kind!r}: take sampler 'uniform' or loss 'bce'"
        )
    if config.loss.kind == "bce" and loss.log_q and not _draws_positives(sampler.model_dump()):
        problems.append(
            f"loss 'bce' corrects a positive by how often sampler {sampler.kind!r} draws it, which is never: set loss.log_q to false"
        )
    if loss.in_batch and sampler.kind == "in_batch" and sampler.settings:
        problems.append(
            f"loss {config.loss.kind!r} brings the batch with settings of its own: move those of sampler 'in_batch' to loss"
        )
    return problems


def _draws_positives(sampler: Mapping[str, Any]) -> bool:
    """Whether a user's own positives can be drawn for that user."""
    parts = sampler.get("parts", [])
    return (
        any(map(_draws_positives, parts))
        if parts
        else sampler["kind"] not in ("exposed", "hard", "unseen")
    )


def _kinds(sampler: Mapping[str, Any]) -> set[str]:
    """A sampler's kind and those that it draws through (`of`, `parts`)."""
    inner = [*sampler.get("parts", []), *([sampler["of"]] if "of" in sampler else [])]
    return {sampler["kind"]}.union(*map(_kinds, inner))


def _check_members(raw: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with the settings of the member, or of each of a list, at a dotted path of
    FAMILIES.
    """
    node: Any = raw
    for key in where.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    listed = (
        [(f"{where}.{place}", _without_name(part)) for place, part in enumerate(node)]
        if isinstance(node, list | tuple)
        else []
    )
    checked = [_check_member(part, at, FAMILIES[where]) for at, part in listed or [(where, node)]]
    return [problem for problem in checked if problem]


def _without_name(node: Any) -> Any:
    """A list's member as one by itself: only its own settings beside `kind`."""
    if isinstance(node, str):
        return {"kind": node}
    return (
        {key: value for key, value in node.items() if key != "name"}
        if isinstance(node, Mapping)
        else node
    )


def _check_member(node: Any, where: str, family: Mapping[str, str]) -> str | None:
    """What is wrong with one member's settings; a default or no member is not."""
    if not isinstance(node, Mapping) or not isinstance(node.get("kind"), str):
        return None  # the default, or already named by pydantic
    member = Member.model_validate(node)
    try:
        families.build(family, member)
    except ValidationError as error:
        return _explain(error, where + ".", families.load(family, member.kind))
    except ConfigError as error:
        return f"{where}: {error}"
    return None


def _override(raw: dict[str, Any], override: str) -> None:
    key, sign, value = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override!r} is not key.path=value, such as train.epochs=3")
    try:
        _set(raw, key.split("."), yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {override!r}: {value!r} is not a YAML value; quote it, such as --set '{key}=\"{value}\"'"
        ) from error


def _set(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    *parents, last = keys
    node = raw
    for key in parents:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {'.'.join(keys)}: {key!r} holds a value, not a section")
    if last == "kind" and node.get("kind") != value:
        node.clear()  # another member: the old one's settings are not its own
    node[last] = value


def _explain(error: ValidationError, prefix: str, model: type[BaseModel]) -> str:
    return "\n".join(_sentence(dict(problem), prefix, model) for problem in error.errors())


def _sentence(problem: dict[str, Any], prefix: str, model: type[BaseModel]) -> str:
    loc = problem["loc"]
    if (
        loc[:1] == ("split",) and model is Config and len(loc) > 1
    ):  # pydantic names the chosen kind too
        problem, prefix, model = problem | {"loc": loc[2:]}, "split.", SPLITS[loc[1]]
        loc = loc[2:]
    where = (prefix + ".".join(str(part) for part in loc)).rstrip(".")
    if problem["type"] == "union_tag_invalid":
        tag = problem["ctx"]["tag"]
        return f"{where}: unknown kind {tag!r}: {families.did_you_mean(tag, list(SPLITS))}"
    if problem["type"] == "extra_forbidden":
        return (
            f"unknown key {where!r}: {families.did_you_mean(str(loc[-1]), _siblings(loc, model))}"
        )
    if problem["type"] == "missing":
        return f"{where!r} is missing: add it to the config or give --set {where}=…"
    text = problem["msg"].removeprefix("Value error, ")
    if isinstance(
        problem["input"], Mapping
    ):  # a section whose settings do not go together: they need not all be shown
        return f"{where}: {text}" if where else text
    return f"{where!r} is {problem['input']!r}: {text}"


def _siblings(loc: tuple[str | int, ...], model: Any) -> list[str]:
    """The keys that are known where an unknown one was met."""
    for part in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return [name for name in getattr(model, "model_fields", {}) if name != "kind"]
