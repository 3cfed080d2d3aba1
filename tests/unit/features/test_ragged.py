import numpy as np
import torch

from dssm_core.features.ragged import distinct, offsets, positions, ranges


def test_every_number_of_every_row_by_hand():
    row, number = ranges(torch.tensor([5, 2, 9]), torch.tensor([8, 2, 11]))
    assert row.tolist() == [0, 0, 0, 2, 2]
    assert number.tolist() == [5, 6, 7, 9, 10]


def test_offsets_and_positions_of_rows_of_2_0_and_3_elements():
    counts = np.array([2, 0, 3])
    assert offsets(counts).tolist() == [0, 2, 2, 5]
    assert positions(counts).tolist() == [0, 1, 0, 1, 2]
    assert offsets(counts[:0]).tolist() == [0]
    assert positions(counts[:0]).tolist() == []


def test_distinct_keys_are_ascending():
    assert distinct(np.array([5, -1, 5, 3, -1])).tolist() == [-1, 3, 5]
    assert distinct(np.zeros(0, np.int64)).tolist() == []
