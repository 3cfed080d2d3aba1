"""Every setting has an effect or is refused: each leaf is changed, one at a time, and either the
run's result differs and so does a step's key, or the config, or the log under it, is refused.
"""

import hashlib
import json
import typing
from contextlib import nullcontext
from functools import reduce
from types import UnionType

import pytest

from dssm_core import families
from dssm_core.config import Config, parse_config
from dssm_core.config.merge import merge, nested
from dssm_core.errors import ConfigError, DataError
from dssm_core.families import INDEXES, LOSSES, SAMPLERS, TOWERS
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from tests.conftest import TO_INDEX, small_config

SECTIONS = ("features", "model", "train")
JUDGED_SECTIONS = ("data", "validation", "split", "evaluation", "gate")  # read by the gate too
MEMBERS = {"sampler": SAMPLERS, "tower": TOWERS, "loss": LOSSES, "index": INDEXES}
# Settings that decide where and how fast a run computes, or what it refuses, and no number of it.
NO_NUMBERS = {
    "train.device": "where it computes",
    "resources.memory_gib": "how much is in memory at a time: tests/unit/runs/test_memory.py",
    "train.precision": "bf16 needs a GPU",
    "train.deterministic": "only a GPU has other kernels; tests/unit/training/test_device.py",
    "train.processes": "the same up to rounding: tests/unit/training/test_ranks.py",
    "train.rank_timeout_s": "when a process is taken as hung: tests/unit/training/test_ranks.py",
    "train.checkpoint_every_s": "how much a killed run repeats",
    "features.max_embedding_gib": "a limit that refuses",
    "data.labels": "a rule for labels, which this log does not have: tests/unit/data",
    "data.negative": "this log has only positives: tests/unit/data/test_negatives.py",
    "validation.max_quarantine_share": "a limit that refuses: tests/unit/data",
    "gate.champion_tolerance": "needs a champion: tests/unit/gate",
    "gate.promote_margin": "read when a version is promoted: tests/unit/gate",
    "train.start_from": "needs a champion: tests/pipeline/test_start_from.py",
    "train.patience": "needs a training that gets worse: tests/unit/training",
}
# Changes that reach these few clicks; the automatic one does not.
VALUES = {
    "data.timezone": "America/Sao_Paulo",
    "data.positive": "timestamp > 1709400000000",
    "data.weight": {"column": "device", "values": {"mobile": 1, "desktop": 3, "tablet": 0}},
    "validation.min_rows_per_day": 1_000_000,
    "validation.ranges": {"timestamp": [0, 1]},
    "validation.drift.warn.volume": 1e-6,
    "validation.drift.warn.new_items": 1e-6,
    "validation.drift.warn.features": 1e-6,
    "validation.drift.fail.volume": 1e-6,
    "validation.drift.fail.new_items": 1e-6,
    "validation.drift.fail.features": 1e-6,
    "split.test_day": "2024-03-06",
    "split.train_days": 4,
    "evaluation.ks": [5, 10],
    "evaluation.max_users": 20,
    "evaluation.rolling": {"refresh_h": 12},
    "evaluation.baselines": ["hot"],
    "gate.floor": 0.99,
    "gate.confidence": 0.5,
    "features.history.length": 2,
    "features.history.pools": ["last"],
    "features.activity.windows_h": [2],
    "features.activity.refresh_h": 12,
    "features.activity.audience": 2,
    "features.catalogue": "table",
    "train.sparse_rows": 10,
    "train.events_per_epoch": 500,
    "train.id_dropout": 0.5,
    "train.judge_every": 2,
    "train.metric": "recall@5",
    "train.clip_norm": 0.001,
    "train.target": "future",
}
# What members ignore or forbid: changed under every base config, the others under `default` only.
DEPENDENT = ("features.history", "model", "train.negatives", "train.target")


def base_config(**changes):
    """Few clicks, three short epochs."""
    raw = small_config(name="leaves", **changes)
    raw["data"]["source"] |= {"users": 150, "items": 60, "clicks": 2500}
    raw["train"] = {"epochs": 3, "batch_size": 256, "negatives": 32, "device": "cpu"} | {
        "patience": 2,
        "metric": "recall@10",
        "learning_rate": 0.02,
    }
    raw["evaluation"] = {"bootstrap": 20, "ks": [10]}
    raw["gate"] |= {"k": 10}
    return raw


BASES = {
    "default": {},
    "ccl": {"loss": {"kind": "ccl"}, "model": {"similarity": "cosine"}},
    "triplet": {"loss": {"kind": "triplet"}},
    "full_softmax": {"loss": {"kind": "full_softmax"}, "train": {"negatives": 1024}},
    "in_batch": {
        "loss": {"kind": "in_batch_softmax"},
        "sampler": {"kind": "in_batch"},
        "train": {"negatives": 1024},
    },
    "youtube": {"tower": {"kind": "youtube"}},
    "sequence": {"tower": {"kind": "sequence"}},
    "recurrent": {"tower": {"kind": "recurrent"}},
    "no activity": {
        "features": {"activity": {"enabled": False}},
        "sampler": {"kind": "uniform"},
    },
}


def other(value, annotation):
    """Another valid value of a leaf; None if there is no general one."""
    if isinstance(value, bool):
        return not value
    if typing.get_origin(annotation) is typing.Annotated:
        return other(value, typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is typing.Literal:
        return next(choice for choice in typing.get_args(annotation) if choice != value)
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.1
    if value is None and typing.get_origin(annotation) in (typing.Union, UnionType):
        return {int: 2, float: 0.5}.get(typing.get_args(annotation)[0])
    return None


def leaves(model, path):
    """(path, changed value) of each setting below a model that the test can change by itself."""
    for name, field in type(model).model_fields.items():
        value, at = getattr(model, name), f"{path}.{name}"
        if name in ("kind", "columns") or at in NO_NUMBERS:
            continue
        if hasattr(value, "model_fields") and hasattr(type(value), "model_fields"):
            yield from leaves(value, at)
        elif (changed := VALUES.get(at, other(value, field.annotation))) is not None:
            yield at, changed


def cases():
    """Every leaf of the sections and of the members that each base config chooses."""
    for base, changes in BASES.items():
        config = parse_config(merge(base_config(), changes))
        sections = (*SECTIONS, *JUDGED_SECTIONS) if base == "default" else SECTIONS
        parts = [(getattr(config, section), section) for section in sections]
        for section, family in MEMBERS.items():
            parts.append((families.build(family, getattr(config, section)), section))
        for part, section in parts:
            for path, value in leaves(part, section):
                if base == "default":
                    yield base, path, value
                elif section in changes or path.startswith(DEPENDENT):
                    yield pytest.param(base, path, value, marks=pytest.mark.soak)


def result(config: Config, folder, judged):
    """What a config gives: rows, hashes of towers, embeddings and index, the scores of the epochs,
    and the verdict of the gate if it is asked for; and the steps' keys. A log that is refused gives
    the reason.
    """
    name = hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:12]
    run = create_run(config, folder, name)
    try:
        steps = (*TO_INDEX, "recall_gate") if judged else TO_INDEX
        manifests = [execute(run, step) for step in steps]
    except DataError as error:
        return str(error), []
    files = {
        file: digest
        for manifest in manifests[3:]
        for file, digest in manifest.files.items()
        if file.endswith((".npy", "towers.safetensors", ".faiss"))
    }
    lines = (run.step("train_towers") / "history.jsonl").read_text().splitlines()
    points = [json.loads(line).items() for line in lines]
    scores = [(key, value) for point in points for key, value in point if key.startswith("valid_")]
    validated = (manifests[1].rows, manifests[1].info["drift"], manifests[2].rows)
    verdict = without_seconds(manifests[-1].info) if judged else None
    return (files, scores, validated, verdict), [manifest.key for manifest in manifests]


def without_seconds(value):
    """A JSON value without timings."""
    if isinstance(value, dict):
        return {key: without_seconds(part) for key, part in value.items() if key != "seconds"}
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch):
    monkeypatch.setattr(
        "dssm_core.tracking.points.live_logger",
        lambda run: nullcontext(lambda metrics, step: None),
    )
    monkeypatch.setattr("dssm_core.gate.judge.measure_champion", lambda run, data: None)
    monkeypatch.setattr("dssm_core.report.verdict.publish", lambda *shown: None)


@pytest.mark.parametrize(("base", "path", "value"), cases())
def test_a_setting_changes_the_result_or_is_refused(base, path, value, folder):
    raw = merge(base_config(), BASES[base])
    changed = merge(raw, nested(path.split("."), value))
    try:
        config = parse_config(changed)
    except ConfigError:
        return
    judged = path.startswith(JUDGED_SECTIONS)
    before, keys_before = result(parse_config(raw), folder, judged)
    after, keys_after = result(config, folder, judged)
    assert keys_after != keys_before
    assert after != before, f"{path} {reduce(getattr, path.split('.'), config)} changes nothing"
