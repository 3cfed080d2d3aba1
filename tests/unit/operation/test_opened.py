"""The bundle that a command works on: versions, aliases, runs."""

import pytest

from dssm_core.errors import ArtifactError, ConfigError
from dssm_core.operation import opened as module
from dssm_core.operation.opened import opened
from dssm_core.registry.versions import FetchedVersion


class Store:
    """A registry of one model with two versions."""

    name, uri = "dssm-made", "here"

    def aliases(self):
        return {"champion": "1", "challenger": "2"}

    def tags(self, version):
        if version not in ("1", "2"):
            raise ConfigError(f"no version {version}")
        return {}


@pytest.mark.parametrize(("asked", "number"), [(None, "1"), ("challenger", "2"), ("2", "2")])
def test_a_version_is_a_number_or_an_alias_or_the_champion(bundle, monkeypatch, asked, number):
    folder = bundle.folder
    monkeypatch.setattr(module, "fetch", lambda store, version, _: FetchedVersion(version, folder))
    with opened(Store(), asked) as (found, about):
        assert about == {"model": "dssm-made", "version": number}
        assert len(found.users) == 4


def test_what_is_not_there_is_named(fabricate):
    for wrong, message in (
        ("best", "has no best: its aliases are challenger, champion"),
        ("9", "no version 9"),
    ):
        with pytest.raises(ConfigError, match=message), opened(Store(), wrong):
            pass
    store = Store()
    store.aliases = lambda: {"challenger": "2"}
    with (
        pytest.raises(ConfigError, match="has no champion: promote a version, or give one"),
        opened(store),
    ):
        pass
    run = fabricate()
    with (
        pytest.raises(
            ConfigError, match="version '1' is of a registered model, but run 'one' has no versions"
        ),
        opened(run, "1"),
    ):
        pass
    with opened(run) as (bundle, about):
        assert about == {"run": "one"}
        assert len(bundle.users) == 4
    (run.step("build_index") / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="dssm build_index --run"), opened(run):
        pass
