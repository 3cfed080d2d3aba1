"""A wrong config is refused as a whole, in sentences."""

from pathlib import Path

import pytest
import yaml

from dssm_core.config import parse_config, read_config
from dssm_core.config.yaml_files import read_yaml
from dssm_core.errors import ConfigError
from tests.conftest import REPO, small_config


@pytest.mark.parametrize(
    "file", sorted((REPO / "configs").rglob("*.yaml")), ids=lambda file: str(file.relative_to(REPO))
)
def test_every_shipped_config_is_valid(file):
    assert read_config(file).name


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train__epoch": 3}, "unknown key 'train.epoch': did you mean 'epochs'?"),
        ({"gaet": {}}, "unknown key 'gaet': did you mean 'gate'?"),
        ({"tower": {"kind": "mlpp"}}, "tower: unknown kind 'mlpp': did you mean 'mlp'?"),
        (
            {"tower": {"kind": "recurrent"}, "features": {"history": {"length": 0}}},
            "tower 'recurrent' reads histories, but features.history.length is 0",
        ),
        (
            {"features": {"history": {"pools": ["decay"], "decays": []}}},
            "features.history.decays is empty: give a decay",
        ),
        (
            {"features": {"history": {"pools": ["mean"], "learn_decays": True}}},
            "learn_decays has nothing to learn: add decay",
        ),
        (
            {"train": {"target": "future"}},
            "train.target 'future' is for training at every position",
        ),
        (
            {
                "features": {"activity": {"enabled": False}},
                "train": {"target": "rest"},
                "sampler": {"kind": "in_batch"},
            },
            "in-batch candidates have no exact log-Q under train.target 'rest'",
        ),
        (
            {
                "features": {
                    "activity": {"enabled": False},
                    "columns": {"context": [{"column": "device", "kind": "categorical"}]},
                },
                "train": {"target": "rest"},
            },
            "train.target 'rest' has no latest context",
        ),
        (
            {"model": {"similarity": "dot"}, "index": {"kind": "annoy"}},
            "index 'annoy' ranks by cosine",
        ),
        (
            {"model": {"similarity": "dot"}, "loss": {"kind": "triplet"}},
            "loss 'triplet' has its margin in cosines",
        ),
        (
            {"tower": {"kind": "sequence", "heads": 5}},
            "tower.heads 5 does not divide features.id_dim 32",
        ),
        (
            {"loss": {"kind": "magic"}},
            "loss: unknown kind 'magic': choose one of bce, bpr, ccl, full_softmax, gbce,",
        ),
        ({"sampler": {"kind": "actve"}}, "sampler: unknown kind 'actve': did you mean 'active'?"),
        (
            {"sampler": {"kind": "popularity", "alhpa": 1}},
            "unknown key 'sampler.alhpa': did you mean 'alpha'?",
        ),
        ({"sampler": {"kind": "popularity", "alpha": -1}}, "'sampler.alpha' is -1"),
        ({"train__epochs": 0}, "'train.epochs' is 0"),
        ({"name": "../x"}, "'name' is '../x'"),
        ({"data__timezone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"evaluation": {"ks": [20]}}, "evaluation.ks must hold 200"),
        (
            {"evaluation": {"baselines": ["hott"]}},
            "evaluation.baselines.0: unknown kind 'hott': did you mean 'hot'?",
        ),
        (
            {"evaluation": {"baselines": ["hot", {"kind": "recent_hot", "window_h": [1]}]}},
            "unknown key 'evaluation.baselines.1.window_h': did you mean 'windows_h'?",
        ),
        (
            {"evaluation": {"baselines": [{"kind": "recent_hot", "places": 0}]}},
            "'evaluation.baselines.0.places' is 0",
        ),
        (
            {"evaluation": {"baselines": ["hot", {"kind": "hot"}]}},
            "hot comes twice: give each a name of its own",
        ),
        (
            {"evaluation": {"baselines": [{"kind": "hot", "name": "served"}]}},
            "'served' names a row of the report",
        ),
        (
            {"evaluation": {"baselines": [{"name": "hot"}]}},
            "'evaluation.baselines.0.kind' is missing",
        ),
        ({"gate__k": 10}, "evaluation.ks must hold 10"),
        (
            {"gate__protocol": "rolling"},
            "gate.protocol is 'rolling' but nothing rolls: set evaluation.rolling.refresh_h,"
            " such as 1",
        ),
        (
            {"split": {"kind": "leave_one_out"}, "evaluation__rolling": {}},
            "evaluation.rolling goes through test days, which split 'leave_one_out' has not:"
            " leave it out",
        ),
        (
            {"split": {"test_day": "2024-03-07", "train_dais": 3}},
            "unknown key 'split.train_dais': did you mean 'train_days'?",
        ),
        ({"split": {}}, "'split.test_day' is missing"),
        (
            {"split": {"kind": "leave_one"}},
            "split: unknown kind 'leave_one': did you mean 'leave_one_out'?",
        ),
        (
            {"split": {"kind": "last_n", "test_day": "2024-03-07"}},
            "unknown key 'split.test_day': choose one of n, relevant.",
        ),
        (
            {"split": {"kind": "last_n", "relevant": "rating >"}},
            "'split.relevant' is 'rating >': condition 'rating >' is not an expression",
        ),
        (
            {"split": {"test_day": "2024-03-07", "relevant": "label == 1"}},
            "all positives have the same label: compare another column",
        ),
        (
            {
                "split": {"test_day": "2024-03-07", "relevant": "event == 'purchase'"},
                "evaluation__rolling": {},
            },
            "evaluation.rolling counts every positive of the test days, and not those of",
        ),
        ({"split": {"kind": "holdout", "share": 2}}, "'split.share' is 2"),
        (
            {"split": {"test_day": "2024-03-07", "train_days": 3, "validation_days": 3}},
            "validation_days 3 leaves none of 3 train_days",
        ),
        (
            {"split": {"kind": "leave_one_out"}},
            "split 'leave_one_out' has no cutoff in time: leave recent_hot out",
        ),
        (
            {"split": {"kind": "last_n"}},
            "split 'last_n' has no cutoff in time: set features.activity.enabled to false",
        ),
        ({"features": {"activity": {"enabled": False}}}, "sampler 'active' draws by activity"),
        (
            {"loss": {"kind": "gbce"}, "sampler": {"kind": "popularity"}},
            "take sampler 'uniform' or loss 'bce'",
        ),
        (
            {
                "loss": {"kind": "in_batch_softmax"},
                "sampler": {"kind": "in_batch", "streaming": {}},
            },
            "move those of sampler 'in_batch' to loss",
        ),
        (
            {"loss": {"kind": "in_batch_softmax", "log_q": False, "streaming": {}}},
            "loss.log_q is false: set it to true",
        ),
        (
            {"loss": {"kind": "bce"}, "sampler": {"kind": "unseen"}},
            "loss 'bce' corrects a positive by how often sampler 'unseen' draws it,"
            " which is never: set loss.log_q to false",
        ),
        (
            {"sampler": {"kind": "unseen", "of": {"kind": "active"}}},
            "sampler.of is 'active', but 'unseen' draws from one for all events",
        ),
        (
            {"sampler": {"kind": "unseen", "of": {"kind": "popularity", "alpa": 1}}},
            "sampler 'popularity' inside a sampler: alpa",
        ),
        ({"sampler": {"kind": "hard"}}, "'sampler.bundle' is missing"),
        (
            {"sampler": {"kind": "hard", "bundle": "x", "band": [5, 5]}},
            "sampler.band is [5, 5]: give [first, last) with first below last",
        ),
        (
            {
                "sampler": {
                    "kind": "mixed",
                    "parts": [
                        {"kind": "uniform", "share": 0.5},
                        {"kind": "popularity", "share": 0.4},
                    ],
                }
            },
            "the shares of sampler.parts add up to 0.9",
        ),
        (
            {
                "sampler": {
                    "kind": "mixed",
                    "parts": [
                        {"kind": "uniform", "share": 0.5},
                        {"kind": "popularty", "share": 0.5},
                    ],
                }
            },
            "unknown kind 'popularty': did you mean 'popularity'?",
        ),
        (
            {
                "sampler": {
                    "kind": "mixed",
                    "parts": [{"kind": "uniform", "share": 0.5}, {"kind": "active", "share": 0.5}],
                },
                "features": {"activity": {"enabled": False}},
            },
            "sampler 'active' draws by activity",
        ),
        ({"loss": {"kind": "triplet", "over": "some"}}, "'loss.over' is 'some'"),
    ],
)
def test_the_sentence_names_thing_value_and_remedy(changes, sentence):
    with pytest.raises(ConfigError) as error:
        parse_config(small_config(**changes))
    assert sentence in str(error.value)


def test_a_section_whose_settings_do_not_go_together_is_not_printed_whole():
    with pytest.raises(ConfigError) as error:
        parse_config(small_config(features__history={"learn_decays": True, "pools": ["mean"]}))
    assert str(error.value).startswith("features.history.learn_decays has nothing to learn")


def test_a_split_without_a_kind_goes_by_days():
    config = parse_config(small_config())
    assert (config.split.kind, config.split.title) == ("days", "2024-03-07")
    timeless = small_config(
        split={"kind": "leave_one_out"},
        evaluation={"baselines": ["hot"]},
        sampler={"kind": "uniform"},
        features={"activity": {"enabled": False}},
    )
    assert parse_config(timeless).split.title == "leave_one_out"


@pytest.mark.parametrize(
    "changes",
    [
        {
            "loss": {"kind": "full_softmax"},
            "features": {"activity": {"enabled": False}},
            "train__negatives": 1024,
        },
        {
            "loss": {"kind": "full_softmax"},
            "sampler": {"kind": "uniform"},
            "train__negatives": 1024,
        },
        {"loss": {"kind": "gbce"}, "sampler": {"kind": "uniform"}},
        {
            "loss": {"kind": "in_batch_softmax"},
            "sampler": {"kind": "in_batch"},
            "train__negatives": 1024,
        },
        {"loss": {"kind": "gbce"}, "sampler": {"kind": "unseen"}},
        {"loss": {"kind": "bce", "log_q": False}, "sampler": {"kind": "unseen"}},
        {
            "loss": {"kind": "bce"},
            "sampler": {
                "kind": "mixed",
                "parts": [{"kind": "unseen", "share": 0.5}, {"kind": "uniform", "share": 0.5}],
            },
        },
    ],
)
def test_what_can_work_is_let_through(changes):
    parse_config(small_config(**changes))


def test_all_problems_come_at_once():
    with pytest.raises(ConfigError) as error:
        parse_config(
            small_config(
                train__epochs=0,
                gate__floor=2,
                tower={"kind": "mlpp"},
                sampler={"kind": "active", "alpa": 1},
            )
        )
    assert len(str(error.value).splitlines()) == 4


def test_overrides_are_yaml_and_replace_members_whole(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(small_config(sampler={"kind": "active", "window_h": 6})))
    config = read_config(
        file, overrides=["train.epochs=7", "sampler.kind=uniform", "evaluation.ks=[5, 200]"]
    )
    assert config.train.epochs == 7
    assert config.evaluation.ks == (5, 200)
    assert config.sampler.settings == {}, "settings of another sampler are not this one's"


def test_baselines_by_name_or_with_settings():
    listed = [
        "hot",
        {"kind": "recent_hot", "windows_h": [6]},
        {"kind": "recent_hot", "name": "recent_1h", "windows_h": [1]},
    ]
    config = parse_config(small_config(evaluation={"baselines": listed}))
    members = config.evaluation.baselines
    assert [(member.name, member.kind) for member in members] == [
        ("hot", "hot"),
        ("recent_hot", "recent_hot"),
        ("recent_1h", "recent_hot"),
    ]
    assert [member.settings for member in members] == [{}, {"windows_h": [6]}, {"windows_h": [1]}]
    again = type(config).model_validate_json(config.model_dump_json())
    assert again.model_dump_json() == config.model_dump_json()


@pytest.mark.parametrize("override", ["train.epochs", "=3", "name.x=1", "train.epochs=[1"])
def test_a_wrong_override_is_named(override, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(small_config()))
    with pytest.raises(ConfigError, match="--set"):
        read_config(file, overrides=[override])


def test_not_yaml(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("a: [")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_config(file)


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(
            content if isinstance(content, str) else yaml.safe_dump(content)
        )


def test_a_config_extends_another(tmp_path):
    base = small_config(sampler={"kind": "popularity", "alpha": 0.5}, loss={"kind": "bce"})
    (tmp_path / "deep").mkdir()
    write(tmp_path, base=base)
    write(
        tmp_path / "deep",
        middle={"extends": "../base.yaml", "train": {"epochs": 9}, "sampler": {"alpha": 0.25}},
    )
    write(
        tmp_path / "deep",
        top={
            "extends": "middle.yaml",
            "name": "top",
            "train": {"negatives": 7},
            "evaluation": {"ks": [1, 200]},
        },
    )
    config = read_config(tmp_path / "deep" / "top.yaml", overrides=["train.batch_size=64"])
    assert (config.name, config.train.epochs, config.train.negatives, config.train.batch_size) == (
        "top",
        9,
        7,
        64,
    )
    assert config.sampler.settings == {"alpha": 0.25}
    assert config.evaluation.ks == (1, 200), "a list is replaced"
    assert config.train.patience == 100, "what no file above says stays"
    assert config.loss.kind == "bce"


def test_another_member_replaces_the_whole_section(tmp_path):
    write(tmp_path, base=small_config(sampler={"kind": "popularity", "alpha": 0.5}))
    write(tmp_path, top={"extends": "base.yaml", "sampler": {"kind": "active"}})
    write(tmp_path, same={"extends": "base.yaml", "sampler": {"kind": "popularity"}})
    assert read_config(tmp_path / "top.yaml").sampler.settings == {}
    assert read_config(tmp_path / "same.yaml").sampler.settings == {"alpha": 0.5}


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        (
            {"extends": "top.yaml"},
            r"'.*top.yaml' extends itself, extended by '.*base.yaml', extended by '.*top.yaml'",
        ),
        (
            {"extends": "nowhere.yaml"},
            r"'.*nowhere.yaml' is not a file, extended by '.*base.yaml', extended by '.*top.yaml'",
        ),
        (
            {"extends": ["a.yaml", "b.yaml"]},
            r"'.*base.yaml': 'extends' is \['a.yaml', 'b.yaml'\], not one file",
        ),
        ("a: [", r"'.*base.yaml' is not valid YAML, extended by '.*top.yaml'"),
        ("- 1", r"'.*base.yaml' holds list, not a mapping, extended by '.*top.yaml'"),
    ],
)
def test_a_wrong_extends_names_the_files(tmp_path, base, sentence):
    write(tmp_path, base=base, top={"extends": "base.yaml"})
    with pytest.raises(ConfigError, match=sentence):
        read_config(tmp_path / "top.yaml")


def test_settings_of_features_that_do_not_fit_are_named_at_once():
    item = [
        {"column": "title", "kind": "text", "separator": ","},
        {"column": "price", "kind": "numeric", "pooling": "max"},
    ]
    user = [{"column": "likes", "kind": "multi", "shares": "section", "buckets": 7}]
    with pytest.raises(ConfigError) as refused:
        parse_config(small_config(features={"columns": {"item": item, "user": user}}))
    for sentence in (
        "text column 'title' has no use for separator: leave it out",
        "numeric column 'price' has no use for pooling",
        "column 'likes' shares the table of 'section': leave out buckets",
    ):
        assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("side", "feature"),
    [
        ("user", {"column": "likes", "kind": "multi", "shares": "nothing"}),
        ("user", {"column": "likes", "kind": "multi", "shares": "title"}),  # words with ids
        ("user", {"column": "likes", "kind": "multi", "shares": "price"}),
        ("user", {"column": "query", "kind": "text", "shares": "item_id"}),
        ("item", {"column": "likes", "kind": "multi", "shares": "section"}),
        ("context", {"column": "likes", "kind": "categorical", "shares": "section"}),
    ],
)
def test_a_table_is_shared_with_its_like_only(side, feature):
    item = [
        {"column": name, "kind": kind}
        for name, kind in (("title", "text"), ("price", "numeric"), ("section", "categorical"))
    ]
    columns = {"item": item} | {side: [*(item if side == "item" else []), feature]}
    with pytest.raises(
        ConfigError,
        match=f"{side} column '{feature['column']}' cannot share the table of"
        f" '{feature['shares']}'",
    ):
        parse_config(small_config(features={"columns": columns}))


def test_a_column_is_named_once():
    twice = [{"column": "tags", "kind": "multi"}, {"column": "tags", "kind": "categorical"}]
    with pytest.raises(ConfigError, match="item column 'tags' is named twice"):
        parse_config(small_config(features={"columns": {"item": twice}}))


def test_buckets_that_would_not_fit_in_memory_are_refused():
    columns = {"item": [{"column": "url", "kind": "categorical", "buckets": 10**9}]}
    with pytest.raises(
        ConfigError, match=r"'url' needs an embedding table of 1,000,000,000 x 8 = 29\.8 GiB"
    ):
        parse_config(small_config(features={"columns": columns}))


def test_activity_without_times_is_refused():
    source = {
        "data": {"source": {"kind": "sequences", "path": "x", "lines": "*.txt"}},
        "sampler": {"kind": "uniform"},
    }
    with pytest.raises(
        ConfigError,
        match=r"source 'sequences' has no times, .* set features\.activity\.enabled to false",
    ):
        parse_config(small_config(**source, features={}))
    source |= {"features": {"activity": {"enabled": False}}, "evaluation": {"baselines": ["hot"]}}
    with pytest.raises(ConfigError, match="has no times, and so no days: take another split"):
        parse_config(small_config(**source))
    assert parse_config(small_config(**source, split={"kind": "leave_one_out"})).name


def test_a_relative_path_is_found_beside_the_config(tmp_path, monkeypatch):
    """The working directory comes first: configs that are run from there stay as they are."""
    (tmp_path / "there" / "logs").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    raw = small_config()
    raw["data"] = {"source": {"kind": "parquet", "path": "logs", "interactions": {"files": "*"}}}
    base = tmp_path / "there" / "base.yaml"
    base.write_text(yaml.safe_dump(raw))
    (tmp_path / "here" / "own.yaml").write_text("extends: ../there/base.yaml\nseed: 3\n")
    monkeypatch.chdir(tmp_path / "here")

    def path(file, **more):
        return read_config(file, **more).data.source.settings["path"]

    assert Path(path(base)) == tmp_path / "there" / "logs"
    assert Path(path("own.yaml")).resolve() == tmp_path / "there" / "logs"
    assert path(base, data="elsewhere") == "elsewhere"
    (tmp_path / "here" / "logs").mkdir()
    assert path(base) == path("own.yaml") == "logs"


@pytest.mark.parametrize(
    "source", ["x", ["path"], {"path": 5}, {"path": ["a"]}, {"path": "a" * 5000}, {"path": "~/x"}]
)
def test_an_odd_source_is_left_to_the_check_of_settings(tmp_path, source):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"data": {"source": source}}))
    assert read_yaml(file) == {"data": {"source": source}}
