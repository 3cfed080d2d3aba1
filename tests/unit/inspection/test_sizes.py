from datetime import date, timedelta

import pytest

from dssm_core.inspection.sizes import (
    Window,
    choose_window,
    least_rows,
    list_length,
    list_lengths,
    train_settings,
    typical_rows,
)

FIRST = date(2024, 3, 1)


def days(*rows):
    return [(FIRST + timedelta(days=n), count) for n, count in enumerate(rows) if count]


def test_typical_rows_ignores_stray_days():
    assert typical_rows([1, 1, 1, 1, 100, 90, 80]) == 90
    assert typical_rows([]) == 0


@pytest.mark.parametrize(
    ("rows", "test_day", "train_days", "fewest"),
    [
        ([100] * 10, 10, 6, 100),
        ([100] * 9 + [20, 3], 9, 6, 100),  # the last days are partial
        ([100, 100, 80, 100], 4, 3, 80),
        ([100, 0, 100, 100, 100], 5, 2, 100),  # a gap ends the training days
        ([100, 100, 100, 0, 100], 3, 2, 100),  # no day before the last one
    ],
)
def test_the_last_whole_day_is_the_test_day(rows, test_day, train_days, fewest):
    expected = Window(date(2024, 3, test_day), train_days, fewest)
    assert choose_window(days(*rows)) == expected


def test_two_days_are_too_few():
    assert choose_window(days(100, 100)) is None
    assert choose_window([]) is None


@pytest.mark.parametrize(("fewest", "least"), [(1, 1), (9, 4), (250, 120), (108_345, 54_000)])
def test_the_floor_of_a_day(fewest, least):
    assert least_rows(fewest) == least


@pytest.mark.parametrize(
    ("items", "ks"),
    [
        (100_000, [20, 50, 200]),
        (2_000, [20, 50, 200]),
        (1_999, [10, 50, 100]),
        (600, [10, 20, 50]),
        (250, [5, 10, 20]),
        (40, [1, 2, 3]),
        (5, [1]),
    ],
)
def test_lists_are_at_most_a_tenth_of_the_catalogue(items, ks):
    assert list_lengths(list_length(items)) == ks
    assert ks[-1] * 10 <= items or ks == [1]


def test_a_small_log_takes_small_batches():
    assert "batch_size" in train_settings(10_000)
    assert "batch_size" not in train_settings(1_000_000)
