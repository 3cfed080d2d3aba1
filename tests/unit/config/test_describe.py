"""docs/settings.md and configs/schema.json are what the models say."""

import json

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from dssm_core import families
from dssm_core.cli.main import main
from dssm_core.config import describe
from dssm_core.config.members import FAMILIES
from dssm_core.config.schema import schema_text
from tests.conftest import REPO, small_config

CONFIGS = sorted((REPO / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def groups():
    return describe.all_groups()


@pytest.fixture(scope="module")
def validator():
    schema = json.loads((REPO / "configs" / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def as_json(raw):
    """A YAML mapping as an editor sees it: dates are text."""
    return json.loads(json.dumps(raw, default=str))


def test_the_page_is_up_to_date(groups):
    """If not: dssm settings --markdown > docs/settings.md"""
    assert (REPO / "docs" / "settings.md").read_text() == describe.page(groups)


def test_the_schema_is_up_to_date():
    """If not: dssm settings --schema > configs/schema.json"""
    assert (REPO / "configs" / "schema.json").read_text() == schema_text()


def test_every_setting_has_a_meaning(groups):
    settings = [setting for group in groups for setting in group.settings]
    assert len(settings) > 150
    assert [setting.path for setting in settings if not setting.meaning] == []
    assert all(group.text for group in groups)


def test_every_member_of_every_family_is_there(groups):
    listed = {(group.path, group.kind) for group in groups if group.kind}
    members = {
        (path, kind) for path, family in FAMILIES.items() for kind in family if path != "item_tower"
    }
    assert listed == members


def test_a_setting_by_hand(groups):
    (group,) = describe.matching(groups, "features.activity.refresh_h")
    (setting,) = group.settings
    assert (setting.type, setting.default, setting.unit) == (
        "whole number ≥ 1 ≤ 876000",
        "24",
        "hours",
    )
    (group,) = describe.matching(groups, "model.temperature")
    assert group.settings[0].used_by == "all but loss ccl, triplet"
    (group,) = describe.matching(groups, "features.columns.user.dim")
    assert group.settings[0].used_by == "kind categorical, multi, text, vector"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: str(file.relative_to(REPO)))
def test_shipped_configs_keep_to_the_schema_and_refer_to_it(file, validator):
    text = file.read_text()
    validator.validate(as_json(yaml.safe_load(text)))
    head, _, path = text.splitlines()[0].partition("$schema=")
    assert head == "# yaml-language-server: "
    assert (file.parent / path).resolve() == REPO / "configs" / "schema.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"train__epoch": 3},
        {"train__epochs": 0},
        {"loss": {"kind": "magic"}},
        {"loss": {"kind": "bce", "margin": 0.1}},
        {"evaluation": {"baselines": ["hott"]}},
        {"split": {"train_dais": 3}},
    ],
)
def test_the_schema_refuses_what_is_wrong(changes, validator):
    assert not validator.is_valid(as_json(small_config(**changes)))


def test_the_command_prints_a_setting_and_names_the_closest_one():
    printed = CliRunner().invoke(main, ["settings", "train.negatives"])
    assert printed.exit_code == 0
    assert printed.output.startswith("train.negatives  (whole number ≥ 1; default: 1024)")
    wrong = CliRunner().invoke(main, ["settings", "train.negative"])
    assert wrong.exit_code == 1
    assert "did you mean 'train.negatives'?" in wrong.output


def test_a_member_is_summed_up_from_its_source_by_one_sentence():
    assert families.summary(families.TOWERS["senet"]) == (
        "A perceptron over fields that are first scaled by how much they matter for the row"
    )
    for family in (families.TOWERS, families.LOSSES, families.SAMPLERS, families.BASELINES):
        summaries = [families.summary(path) for path in family.values()]
        assert all(summaries)
        assert len(set(summaries)) == len(family)
