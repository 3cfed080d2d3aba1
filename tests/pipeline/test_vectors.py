"""Vectors from the log to an answer, on a log in which only they say what a new item is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config, parse_config
from dssm_core.features.dataset import load_prepared
from dssm_core.features.schema import VectorColumn
from dssm_core.retrieval.bundle import Bundle, assemble, open_bundle
from dssm_core.retrieval.encoder import Encoder
from dssm_core.retrieval.snapshots import LatestTables, Timeline
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.table import STEPS
from dssm_core.runs.transaction import execute
from tests.conftest import small_config

DAY = 86_400_000
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
CUTOFF = T0 + 3 * DAY
GROUPS = 6
KNOWN = 8  # items of a group that are clicked in the days of training
NEW = 4  # items of a group that are clicked on the test day only
USERS = 240
WIDTH = 12
TO_INDEX = list(STEPS)[: list(STEPS).index("build_index") + 1]
ITEM_GROUP = np.arange(GROUPS * (KNOWN + NEW)) % GROUPS
IS_NEW = np.arange(len(ITEM_GROUP)) >= GROUPS * KNOWN


def vectors(rng: np.random.Generator, group: np.ndarray) -> np.ndarray:
    """Large numbers far from 0, as encoders may give: a direction for each group, and noise."""
    directions = np.random.default_rng(7).normal(size=(GROUPS, WIDTH))
    return 50 + 100 * (directions[group] + 0.1 * rng.normal(size=(len(group), WIDTH)))


def write_log(folder: Path, known: bool = True) -> None:
    """Users click on items of their group. known: whether the vectors are of the items' groups."""
    rng = np.random.default_rng(1)
    group = ITEM_GROUP if known else rng.permutation(ITEM_GROUP)
    cells = [list(cell) for cell in vectors(rng, group)]
    ids = [f"i{n}" for n in range(len(group))]
    pd.DataFrame({ITEM: ids, "v": cells}).to_parquet(folder / "items.parquet")
    of = [f"u{n}" for n in range(USERS)]
    likes = vectors(rng, np.arange(USERS) % GROUPS)
    cells = [list(cell) for cell in likes]
    pd.DataFrame({USER: of, "taste": cells}).to_parquet(folder / "users.parquet")
    rows = []
    for wanted, clicks, start, days in ((~IS_NEW, 6, T0, 3), (IS_NEW, 2, CUTOFF, 1)):
        user = np.repeat(np.arange(USERS), clicks)
        place = rng.integers(0, (KNOWN if days == 3 else NEW), len(user))
        item = np.flatnonzero(wanted).reshape(-1, GROUPS)[place, user % GROUPS]
        time = rng.integers(start, start + days * DAY, len(user))
        rows.append(
            pd.DataFrame(
                {
                    USER: [f"u{n}" for n in user],
                    ITEM: [f"i{n}" for n in item],
                    TIME: time,
                }
            )
        )
    pd.concat(rows).sort_values(TIME).to_parquet(folder / "log.parquet")


def config_of(folder: Path, dim: int = 8, **changes: object) -> Config:
    tables = {
        name: {"files": f"{file}.parquet"}
        for name, file in (("interactions", "log"), ("users", "users"), ("items", "items"))
    }
    raw = small_config(
        data={"source": {"kind": "parquet", "path": str(folder), **tables}},
        split={"test_day": "2024-03-04", "train_days": 3},
        features={
            "columns": {"item": [{"column": "v", "kind": "vector", "dim": dim}]},
            "history": {"fields": True, "length": 6},
            "item_ids": False,
            "catalogue": "table",
            "activity": {"enabled": False},
        },
        sampler={"kind": "uniform"},
        evaluation={"bootstrap": 20, "baselines": ["hot"], "ks": [10]},
        **changes,
    )
    raw["train"] |= {"epochs": 6, "batch_size": 128, "negatives": 32}
    raw["gate"] |= {"k": 10}
    return parse_config(raw)


def run_of(config: Config, folder: Path, name: str, steps: list[str] = TO_INDEX) -> Run:
    run = create_run(config, folder / "runs", name)
    for step in steps:
        execute(run, step)
    return run


def recall_of_new_items(bundle: Bundle) -> float:
    """The share of a group's new items among the best KNOWN + NEW of its users."""
    users = [f"u{n}" for n in range(USERS)]
    lists = bundle.retrieve(pd.DataFrame({USER: users}), KNOWN + NEW)["item_ids"]
    found = [
        np.mean([name in row for name in _new_items(n % GROUPS)]) for n, row in enumerate(lists)
    ]
    return float(np.mean(found))


def _new_items(group: int) -> list[str]:
    return [f"i{n}" for n in np.flatnonzero((group == ITEM_GROUP) & IS_NEW)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Bundle]:
    folder = tmp_path_factory.mktemp("planted")
    write_log(folder)
    run = run_of(config_of(folder), folder, "planted")
    return run, open_bundle(assemble(run, folder / "bundle"))


def test_new_items_are_found_by_their_vectors(trained: tuple[Run, Bundle], tmp_path: Path) -> None:
    """Vectors that are not the items' own find them by chance. These are taken as they are."""
    _, bundle = trained
    assert recall_of_new_items(bundle) > 0.95
    write_log(tmp_path, known=False)
    shuffled = run_of(config_of(tmp_path, dim=0), tmp_path, "shuffled")
    assert recall_of_new_items(open_bundle(assemble(shuffled, tmp_path / "b"))) < 0.4


def test_new_items_of_a_refresh_have_their_vectors(trained: tuple[Run, Bundle]) -> None:
    """An item that comes later with the vector of a trained one gets its embedding."""
    run, bundle = trained
    clicks = pd.read_parquet(run.step("split_by_time") / "train.parquet")
    items = pd.read_parquet(run.step("validate_data") / "items.parquet")
    twin = items[items[ITEM] == "i3"].assign(**{ITEM: "twin"})
    tables = LatestTables(clicks[[USER, ITEM, TIME]], None, pd.concat([items, twin]))
    timeline = Timeline.of(bundle.folder, tables)
    exported = np.load(bundle.folder / "item_embeddings.npy")
    embedded = timeline.as_of(CUTOFF + DAY).embed_items(exported)
    rows = timeline.items.encode(["i3", "twin"]) - 1
    assert len(embedded) == len(exported) + 1
    np.testing.assert_allclose(embedded[rows[1]], embedded[rows[0]], atol=1e-6)


def test_the_bundle_holds_scaled_vectors_once(trained: tuple[Run, Bundle]) -> None:
    run, bundle = trained
    prepared = load_prepared(run.step("sample_negatives"))
    rows = pd.read_parquet(run.step("validate_data") / "items.parquet").set_index(ITEM)
    raw = np.stack(rows.loc[bundle.items.index, "v"].to_list()).astype(np.float64)
    scaled = raw - raw.mean(0)
    scaled /= np.sqrt((scaled**2).mean())
    np.testing.assert_allclose(prepared.items.numeric[1:].numpy(), scaled, atol=1e-4)
    assert prepared.schema.item.vectors == (VectorColumn(column="v", width=WIDTH, dim=8),)
    encoder = Encoder(bundle.folder)
    assert encoder.prepared.items.numeric.equal(prepared.items.numeric)
    names = [name for name, _ in encoder.model.named_parameters() if "maps" in name]
    assert names == ["item_fields.maps.0.weight"]  # histories use that of the items
