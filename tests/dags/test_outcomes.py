"""The outcome of a task that failed."""

from types import SimpleNamespace

import pytest

from dssm_core.errors import DataError
from tasks.outcomes import NOTE_LETTERS, tell_failure


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("3 rows are bad: mend them\nrow 1\nrow 2"), "3 rows are bad: mend them"),
        (OSError("redis://:secret@host is away"), "redis://***@host is away"),
        (KeyError(), "KeyError"),
        (ValueError("x" * 1000), "x" * NOTE_LETTERS),
    ],
)
def test_a_failed_task_tells_the_first_line_of_its_error(error, line):
    pushed = []
    task = SimpleNamespace(
        task_id="validate_data", xcom_push=lambda key, value: pushed.append((key, value))
    )
    tell_failure({"ti": task, "exception": error})
    assert pushed == [("outcome", f"validate_data failed: {line}")]
