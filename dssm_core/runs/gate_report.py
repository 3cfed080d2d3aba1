"""The report of the gate as frozen models: what `gate.json` and the manifest of recall_gate hold.

The models read the JSON that older runs have written, and `as_json` returns it with the same keys
and values: a part that a run did not measure stays absent, a key without a field here is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, RootModel

if TYPE_CHECKING:
    from dssm_core.aliases import JSON
    from dssm_core.runs.run import Run

STEP = "recall_gate"
FEWEST_QUERIES = 30  # of a slice whose figures are shown
SERVED = "served index"
BEST_LIST = "best single list for all users"  # in hindsight; a personal model can pass it
POPULATIONS = {
    "warm": "users and items in the training set",
    "all": "all traffic, with new users and items",
}


class Interval(NamedTuple):
    """The 95 % confidence interval of a mean."""

    low: float
    high: float


class Scores(RootModel[dict[str, Any]]):
    """Figures of one answerer by name, such as `recall@200` and `recall@200_low`.

    Those of a baseline also hold what it chose when it was fitted (`window_h`, `seconds` …).
    """

    model_config = ConfigDict(frozen=True)

    def value(self, name: str) -> float | None:
        """The figure called `name`; None where it was not measured."""
        value: float | None = self.root.get(name)
        return value

    def interval(self, name: str) -> Interval | None:
        """The confidence interval of the figure called `name`; None where it was not measured."""
        low = self.value(f"{name}_low")
        high = self.value(f"{name}_high")
        return None if low is None or high is None else Interval(low, high)

    @property
    def recalls(self) -> list[str]:
        """The names of the recall figures, `recall@k` for each k, in the order of the config."""
        return [name for name in self.root if name.startswith("recall@") and name[-1].isdigit()]


class SliceScores(Scores):
    """The gate's recall in a slice of the test rows, and `queries`, the number of its queries."""

    @property
    def queries(self) -> int:
        """Number of queries in the slice."""
        return int(self.root["queries"])

    @property
    def too_few(self) -> bool:
        """Whether the slice has too few queries to say anything of the model."""
        return self.queries < FEWEST_QUERIES


class Stored(BaseModel):
    """A model that is stored as JSON: unknown keys are kept, absent ones stay absent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def as_json(self) -> JSON:
        """Plain JSON with the keys that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class Answers(Stored):
    """Scores on the same queries by who answered them; `baselines` by name."""

    served: Scores
    exact: Scores = Scores({})
    baselines: dict[str, Scores] = {}

    def best_baseline(self, metric: str) -> str | None:
        """The baseline with the highest `metric`; None where there is no baseline.

        A baseline that was not measured comes last.
        """

        def height(name: str) -> float:
            value = self.baselines[name].value(metric)
            return -1.0 if value is None or value != value else value

        return max(self.baselines, key=height, default=None)


class RefreshedAnswers(Answers):
    """`served`, `exact` and `baselines` are refreshed through the test days, `daily` is not.

    ceiling: the best list that all users could share, per refresh.
    """

    daily: Scores = Scores({})
    ceiling: Scores = Scores({})


class RollingReport(Stored):
    """The rolling protocol: a refresh every `refresh_h` hours.

    rows: test rows by slice; by_part: micro recall of all rows between two refreshes, by answerer.
    """

    refresh_h: int
    warm: RefreshedAnswers
    all: RefreshedAnswers | None = None
    new_items: RefreshedAnswers | None = None
    rows: dict[str, int] = {}
    by_part: dict[str, list[float | None]] = {}


class QueryCounts(Stored):
    """Number of queries: users and items in the training set (`warm`), and all traffic (`all`)."""

    warm: int
    all: int


class UserSample(Stored):
    """A sample of the users of the test set, drawn by `seed`: `asked` of all `users`."""

    asked: int
    users: int
    seed: int

    def __str__(self) -> str:
        """`a sample of 20,000 of 300,123 users, seed 42`."""
        return f"a sample of {self.asked:,} of {self.users:,} users, seed {self.seed}"


class Difference(Stored):
    """Served minus a rival on the same queries: the mean, and its interval from paired resamples.

    rival: what people call it; confidence: level of the interval, such as 0.95.
    """

    rival: str
    mean: float
    low: float
    high: float
    confidence: float


class ChampionReport(Stored):
    """The champion on the same queries; its figures lie beside the fields, see `scores`.

    all: on all traffic. slices are called `parts`; drift: of this run's window from the champion's;
    rolling, rolling_all: its scores when it is refreshed, where the gate judges these.
    not_comparable: why it was not measured although it could be: its figures would be no fair
    comparison.
    """

    version: str
    not_comparable: str = ""
    all: Scores = Scores({})
    parts: dict[str, SliceScores] = {}
    drift: dict[str, Any] = {}
    rolling: Scores = Scores({})
    rolling_all: Scores = Scores({})

    @property
    def scores(self) -> Scores:
        """The figures on the warm queries."""
        return Scores(self.model_extra or {})

    def of(self, protocol: str, population: str) -> Scores:
        """The figures by a protocol (`daily`, `rolling`) on a population (`warm`, `all`)."""
        daily = {"warm": self.scores, "all": self.all}
        refreshed = {"warm": self.rolling, "all": self.rolling_all}
        return (daily if protocol == "daily" else refreshed)[population]


class GateMetrics(Answers):
    """What the gate measured. `served`, `exact` and `baselines` are of the warm queries.

    ceiling: the best list that all users could share; all: all traffic, with new users and items;
    parts: slices of the test rows; sample: the users that were asked, None: all; pointwise: AUC,
    GAUC and log-loss. against_baseline: the best baseline, against_champion: the champion, on the
    queries that the gate judges.
    """

    ceiling: Scores = Scores({})
    all: Answers | None = None
    parts: dict[str, SliceScores] = {}
    queries: QueryCounts | None = None
    sample: UserSample | None = None
    pointwise: Scores | None = None
    rolling: RollingReport | None = None
    champion: ChampionReport | None = None
    against_baseline: Difference | None = None
    against_champion: Difference | None = None

    def answers(self, protocol: str, population: str) -> Answers | None:
        """The answers by a protocol (`daily`, `rolling`) on a population (`warm`, `all`); None
        where they were not measured.
        """
        if protocol == "daily":
            return self if population == "warm" else self.all
        if self.rolling is None:
            return None
        return self.rolling.warm if population == "warm" else self.rolling.all

    def systems(self, population: str) -> dict[str, Scores]:
        """The scores on a population by who answered, as people call it; empty where the population
        was not measured.
        """
        daily = self.answers("daily", population)
        if daily is None:
            return {}
        systems = {SERVED: daily.served, "exact search": daily.exact, **daily.baselines}
        if self.champion and not self.champion.not_comparable:
            champion = f"champion, version {self.champion.version}"
            systems[champion] = self.champion.of("daily", population)
        if population == "warm":
            systems[BEST_LIST] = self.ceiling
        if refreshed := self.answers("rolling", population):
            every = f"every {self.rolling.refresh_h} h" if self.rolling else ""
            systems[f"{SERVED}, {every}"] = refreshed.served
            systems |= {f"{name}, {every}": own for name, own in refreshed.baselines.items()}
            if self.champion and self.champion.rolling.root:
                systems[f"{champion}, {every}"] = self.champion.of("rolling", population)
        return systems


class GateReport(Stored):
    """The verdict with a sentence for each rule, and what it is based on.

    met: whether each rule is met; empty in reports of older versions.
    """

    passed: bool
    reasons: list[str]
    metrics: GateMetrics
    met: list[bool] = []

    @property
    def marked(self) -> list[str]:
        """The sentences, with ✓ where the rule is met and ✗ where it is not."""
        if not self.met:
            return self.reasons
        marks = ("✓" if met else "✗" for met in self.met)
        return [f"{mark} {reason}" for mark, reason in zip(marks, self.reasons, strict=True)]


def read_gate_report(run: Run) -> GateReport:
    """The report of a run's finished gate; ArtifactError where the gate has not run."""
    return GateReport.model_validate(run.need(STEP).info)


def find_gate_report(run: Run) -> GateReport | None:
    """The report of a run's gate; None where the gate has not run."""
    manifest = run.manifest(STEP)
    return GateReport.model_validate(manifest.info) if manifest else None
