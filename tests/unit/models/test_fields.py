"""Fields by hand arithmetic: every pooling, any leading dimensions, borrowed tables."""

import copy

import pytest
import torch

from dssm_core.features.schema import Column, TowerColumns
from dssm_core.models.fields import Fields, attention, embedding

VECTORS = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, -4.0], [5.0, 6.0]])  # of codes 0 to 3


def multi(pooling, **changes):
    column = Column(
        **{"column": "tags", "size": 4, "dim": 2, "values": 3, "pooling": pooling} | changes
    )
    return TowerColumns(categorical=(), multi=(column,), numeric=0)


def pooled(side, codes):
    fields = Fields(side)
    with torch.no_grad():
        fields.tables[0].weight.copy_(VECTORS)
    (got,) = fields(
        torch.zeros(len(codes), 0, dtype=torch.int64),
        torch.tensor(codes)[:, None],
        torch.zeros(len(codes), 0),
    )
    return got.tolist()


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("sum", [[9, 4], [3, -4], [0, 0]]),
        ("mean", [[3, 4 / 3], [3, -4], [0, 0]]),
        (
            "max",
            [[5, 6], [3, -4], [0, 0]],
        ),  # the absent third value of the second row is no 0 to beat -4
    ],
)
def test_pooling_by_hand(pooling, expected):
    got = pooled(multi(pooling), [[1, 2, 3], [0, 2, 0], [0, 0, 0]])
    assert torch.allclose(torch.tensor(got), torch.tensor(expected, dtype=torch.float32))


def test_attention_by_hand():
    """Scores log 1 and log 3 of two held values: a quarter and three quarters of them; absent
    values weigh nothing.
    """
    embedded = VECTORS[torch.tensor([[1, 2, 3], [0, 0, 0]])]
    held = torch.tensor([[True, True, False], [False] * 3])
    score = torch.tensor([[1.0, 3.0, 100.0], [1.0, 1.0, 1.0]]).log()
    assert torch.allclose(attention(embedded, held, score), torch.tensor([[2.5, -2.5], [0, 0]]))


def test_attention_learns_its_scores_from_the_values():
    fields = Fields(multi("attention"))
    with torch.no_grad():
        fields.tables[0].weight.copy_(VECTORS)
        fields.pools[0].score.weight.copy_(torch.tensor([[torch.log(torch.tensor(3.0)) / 2, 0.0]]))
    codes = torch.tensor([[[1, 2, 0]]])  # scores log(3)/2 * 1 and * 3: weights 1 and 3
    (got,) = fields(torch.zeros(1, 0, dtype=torch.int64), codes, torch.zeros(1, 0))
    assert got[0].tolist() == pytest.approx([2.5, -2.5])
    got.sum().backward()
    assert fields.pools[0].score.weight.grad.abs().sum() > 0


def test_only_a_column_s_own_values_are_read():
    assert pooled(multi("sum", values=1), [[2, 3, 3]]) == [[3, -4]]


def test_a_code_without_a_row_is_the_unknown_one():
    """Codes 4 and 9 are ids that came after the table was made: they add nothing to a mean."""
    assert pooled(multi("mean"), [[1, 4, 9], [9, 4, 0]]) == [[1, 2], [0, 0]]
    side = TowerColumns(categorical=(Column(column="kind", size=4, dim=2),), multi=(), numeric=0)
    fields = Fields(side)
    (got,) = fields(torch.tensor([[4], [0]]), torch.zeros(2, 0, 1).long(), torch.zeros(2, 0))
    assert got.tolist() == [[0, 0], [0, 0]]


def test_fields_and_their_dims_for_any_leading_dimensions():
    side = TowerColumns(
        categorical=(Column(column="kind", size=4, dim=2), Column(column="kind", size=4, dim=2)),
        multi=(Column(column="tags", size=5, dim=3, values=2),),
        numeric=2,
    )
    fields = Fields(side)
    codes, lists, numbers = (
        torch.randint(4, (5, 7, 2)),
        torch.randint(5, (5, 7, 1, 4)),
        torch.randn(5, 7, 2),
    )
    whole = fields(codes, lists, numbers)
    assert [part.shape[-1] for part in whole] == fields.dims == [2, 2, 3, 2]
    assert all(part.shape[:2] == (5, 7) for part in whole)
    for part, one in zip(whole, fields(codes[2, 3], lists[2, 3], numbers[2, 3]), strict=True):
        torch.testing.assert_close(part[2, 3], one)
    assert not torch.equal(
        fields.tables[0].weight, fields.tables[1].weight
    )  # two columns of one name are two columns


def test_no_numbers_make_no_field():
    assert Fields(multi("mean")).dims == [2]


def test_a_lent_table_is_one_parameter_in_both_places():
    lender = Fields(multi("mean"))
    borrower = Fields(multi("mean", column="likes", shares="tags"), lender.own_modules())
    assert [name for name, _ in borrower.named_parameters()] == []
    both = torch.nn.ModuleList([lender, borrower])
    for pair in (both, copy.deepcopy(both)):
        inputs = (
            torch.zeros(1, 0, dtype=torch.int64),
            torch.tensor([[[1, 3, 0]]]),
            torch.zeros(1, 0),
        )
        pair[1](*inputs)[0].sum().backward()
        assert pair[0].tables[0].weight.grad[[1, 3]].abs().sum() > 0
        pair.zero_grad()


def test_the_unknown_is_zero_and_takes_no_gradient():
    table = embedding(3, 2)
    table(torch.tensor([0, 1])).sum().backward()
    assert table.weight[0].tolist() == table.weight.grad[0].tolist() == [0, 0]
