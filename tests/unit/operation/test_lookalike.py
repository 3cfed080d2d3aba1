"""Audiences: equal to brute force, true to a planted structure, and what bad questions get."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.errors import ConfigError, DataError
from dssm_core.features.ids import Ids
from dssm_core.operation.lookalike import audience, like_seeds, make_audience, near_item
from dssm_core.operation.user_files import WRITERS, read_seeds
from dssm_core.retrieval.bundle import assemble, open_bundle
from tests.unit.conftest import ITEMS

GROUPS, EACH = 4, 50


@pytest.fixture
def made(fabricate, tmp_path):
    """The bundle as made by hand: users 1, 2, 3 at items 10, 20, 30."""
    return open_bundle(assemble(fabricate(), tmp_path / "bundle"))


@pytest.fixture
def crowd(made):
    """200 users in 4 groups around the axes of 8 dimensions, of all lengths; user u00 .. u199,
    group number % 4.
    """
    rng = np.random.default_rng(3)
    centres = np.eye(8, dtype=np.float32)[np.arange(GROUPS * EACH) % GROUPS]
    vectors = (centres + 0.25 * rng.normal(size=centres.shape)) * rng.uniform(
        0.1, 10, (len(centres), 1)
    )
    names = Ids(pd.Index([f"u{n:03}" for n in range(len(centres))]))
    return replace(
        made, users=names, user_vectors=np.vstack([np.zeros((1, 8)), vectors]).astype(np.float32)
    )


def group(names):
    return [int(name[1:]) % GROUPS for name in names]


@pytest.mark.parametrize("exclude", [True, False])
def test_scores_are_the_mean_cosines_with_all_seeds(crowd, exclude):
    seeds = ["u000", "u004", "u013", "u000"]  # one twice, which counts once
    found = audience(crowd, like_seeds(crowd, seeds), 40, exclude)
    unit = crowd.user_vectors[1:] / np.linalg.norm(crowd.user_vectors[1:], axis=1, keepdims=True)
    cosines = pd.Series((unit @ unit[[0, 4, 13]].T).mean(axis=1), index=crowd.users.index)
    wanted = (
        (cosines.drop(["u000", "u004", "u013"]) if exclude else cosines)
        .sort_values(ascending=False)
        .head(40)
    )
    assert found["user_id"].tolist() == wanted.index.tolist()
    np.testing.assert_allclose(found["score"], wanted, rtol=1e-4, atol=1e-5)
    assert found["rank"].tolist() == list(range(1, 41))


def test_seeds_of_a_planted_group_find_that_group(crowd):
    for wanted in range(GROUPS):
        seeds = [f"u{n:03}" for n in range(wanted, 40, GROUPS)]  # 10 of the group's 50
        found = audience(crowd, like_seeds(crowd, seeds), EACH - len(seeds))
        assert np.mean(np.array(group(found["user_id"])) == wanted) > 0.9  # chance: a quarter


def test_an_item_finds_users_as_the_towers_score_them(crowd, tmp_path):
    """Not by angle: a user's length counts where similarity is a dot product."""
    items = np.random.default_rng(4).normal(size=(4, 8)).astype(np.float32)
    np.save(tmp_path / "item_embeddings.npy", items)
    crowd = replace(crowd, folder=tmp_path)
    found = audience(crowd, near_item(crowd, "30"), 7)  # ids of another type are found
    scores = (
        pd.Series(crowd.user_vectors[1:] @ items[2], index=crowd.users.index)
        .sort_values(ascending=False)
        .head(7)
    )
    assert found["user_id"].tolist() == scores.index.tolist()
    np.testing.assert_allclose(found["score"], scores, rtol=1e-5)


def test_by_hand(made):
    found = audience(made, near_item(made, 10), 2)
    assert found.to_dict("list") == {"user_id": [1, 2], "score": [1.0, 0.0], "rank": [1, 2]}
    opposite = audience(
        made, like_seeds(made, [1, 3]), 5, exclude_seeds=False
    )  # their mean is 0: all are equally alike
    assert opposite.to_dict("list") == {"user_id": [1, 2, 3], "score": [0.0] * 3, "rank": [1, 2, 3]}
    assert ITEMS[0].tolist() == [1, 0]


def test_more_than_there_are_gives_all_once(crowd):
    found = audience(crowd, like_seeds(crowd, ["u001"]), 10**6)
    assert sorted(found["user_id"]) == [name for name in crowd.users.index if name != "u001"]


def test_unknown_seeds_are_counted_and_named(crowd, tmp_path, caplog):
    about = make_audience(
        crowd, tmp_path / "a.csv", 3, seeds=["u001", *(f"x{n}" for n in range(7))]
    )
    assert (about["seeds"], about["unknown_seeds"], about["unknown"]) == (
        1,
        7,
        ["x0", "x1", "x2", "x3", "x4"],
    )
    assert (
        "7 of 8 seeds are no users of this model, such as x0, x1, x2, x3, x4: left out"
        in caplog.text
    )
    with pytest.raises(
        DataError, match="2 of 2 seeds are no users of this model, such as x, y: give user_ids"
    ):
        make_audience(crowd, tmp_path / "b.csv", 3, seeds=["x", "y"])
    assert not (tmp_path / "b.csv").exists()


def test_bad_questions_are_named(made, tmp_path):
    file = tmp_path / "a.parquet"
    with pytest.raises(ConfigError, match="both are given"):
        make_audience(made, file, 3, seeds=[1], item=10)
    with pytest.raises(ConfigError, match="neither is given"):
        make_audience(made, file, 3)
    with pytest.raises(ConfigError, match="top is 0"):
        make_audience(made, file, 0, item=10)
    with pytest.raises(ConfigError, match=r"'a\.txt': its name must end in \.parquet or \.csv"):
        make_audience(made, tmp_path / "a.txt", 3, item=10)
    with pytest.raises(DataError, match="item 77 is not among the model's 4 items"):
        make_audience(made, file, 3, item=77)
    with pytest.raises(DataError, match="no user is left: all 3 users"):
        make_audience(made, file, 3, seeds=[1, 2, 3])


@pytest.mark.parametrize(("suffix", "read"), [(".parquet", pd.read_parquet), (".csv", pd.read_csv)])
def test_the_file_holds_what_was_found(made, tmp_path, suffix, read):
    file = tmp_path / "new" / f"audience{suffix}"
    about = make_audience(made, file, 2, item=10)
    assert about == {"file": str(file), "users": 2, "best": 1.0, "last": 0.0, "item": "10"}
    assert read(file).to_dict("list") == {"user_id": [1, 2], "score": [1.0, 0.0], "rank": [1, 2]}
    assert [found.name for found in file.parent.iterdir()] == [file.name]


def test_seeds_are_read_from_any_of_three_files(tmp_path):
    pd.DataFrame({"user_id": [1, 2], "x": [0, 0]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("x,user_id\n0,007\n0,8\n")
    (tmp_path / "a.txt").write_text("007\n\n 8 \n")
    assert read_seeds(tmp_path / "a.parquet") == [1, 2]
    assert read_seeds(tmp_path / "a.csv") == read_seeds(tmp_path / "a.txt") == ["007", "8"]
    (tmp_path / "b.csv").write_text("id\n1\n")
    for file in ("b.csv", "none.txt", "none.parquet"):
        with pytest.raises(
            DataError, match=f"seeds file .*{file}.* cannot be read.*: give .*one id a line"
        ):
            read_seeds(tmp_path / file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_every_seed_of_a_file_is_read_or_the_file_is_refused(tmp_path, encoding, name):
    ids = ["NA", "null", "None", "nan", "u5", "42.0", "ü"]
    text = "\n".join(["user_id", *ids] if name == "a.csv" else ids)
    (tmp_path / name).write_bytes(text.encode(encoding))
    if encoding in ("utf-16-le", "utf-16-be"):  # without a byte order mark
        with pytest.raises(DataError, match="in UTF-8"):
            read_seeds(tmp_path / name)
    else:
        assert read_seeds(tmp_path / name) == ids


def test_a_folder_named_like_the_column_does_not_replace_it(tmp_path):
    file = tmp_path / "user_id=me" / "a.parquet"
    file.parent.mkdir()
    pd.DataFrame({"user_id": [7, None]}, dtype="Int64").to_parquet(file)
    assert read_seeds(file) == [7, None]


def test_seeds_have_the_form_of_ids(crowd, made, tmp_path):
    asked = ["u001 ", "u002", "u001", None]
    query = like_seeds(crowd, [], asked)
    assert (len(query.seeds), query.unknown, query.examples) == (2, 1, ("None",))
    assert len(like_seeds(made, ["1.0", 2.0, "1"]).seeds) == 2


def test_nothing_of_a_file_without_users_is_shown(crowd, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("password=hunter2\ntoken=abc\n")
    with pytest.raises(DataError, match=r"3 of 3 seeds are .* model, such as x: give") as caught:
        make_audience(crowd, tmp_path / "a.csv", 3, ["x"], from_file=read_seeds(secret))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(DataError, match=r"2 of 2 seeds are no users of this model: give"):
        make_audience(crowd, tmp_path / "a.csv", 3, from_file=read_seeds(secret))
    secret.rename(tmp_path / "secret.csv")
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_seeds(tmp_path / "secret.csv")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_runs_no_formula_of_an_id(first):
    ids = [f"{first}1+1", "a=1", -5, "'x"]
    written = WRITERS[".csv"](pd.DataFrame({"user_id": pd.Series(ids, dtype=object), "rank": 1}))
    rows = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert [row[0] for row in rows[1:]] == [f"'{first}1+1", "a=1", "-5", "'x"]
    plain = pd.read_parquet(io.BytesIO(WRITERS[".parquet"](pd.DataFrame({"user_id": ids[:2]}))))
    assert plain["user_id"].tolist() == ids[:2]


def command(*args):
    return CliRunner().invoke(main, ["lookalike", *map(str, args)])


def test_the_command_writes_an_audience_and_says_what_it_did(fabricate, tmp_path):
    run, file = fabricate(), tmp_path / "a.csv"
    (tmp_path / "seeds.txt").write_text("2\n")
    done = command("--run", run.root, "--seed", 1, "--seeds", tmp_path / "seeds.txt", "--to", file)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["run"], told["seeds"], told["users"]) == ("one", 2, 1)
    assert pd.read_csv(file)["user_id"].tolist() == [3]
    assert command("--run", run.root, "--item", 10, "--to", file, "--top", 1).exit_code == 0
    assert pd.read_csv(file)["user_id"].tolist() == [1]
    assert command("--run", run.root, "--seed", 1, "--keep-seeds", "--to", file).exit_code == 0
    assert pd.read_csv(file)["user_id"].tolist() == [1, 2, 3]


def test_the_command_wants_a_model_or_a_run(fabricate, tmp_path):
    for args in ((), ("dssm-made", "--run", fabricate().root)):
        done = command(*args, "--item", 10, "--to", tmp_path / "a.csv")
        assert done.exit_code == 1
        assert "give the name of a registered MODEL, or a run's folder" in done.output
