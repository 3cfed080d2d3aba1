import torch

from dssm_core.features.ragged import ranges


def test_every_number_of_every_row_by_hand():
    row, number = ranges(torch.tensor([5, 2, 9]), torch.tensor([8, 2, 11]))
    assert row.tolist() == [0, 0, 0, 2, 2]
    assert number.tolist() == [5, 6, 7, 9, 10]
