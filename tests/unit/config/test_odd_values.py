"""Odd YAML and odd values: each is one clear and short sentence, quickly, and never a traceback."""

import re

import pytest
import yaml

from dssm_core.config import parse_config, read_config
from dssm_core.config.yaml_text import MAX_VALUES, load_yaml
from dssm_core.errors import LINE, LINES, ConfigError, DataError, shown
from tests.conftest import small_config

BOMB = "\n".join(
    [
        "x0: &x0 [lol, lol]",
        *(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 10)}]" for i in range(1, 9)),
        "name: *x8",
    ]
)


def refusal(text):
    with pytest.raises(ConfigError) as caught:
        load_yaml(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 2024-02-30", "line 1, column 7: '2024-02-30' is not a valid timestamp"),
        ("a: 1\nb: 2024-13-45", "line 2, column 4: '2024-13-45' is not a valid timestamp"),
        ("seed: !!timestamp x", "'x' is not a valid timestamp"),
        ("seed: !!float x", "'x' is not a valid float"),
        ("seed: !!int x", "'x' is not a valid int"),
        ("seed: !!bool x", "'x' is not a valid bool"),
        ("seed: " + "9" * 5000, "'" + "9" * 100 + "…' is not a valid int"),
        ("seed: !!python/name:os.system", "could not determine a constructor for the tag"),
        ("seed: !!omap [1]", "expected a mapping of length 1"),
        ("<<: 5", "expected a mapping or list of mappings for merging"),
        ("1: 2", "the key 1 is int, not text"),
        ("tower: {kind: mlp, on: 2}", "the key True is bool, not text"),
        ("a: &a [*a]", "nested more than 30 deep, or hold themselves"),
        ("sampler: &a {kind: mixed, parts: [*a]}", "or hold themselves"),
        ("[" * 1500 + "]" * 1500, "nested more than 30 deep"),
        ("{a: " * 1500 + "}" * 1500, "nested more than 30 deep"),
        (BOMB, "more than 100,000 values"),
        ("seed: \0", "special characters are not allowed"),
        ("seed: [1", "line 1, column 9"),
    ],
    ids=lambda value: re.sub(r"\W", "", value)[:20],
)
def test_odd_yaml(text, sentence):
    message = refusal(text)
    assert sentence in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3", (3, 1)),
        ("a: 1\nb: {c: 1,\n  d: 2, c: 3}", (3, 2)),
        ("a: 1\n'a': 2", (2, 1)),
    ],
)
def test_a_key_that_is_there_twice_is_refused_with_both_lines(text, lines):
    second, first = lines
    assert f"line {second}, " in refusal(text)
    assert f"is also in line {first}: keep one of them" in refusal(text)


def test_a_merge_key_is_no_repetition():
    text = "base: &b {epochs: 1, patience: 2}\ntrain: {<<: *b, epochs: 3}"
    assert load_yaml(text)["train"] == {"epochs": 3, "patience": 2}


def test_the_config_of_the_case_is_refused(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("name: c\nfeatures: {columns: {}}\nseed: 1\nfeatures: {id_dim: 8}\n")
    with pytest.raises(ConfigError, match=r"line 4.*'features' is also in line 2"):
        read_config(file)


def test_many_values_of_one_list_are_read():
    assert len(load_yaml(f"[{'1,' * (MAX_VALUES - 1)}]")) == MAX_VALUES - 1


def test_settings_from_code_are_bounded_too():
    raw = small_config()
    raw["sampler"] = {"kind": "mixed", "parts": [raw]}
    raw["itself"] = raw
    with pytest.raises(ConfigError, match="hold themselves"):
        parse_config(raw)
    with pytest.raises(ConfigError, match="the key 1 is int"):
        parse_config(small_config(tower={"kind": "mlp", 1: 2}))


@pytest.mark.parametrize("override", ["a=[1", "a={b: 1, b: 2}", f"a={'[' * 900}", "a=2024-02-30"])
def test_odd_overrides(tmp_path, override):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(small_config()))
    with pytest.raises(ConfigError, match="is not a YAML value") as caught:
        read_config(file, overrides=[override])
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("base", ["a" * 5000, "\0", "..", "~"])
def test_odd_names_of_the_extended_file(tmp_path, base):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"extends": base}))
    with pytest.raises(ConfigError, match="is not a file") as caught:
        read_config(file)
    assert len(str(caught.value)) < 2000


def test_a_log_in_place_of_a_config_is_not_parsed(tmp_path):
    file = tmp_path / "clicks.csv"
    file.write_text("user_id,item_id\n" + "u1,i1\n" * 200_000)
    with pytest.raises(ConfigError, match=r"1,200,016 bytes, but a config has at most 1,000,000"):
        read_config(file)


DELIMITED = {"kind": "delimited", "path": "log", "interactions": {"files": "*.csv"}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data__labels": [float("inf"), 0, 1]}, "data.labels.0 is inf: give a finite number"),
        ({"data__labels": []}, "'data.labels' is []"),
        ({"train__learning_rate": float("nan")}, "'train.learning_rate' is nan"),
        ({"train__learning_rate": float("inf")}, "train.learning_rate is inf: give a finite"),
        ({"train__learning_rate": "inf"}, "train.learning_rate is inf: give a finite number"),
        ({"train__clip_norm": 10**400}, "'train.clip_norm' is 1000"),
        ({"train__epochs": 10**30}, f"train.epochs is {10**30}: give a number of at most"),
        ({"train__epochs": "9" * 30}, f"train.epochs is {'9' * 30}: give a number of at most"),
        ({"seed": -1}, "'seed' is -1"),
        ({"seed": 10**5000}, "seed is a number of thousands of digits"),
        ({"sampler": {"kind": "popularity", "alpha": float("inf")}}, "sampler: alpha is inf"),
        ({"sampler": {"kind": "popularity", "alpha": "Infinity"}}, "sampler: alpha is inf"),
        (
            {"evaluation": {"baselines": [{"kind": "recent_hot", "places": 2**70}]}},
            f"evaluation.baselines.0: places is {2**70}",
        ),
        (
            {"features": {"activity": {"windows_h": [10**13]}}},
            "'features.activity.windows_h.0' is 10000000000000",
        ),
        (
            {"validation__ranges": {"amount": [None, None]}},
            "'amount' has no limit: give [smallest, largest]",
        ),
        ({"validation__ranges": {"price (€)": [2, 1]}}, "'price (€)' has 2 above 1"),
        ({"validation__ranges": {"amount": []}}, "validation.ranges.amount"),
        (
            {"validation__ranges": {"amount": [0, float("nan")]}},
            "validation.ranges.amount.1 is nan",
        ),
        ({"data__positive": "label = 1"}, "condition 'label = 1' is not an expression"),
        ({"data__positive": f"label > {'9' * 400}"}, "a number beyond 63 bits"),
        ({"data__positive": "label > ٣"}, "is not an expression"),
        (
            {"split": {"test_day": "0001-01-03", "train_days": 3}},
            "test_day 0001-01-03 is not within the years 1678 to 2261",
        ),
        ({"split": {"test_day": "9999-12-31"}}, "is not within the years"),
        (
            {"split": {"test_day": "2024-03-07", "train_days": 1_000_000}},
            "train_days 1000000 and test_days 1 around test_day 2024-03-07 is not within",
        ),
        ({"split": {"test_day": "2024-03-07", "test_days": 10**30}}, "is not within the years"),
        ({"split": {"kind": [1]}}, "split: kind is [1]: give a name, such as days"),
        ({"split": {"kind": {"a": 1}}}, "split: kind is {'a': 1}"),
        ({"split": {"kind": "fixed", "x": 1}}, "unknown key 'split.x': there are none"),
        ({"tower": {"kind": [1]}}, "'tower.kind' is [1]"),
        ({"sampler": {"kind": "unseen", "of": {"kind": [1]}}}, "'sampler.of.kind' is [1]"),
        ({"sampler": {"kind": "mixed", "parts": [{}]}}, "'sampler.parts.0.kind' is missing"),
        ({"sampler": {"kind": "mixed", "parts": [5]}}, "'sampler.parts.0' is 5"),
        (
            {"evaluation": {"rolling": {"refresh": 1}}},
            "unknown key 'evaluation.rolling.refresh': did you mean 'refresh_h'?",
        ),
        (
            {"features": {"columns": {"item": [{"column": "c", "kind": "text", "pool": "max"}]}}},
            "unknown key 'features.columns.item.0.pool': did you mean 'pooling'?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_odd_values(changes, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        parse_config(small_config(**changes))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "files", [".", "./", "/", "~/x.csv", "../x", "a/../b", "\0", "a\0.csv", ""]
)
def test_odd_file_patterns(files):
    source = DELIMITED | {"interactions": {"files": files}}
    with pytest.raises(ConfigError, match=r"data\.source\.interactions\.files"):
        parse_config(small_config(data={"source": source}))


def test_the_first_and_the_last_year_are_read():
    first = {"test_day": "1678-01-08", "train_days": 7}
    last = {"test_day": "2261-12-30", "test_days": 2}
    assert parse_config(small_config(split=first)).split.title == "1678-01-08"
    assert parse_config(small_config(split=last)).split.test_days == 2
    with pytest.raises(ConfigError, match="not within the years"):
        parse_config(small_config(split=first | {"train_days": 8}))
    with pytest.raises(ConfigError, match="not within the years"):
        parse_config(small_config(split=last | {"test_days": 3}))


def test_a_message_is_cut_whatever_it_shows():
    long = DataError(f"column {'x' * 10**6!r} is odd: rename it")
    assert len(str(long)) < LINE + 10
    assert str(long).startswith("column 'xxx")
    assert str(long).endswith(" is odd: rename it")
    many = ConfigError("\n".join(f"problem {i}" for i in range(10_000)))
    assert str(many).splitlines()[LINES - 1 :] == ["problem 39", "… and 9,960 lines more"]
    assert str(DataError()) == ""


def test_many_problems_are_cut():
    with pytest.raises(ConfigError, match="lines more") as caught:
        parse_config(small_config(data__labels=["x"] * 50_000))
    assert len(str(caught.value)) < 10_000


def test_a_shown_value_is_never_written_whole():
    value = ["lol"]
    for _ in range(60):  # 2 ** 60 texts
        value = [value, value]
    assert len(shown(value)) <= 101
    assert 90 < len(shown("a" * 10**6)) <= 101
