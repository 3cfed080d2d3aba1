from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from dssm_core.features.normalise import POINTS, Normaliser

TRAIN = pd.Series([1.0, 1.0, None, 3.0, 5.0])


@pytest.mark.parametrize(
    ("kind", "asked", "expected"),
    [
        # mean 2.5, squares 2.25 + 2.25 + 0.25 + 6.25 = 11 over n - 1 = 3
        ("standard", [2.5, 1.0, None, "x"], [0, -1.5 / np.sqrt(11 / 3), 0, 0]),
        # shares below, ties half: 1 -> 1/4, 3 -> 2.5/4, 5 -> 3.5/4; as -1 to 1, between them by
        # line, ends held
        ("rank", [1, 3, 5, 2, -9, 99, None], [-0.5, 0.25, 0.75, -0.125, -0.5, 0.75, 0]),
        ("none", [2.5, -7, None], [2.5, -7, 0]),
    ],
)
def test_scales_by_hand(kind, asked, expected):
    assert Normaliser.fit(kind, TRAIN).apply(
        pd.Series(asked, dtype=object)
    ).tolist() == pytest.approx(expected, rel=1e-6)


def test_log_is_the_standard_of_logs():
    fitted = Normaliser.fit(
        "log", pd.Series([0.0, np.e - 1, 1 - np.e])
    )  # logs 0, 1, -1: mean 0, deviation 1
    assert fitted.apply(pd.Series([0, np.e - 1, np.e**2 - 1, 1 - np.e])).tolist() == pytest.approx(
        [0, 1, 2, -1]
    )


@pytest.mark.parametrize("kind", ["standard", "log", "rank", "none"])
def test_what_is_stored_scales_the_same(kind):
    fitted = Normaliser.fit(kind, pd.Series(np.random.default_rng(0).lognormal(size=5_000)))
    asked = pd.Series([0.1, 1, 30, None])
    again = Normaliser.model_validate_json(fitted.model_dump_json())
    np.testing.assert_array_equal(again.apply(asked), fitted.apply(asked))
    assert len(again.values) <= POINTS


def test_rank_is_even_whatever_the_distribution():
    numbers = pd.Series(np.random.default_rng(0).lognormal(sigma=3, size=5_000))
    scaled = np.sort(Normaliser.fit("rank", numbers).apply(numbers))
    np.testing.assert_allclose(scaled, np.linspace(-1, 1, 5_000), atol=2e-3)


@pytest.mark.parametrize("kind", ["standard", "log", "rank"])
@pytest.mark.parametrize(
    "train", [[], [None], [4.0], [4.0, 4.0], [0.1] * 30, [0.1 + 0.2, 0.3], [0.0] * 3, [-1e300, 1]]
)
def test_numbers_that_do_not_differ_say_nothing_about_others(kind, train):
    fitted = Normaliser.fit(kind, pd.Series(train, dtype=object))
    assert fitted.apply(pd.Series([4.0, None, 0.1, 0.2, -7e9])).tolist() == [0] * 5
    assert fitted.deviation == 1.0


def test_small_differences_beside_a_large_mean_count():
    """Times in ms an hour apart."""
    hours = pd.Series([1.7e12, 1.7e12 + 3.6e6])
    scaled = Normaliser.fit("standard", hours).apply(hours)
    assert scaled.tolist() == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5)])


@pytest.mark.parametrize("kind", ["standard", "log", "rank", "none"])
def test_a_marker_such_as_the_largest_double_is_a_missing_value(kind):
    huge = [1.797e308, -1.797e308, 1e39, np.inf]
    fitted = Normaliser.fit(kind, pd.Series([1.0, 2.0, 4.0, *huge]))
    assert fitted == Normaliser.fit(kind, pd.Series([1.0, 2.0, 4.0]))
    assert fitted.apply(pd.Series(huge)).tolist() == [0] * 4


@pytest.mark.parametrize("kind", ["standard", "log", "rank", "none"])
def test_the_largest_numbers_of_32_bits_are_scaled(kind):
    numbers = pd.Series([-3.4e38, 1.0, 3.4e38])
    fitted = Normaliser.fit(kind, numbers)
    assert Normaliser.model_validate_json(fitted.model_dump_json()) == fitted
    assert np.isfinite(fitted.apply(numbers)).all()


@pytest.mark.parametrize("values", [[True, False, None], [Decimal("1.00"), Decimal(0), None]])
def test_truth_values_and_decimals_are_numbers(values):
    fitted = Normaliser.fit("none", pd.Series([1.0, 0.0]))
    assert fitted.apply(pd.Series(values, dtype=object)).tolist() == [1, 0, 0]
