import numpy as np
import torch

from dssm_core.features.ragged import offsets, positions, ranges


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
