"""Odd and damaged inputs: a clear error, or rows that add up and no test row in train.

DSSM_FUZZ=10000 tries that many inputs (`make fuzz`) and prints what they led to.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.inputs import inputs
from tests.fuzz.outcome import Fault, outcome

QUICK = 30  # inputs of the quick tests
MANY = int(os.environ.get("DSSM_FUZZ", "0"))


@settings(
    max_examples=QUICK,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(inputs())
def test_each_input_is_refused_clearly_or_split_correctly(given_input):
    with tempfile.TemporaryDirectory() as folder:
        outcome(given_input, Path(folder))


@pytest.mark.skipif(not MANY, reason="set DSSM_FUZZ to a number of inputs, as `make fuzz` does")
@pytest.mark.timeout(0)
def test_many_inputs(capsys):
    """Goes on after a fault, and lists each kind of fault once with its first input."""
    counts: Counter[str] = Counter()
    faults: set[str] = set()

    @settings(
        max_examples=MANY,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs())
    def try_one(given_input):
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts[outcome(given_input, Path(folder))] += 1
            except Fault as fault:
                counts[str(fault).partition(":")[0]] += 1
                if str(fault)[:100] not in faults:
                    faults.add(str(fault)[:100])
                    tell(f"{fault}\n{given_input}"[:4000])
        if counts.total() % 250 == 0:
            tell(f"{counts.total():,} inputs: {dict(counts)}")

    def tell(text):
        with capsys.disabled():
            print(f"\n{text}", flush=True)

    try_one()
    tell(f"{counts.total():,} inputs: {dict(counts)}")
    assert not faults
