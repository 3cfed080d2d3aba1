"""Fields of vectors by hand: a linear map that the item tower and the histories share."""

from __future__ import annotations

import torch

from dssm_core.config import Features
from dssm_core.features.inputs import ColumnTable
from dssm_core.features.schema import TowerColumns, VectorColumn
from dssm_core.models.fields import Fields, embedding
from dssm_core.models.history_items import HistoryItems

NUMBERS = torch.tensor([[0, 0, 0, 0], [1, 2, 3, 9], [4, 5, 6, 8]], dtype=torch.float32)


def side(dim: int) -> TowerColumns:
    """Vectors of two and of one number, then one other number."""
    vectors = (
        VectorColumn(column="v", width=2, dim=dim),
        VectorColumn(column="w", width=1, dim=0),
    )
    return TowerColumns(categorical=(), multi=(), numeric=1, vectors=vectors)


def shown(fields: Fields, numbers: torch.Tensor) -> list[torch.Tensor]:
    none = torch.zeros(*numbers.shape[:-1], 0, dtype=torch.int64)
    return fields(none, none[..., None], numbers)


def test_a_vector_is_mapped_or_taken_as_it_is() -> None:
    fields = Fields(side(dim=3))
    assert fields.dims == [3, 1, 1]
    mapped, frozen, number = shown(fields, NUMBERS)
    weight = fields.maps["0"].weight  # [3, 2]
    torch.testing.assert_close(mapped[2], weight[:, 0] * 4 + weight[:, 1] * 5)
    assert frozen.tolist() == [[0], [3], [6]]
    assert number.tolist() == [[0], [9], [8]]
    assert mapped[0].tolist() == [0, 0, 0]  # a missing vector
    places = shown(fields, NUMBERS.expand(2, 3, 4))  # at every place of a history
    assert [list(field.shape) for field in places] == [[2, 3, 3], [2, 3, 1], [2, 3, 1]]
    fields = Fields(side(dim=0))
    assert fields.dims == [2, 1, 1]
    assert not list(fields.parameters())
    assert shown(fields, NUMBERS)[0].tolist() == [[0, 0], [1, 2], [4, 5]]


def test_histories_show_vectors_by_the_map_of_the_items() -> None:
    item_fields = Fields(side(dim=2))
    none = torch.zeros(3, 0, dtype=torch.int64)
    items = ColumnTable(none, none[..., None], NUMBERS)
    features = Features.model_validate(
        {
            "id_dim": 2,
            "history": {"fields": True},
            "columns": {"item": [{"column": name, "kind": "vector"} for name in "vw"]},
        }
    )
    with_activity = side(dim=2).model_copy(update={"numeric": 8})  # which histories do not show
    ids = embedding(3, 2)
    module = HistoryItems(features, ids, with_activity, item_fields.own_modules(), items)
    history = torch.tensor([[2, 0]])
    mapped = item_fields.maps["0"].weight @ torch.tensor([4.0, 5.0])
    numbers = torch.cat([mapped, torch.tensor([6.0, 8.0])])
    expected = ids(torch.tensor(2)) + module.project.weight @ numbers
    torch.testing.assert_close(module(history)[0, 0], expected)
    assert module(history)[0, 1].tolist() == [0, 0]
    assert [name for name, _ in module.named_parameters()] == ["project.weight"]
    module(history).sum().backward()
    assert item_fields.maps["0"].weight.grad is not None
