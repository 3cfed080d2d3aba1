"""What a history shows of an item, by hand; and towers that know items by their columns alone."""

import torch

from dssm_core.config import Features, parse_config
from dssm_core.features.inputs import ColumnTable, ItemInputs, UserInputs
from dssm_core.features.schema import Column, Schema, TowerColumns
from dssm_core.models.fields import embedding
from dssm_core.models.history_items import HistoryItems
from dssm_core.models.two_tower import TwoTower
from tests.conftest import small_config

KIND = {"column": "kind", "kind": "categorical"}
# three items of two kinds, one number each; row 0 is the unknown
ITEMS = ColumnTable(
    torch.tensor([[0], [1], [2], [1]]),
    torch.zeros(4, 0, 1, dtype=torch.int64),
    torch.tensor([[0.0], [3.0], [5.0], [3.0]]),
)
SIDE = TowerColumns(categorical=(Column(column="kind", size=3, dim=2),), multi=(), numeric=1)
AUDIENCE = Column(column="device", size=4, dim=2, values=5)


def made(
    item_ids: bool, fields: bool, side: TowerColumns = SIDE
) -> tuple[HistoryItems, torch.nn.Embedding, torch.nn.Embedding]:
    ids, kinds = embedding(4, 2), embedding(3, 2)
    features = Features.model_validate(
        {
            "id_dim": 2,
            "item_ids": item_ids,
            "history": {"fields": fields},
            "columns": {"item": [KIND]},
        }
    )
    return HistoryItems(features, ids, side, {"kind": kinds}, ITEMS), ids, kinds


def test_an_item_of_a_history_is_its_id_plus_its_columns() -> None:
    history = torch.tensor([[2, 0], [1, 3]])
    shown, ids, _ = made(item_ids=True, fields=False)
    assert torch.equal(shown(history), ids(history))
    for side in (
        SIDE,
        SIDE.model_copy(update={"multi": (AUDIENCE,), "numeric": 6}),
    ):  # activity is no column of the item
        shown, ids, kinds = made(item_ids=True, fields=True, side=side)
        weight = shown.project.weight  # [2, 2 of the kind + 1 number]
        by_hand = ids(torch.tensor(2)) + weight[:, :2] @ kinds(torch.tensor(2)) + weight[:, 2] * 5.0
        torch.testing.assert_close(shown(history)[0, 0], by_hand)
        assert shown(history)[0, 1].tolist() == [0, 0]
    shown, _, kinds = made(item_ids=False, fields=True)
    torch.testing.assert_close(
        shown(history)[1, 0], shown(history)[1, 1]
    )  # items 1 and 3 have the same columns
    assert not shown(history)[0, 0].equal(shown(history)[1, 0])
    assert {name for name, _ in shown.named_parameters()} == {
        "project.weight"
    }  # tables are the towers' own
    shown(history).sum().backward()
    assert kinds.weight.grad is not None


def test_without_item_ids_items_of_equal_columns_are_one_vector() -> None:
    features = {
        "columns": {"item": [KIND]},
        "item_ids": False,
        "history": {"fields": True},
        "activity": {"enabled": False},
        "id_dim": 4,
    }
    config = parse_config(small_config(features=features, sampler={"kind": "uniform"}))
    schema = Schema(
        items=4, users=3, user=TowerColumns(categorical=(), multi=(), numeric=1), item=SIDE
    )
    model = TwoTower(config, schema, ITEMS)
    codes = torch.arange(1, 4)
    items = model.items(
        ItemInputs(codes, ITEMS.categorical[codes], ITEMS.multi[codes], ITEMS.numeric[codes])
    )
    assert items[0].equal(items[2])
    assert not items[0].equal(items[1])
    none = torch.zeros(2, 0, dtype=torch.int64)
    users = model.users(
        UserInputs(
            torch.tensor([1, 2]), torch.tensor([[1], [3]]), none, none[..., None], torch.ones(2, 1)
        )
    )
    torch.testing.assert_close(users[0], users[1])
    assert model.item_id.num_embeddings == 1  # no weights that nothing would train
