"""The steps of a run, in order: where each one's function is, what it reads and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dssm_core.errors import ConfigError
from dssm_core.families import did_you_mean


@dataclass(frozen=True)
class Step:
    """A step: where its function is, which settings and which steps' outputs it reads.

    function: `module:name`, called as `function(run, work, **passes)`; it writes files into the
    folder `work` and returns an Outcome.
    passes: functions of later packages that the step's function is called with: `module:name` by
    argument. What they do changes none of the step's numbers.
    reusable: whether the output of another run of the same dataset and day may be reused; False if
    the step also changes something outside the run's folder.
    outside: `module:name`, called as `outside(run)`, returns what the step reads from outside the
    run, by name: a file, or a text that identifies the content.
    """

    name: str
    function: str
    title: str
    reads: tuple[str, ...]
    needs: tuple[str, ...] = ()
    reusable: bool = True
    outside: str | None = None
    passes: Mapping[str, str] = field(default_factory=dict)


STEPS = {
    step.name: step
    for step in (
        Step(
            "ingest_data",
            "dssm_core.data.ingest:ingest",
            "read the log into canonical tables",
            (
                "data",
                "features",
                "split.relevant",
                "split.test_day",
                "split.train_days",
                "split.test_days",
            ),
            outside="dssm_core.data.ingest:source_content",
        ),
        Step(
            "validate_data",
            "dssm_core.data.validate:validate",
            "check every rule, quarantine the rows that break one",
            ("data", "validation", "split", "features"),
            ("ingest_data",),
            passes={"publish": "dssm_core.report.data_checks:write"},
        ),
        Step(
            "split_by_time",
            "dssm_core.data.split:split",
            "train before the cutoff, test after it (or as split.kind says)",
            ("data", "split", "evaluation.ks"),
            ("ingest_data", "validate_data"),
        ),
        Step(
            "sample_negatives",
            "dssm_core.sampling.sample_negatives:sample_negatives",
            "fit ids on train, write the log and the sampler's tables",
            ("data.weight", "features", "sampler", "loss", "split"),
            ("ingest_data", "validate_data", "split_by_time"),
            outside="dssm_core.sampling.sample_negatives:sampler_files",
        ),
        Step(
            "train_towers",
            "dssm_core.training.train_towers:train_towers",
            "train both towers, early-stop on recall",
            (
                "seed",
                "features",
                "sampler",
                "tower",
                "item_tower",
                "loss",
                "model",
                "train",
                "split",
                "evaluation.exclude_seen",
            ),
            ("sample_negatives",),
            outside="dssm_core.registry.start:start_files",
            passes={"live_logger": "dssm_core.tracking.points:live_logger"},
        ),
        Step(
            "log_to_mlflow",
            "dssm_core.report.to_mlflow:log_to_mlflow",
            "log settings, curves, data and plots",
            (),
            ("validate_data", "split_by_time", "sample_negatives", "train_towers"),
            reusable=False,
        ),
        Step(
            "export_embeddings",
            "dssm_core.retrieval.embeddings:export_embeddings",
            "embed every user and item as of the cutoff",
            (
                "features",
                "tower",
                "item_tower",
                "model",
                "split",
                "train.target",
                "serving.columns",
            ),
            ("validate_data", "sample_negatives", "train_towers"),
        ),
        Step(
            "build_index",
            "dssm_core.retrieval.index:build_index",
            "build the index that is served",
            ("seed", "index"),
            ("export_embeddings",),
        ),
        Step(
            "recall_gate",
            "dssm_core.gate.judge:judge",
            "measure the served index against floor, baselines and champion",
            (),
            ("split_by_time", "sample_negatives", "export_embeddings", "build_index"),
            reusable=False,
            passes={"publish": "dssm_core.report.verdict:publish"},
        ),
        Step(
            "register_model",
            "dssm_core.registry.registration:register_model",
            "register towers, ids and index as one version",
            (),
            ("sample_negatives", "train_towers", "export_embeddings", "build_index", "recall_gate"),
            reusable=False,
        ),
    )
}


# Called as `function(run)` before a step: it refuses what would stop a later step.
BEFORE_STEP = "dssm_core.tracking.client:check_address"
# Called as `function(run, message)` when a step fails for a reason that no retry can change.
ON_FAILURE = "dssm_core.tracking.runs:mark_failed"


def find_step(name: str) -> Step:
    """The step called `name`; ConfigError with a suggestion if there is none."""
    if name not in STEPS:
        raise ConfigError(f"unknown step {name!r}: {did_you_mean(name, list(STEPS))}")
    return STEPS[name]
