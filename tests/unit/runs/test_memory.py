"""The memory that steps plan with: of the config, else half of the machine's or its cgroup's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dssm_core.config import Resources, parse_config
from dssm_core.data.database import connect, one_row
from dssm_core.errors import ConfigError
from dssm_core.runs.memory import GIB, available, planned
from dssm_core.runs.run import create_run
from dssm_core.runs.step_key import step_key
from dssm_core.runs.table import STEPS
from tests.conftest import small_config

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "7000", "a/memory.max": "9000"}, 7000),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "9000"}, 9000),
        ("0::/outside\n", {"memory.max": "5000"}, 5000),  # a container sees itself as the root
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "3000"}, 3000),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
        ("", {}, MACHINE),
    ],
)
def test_the_smallest_limit_counts(
    tmp_path: Path, own: str, limits: dict[str, str], expected: int
) -> None:
    for name, text in limits.items():
        write(tmp_path / "cgroup" / name, f"{text}\n")
    assert available(tmp_path / "cgroup", write(tmp_path / "own", own)) == expected
    assert available(tmp_path / "none", tmp_path / "none") == MACHINE


def test_the_setting_bounds_duckdb_and_parts(tmp_path: Path) -> None:
    memory = planned(Resources(memory_gib=4))
    assert memory.duckdb == 2 * GIB
    assert memory.rows(512) == 2**20  # an eighth of 4 GiB
    assert planned(Resources()).total == max(GIB, int(available() / 2))
    with connect(tmp_path / "work", Resources(memory_gib=2)) as con:
        assert one_row(con, "SELECT current_setting('memory_limit')") == ("1.0 GiB",)


def test_too_little_memory_is_refused_with_the_number() -> None:
    with pytest.raises(ConfigError, match=r"resources\.memory_gib.*1"):
        parse_config(small_config(resources={"memory_gib": 0.5}))


def test_memory_is_no_part_of_a_run(tmp_path: Path) -> None:
    """The same run goes on with another memory, and its steps keep their keys."""
    run = create_run(parse_config(small_config()), tmp_path, "one")
    keys = {name: step_key(run, step) for name, step in STEPS.items() if not step.needs}
    again = create_run(parse_config(small_config(resources={"memory_gib": 3})), tmp_path, "one")
    assert again.config.resources.memory_gib == 3
    assert {name: step_key(again, STEPS[name]) for name in keys} == keys
