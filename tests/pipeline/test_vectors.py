"""Vectors from the log to an answer, on a log in which only they say what a new item is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dssm_core.columns import ITEM, TIME, USER
from dssm_core.config import Config, parse_config
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.dataset import load_prepared
from dssm_core.features.schema import VectorColumn
from dssm_core.operation.refresh import refresh
from dssm_core.retrieval.bundle import Bundle, assemble, open_bundle
from dssm_core.retrieval.encoder import Encoder
from dssm_core.retrieval.latest_tables import LatestTables
from dssm_core.retrieval.snapshots import Timeline
from dssm_core.runs.run import Run, create_run
from dssm_core.runs.transaction import execute
from dssm_core.sampling import coded_log
from dssm_core.training.trainer import Trainer
from tests.conftest import TO_INDEX, small_config

DAY = 86_400_000
T0 = 1_709_251_200_000  # 2024-03-01 00:00 UTC
CUTOFF = T0 + 3 * DAY
GROUPS = 6
KNOWN = 8  # items of a group that are clicked in the days of training
NEW = 4  # items of a group that are clicked on the test day only
USERS = 240
WIDTH = 12
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


def run_of(config: Config, folder: Path, name: str, steps: tuple[str, ...] = TO_INDEX) -> Run:
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


def test_a_request_describes_a_new_user_by_a_vector(tmp_path: Path) -> None:
    """Nobody has a history here, so that only the vector of the user says what is wanted."""
    write_log(tmp_path)
    raw = config_of(tmp_path).model_dump(mode="json")
    taste = {"column": "taste", "kind": "vector", "dim": 8, "normaliser": "length"}
    raw["features"]["columns"]["user"] = [taste]
    raw["features"]["history"] = {"length": 0}
    run = run_of(parse_config(raw), tmp_path, "users")
    bundle = open_bundle(assemble(run, tmp_path / "bundle"))
    group = np.arange(GROUPS)
    asked = [cell.tolist() for cell in vectors(np.random.default_rng(5), group)]
    found = bundle.retrieve(pd.DataFrame({USER: None, "taste": asked}), KNOWN + NEW)
    assert set(found["source"]) == {"context"}
    hits = [
        len(set(_new_items(n)) & set(row)) / NEW
        for n, row in zip(group, found.item_ids, strict=True)
    ]
    assert np.mean(hits) > 0.9
    rows = pd.DataFrame({USER: ["u1", None, None], "taste": [None, asked[0], [1.0, 2.0]]})
    with pytest.raises(DataError, match=f"'taste' of row 2 has 2 numbers, but .* have {WIDTH}"):
        bundle.retrieve(rows, 5)
    with pytest.raises(DataError, match="'taste' has a cell that is no list of numbers"):
        bundle.retrieve(pd.DataFrame({USER: [None], "taste": ["warm"]}), 5)


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


def test_vectors_that_do_not_fit_are_refused_with_the_arithmetic(
    trained: tuple[Run, Bundle],
) -> None:
    folder = Path(str(trained[0].config.data.source.settings["path"]))
    raw = config_of(folder).model_dump(mode="json")
    raw["features"]["id_dim"] = 16  # so that the step is not that of the trained run
    run = run_of(parse_config(raw), folder, "large", TO_INDEX[:3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coded_log, "VECTOR_COPIES", 100_000_000)
        with pytest.raises(
            ConfigError, match=f"vectors of 72 items with {WIDTH} numbers .*memory_gib"
        ):
            execute(run, "sample_negatives")


def test_a_refresh_reads_the_file_that_its_config_names(tmp_path: Path) -> None:
    """The log has no items table: the vectors are in a file, of which there is a newer one."""
    write_log(tmp_path)
    items = pd.read_parquet(tmp_path / "items.parquet")
    items.rename(columns={"v": "w"}).to_parquet(tmp_path / "items.parquet")
    raw = config_of(tmp_path, resources={"memory_gib": 4}).model_dump(mode="json")
    raw["features"] |= {"catalogue": "positives"}
    raw["features"]["columns"]["item"][0] |= {"file": str(tmp_path / "old.parquet")}
    del raw["data"]["source"]["items"]
    items[~IS_NEW].to_parquet(tmp_path / "old.parquet")
    run = run_of(parse_config(raw), tmp_path, "files")
    base = assemble(run, tmp_path / "bundle")
    (tmp_path / "old.parquet").unlink()
    raw["features"]["columns"]["item"][0] |= {"file": str(tmp_path / "new.parquet")}
    items.to_parquet(tmp_path / "new.parquet")
    settings = parse_config(raw)
    as_of = CUTOFF + DAY
    made = refresh(base, settings.model_name, "1", settings, as_of, tmp_path / "refreshed")
    assert list(made["read_from"][1]["files"]) == [str(tmp_path / "new.parquet")]
    bundle = open_bundle(made["folder"])
    assert len(bundle.items.index) == len(items)
    assert recall_of_new_items(bundle) > 0.9


def test_a_killed_training_goes_on_as_if_it_had_not_been(
    trained: tuple[Run, Bundle], tmp_path: Path
) -> None:
    """The vectors are read from the coded dataset again; the map of them is in the checkpoint."""
    run, _ = trained
    prepared = load_prepared(run.step("sample_negatives"))
    samples = run.step("sample_negatives")
    settings = run.config.model_copy(
        update={"train": run.config.train.model_copy(update={"checkpoint_every_s": 0.001})}
    )
    device = torch.device("cpu")
    points = []

    def killed(values: object, step: int) -> None:
        points.append(step)
        if len(points) == 3:
            raise KeyboardInterrupt

    given = settings, prepared, samples, device, tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        Trainer(*given, killed).fit()
    again = Trainer(*given, lambda values, step: None).fit()
    whole = load_file(run.step("train_towers") / "towers.safetensors")
    for name, weights in again.state_dict().items():
        assert weights.equal(whole[name]), name
