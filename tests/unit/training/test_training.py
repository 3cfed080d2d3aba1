"""Trainer, validation, checkpoint and encoder on a small prepared log."""

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from dssm_core.config import Train, parse_config
from dssm_core.errors import ConfigError
from dssm_core.evaluation import queries, query_rows
from dssm_core.families import TOWERS
from dssm_core.features.dataset import load_prepared
from dssm_core.features.histories import Histories
from dssm_core.features.inputs import item_inputs
from dssm_core.models.two_tower import TwoTower
from dssm_core.retrieval import bundle
from dssm_core.retrieval.encoder import Encoder
from dssm_core.runs.run import create_run
from dssm_core.runs.transaction import execute
from dssm_core.training.checkpoint import load_checkpoint, save_checkpoint
from dssm_core.training.device import choose_device
from dssm_core.training.epoch_selection import HeldOutQueries
from dssm_core.training.notes import notes
from dssm_core.training.objective import Objective
from dssm_core.training.optimizers import horizon, learning_rate
from dssm_core.training.trainer import Trainer
from dssm_core.training.update import Update
from tests.conftest import embed_rows, small_config

BEFORE_TRAINING = ("ingest_data", "validate_data", "split_by_time", "sample_negatives")


def settings(**changes):
    raw = small_config(**changes)
    raw["data"]["source"] |= {"users": 300, "items": 400, "clicks": 5_000}
    return parse_config(raw)


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory):
    counter, folder = itertools.count(), tmp_path_factory.mktemp("runs")

    def make(**changes):
        run = create_run(settings(**changes), folder, f"run{next(counter)}")
        for name in BEFORE_TRAINING:
            execute(run, name)
        return run

    return make


@pytest.fixture(scope="module")
def plain(prepared_run):
    return prepared_run()


def fit(run, tmp_path):
    samples = run.step("sample_negatives")
    trainer = Trainer(
        run.config,
        load_prepared(samples),
        samples,
        torch.device("cpu"),
        tmp_path / "c.pt",
        lambda values, step: None,
    )
    return trainer.fit(), trainer


@pytest.fixture(scope="module")
def trained(plain, tmp_path_factory):
    return fit(plain, tmp_path_factory.mktemp("plain"))


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_learning_rate_by_hand():
    rates = [
        learning_rate(Train(learning_rate=1.0, warmup_share=0.2), done, 10)
        for done in (0, 1, 2, 6, 10)
    ]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0])


def test_the_horizon_doubles_up_to_its_limit():
    assert [horizon(Train(epochs=3), epoch) for epoch in (0, 2, 3, 4)] == [3, 3, 3, 3]
    extended = Train(epochs=3, max_epochs=10)
    reached = [horizon(extended, epoch) for epoch in (0, 2, 3, 5, 6, 9, 10)]
    assert reached == [3, 3, 6, 6, 10, 10, 10]
    with pytest.raises(ValueError, match=r"max_epochs is 2, below train.epochs \(3\)"):
        Train(epochs=3, max_epochs=2)


def test_the_same_seed_gives_the_same_towers(plain, trained, tmp_path):
    assert torch.equal(weights(fit(plain, tmp_path)[0]), weights(trained[0]))


def test_gradients_of_a_large_batch_do_not_depend_on_the_threads(prepared_run):
    """Many events share an item; its gradient is summed in the same order on any threads."""
    run = prepared_run(model={"dim": 512}, train={"batch_size": 4096, "device": "cpu"})
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    torch.manual_seed(0)
    model, rows = (
        TwoTower(run.config, prepared.schema, prepared.items),
        objective.examples.batches(4096, 0)[0],
    )
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    gradients = []
    for _ in range(10):
        model.zero_grad()
        objective(model, rows, torch.Generator().manual_seed(0)).backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    torch.set_num_threads(before)
    assert all(torch.equal(gradients[0], other) for other in gradients)


KNOBS = [
    {"seed": 5},
    {"train__epochs": 3},
    {"train__batch_size": 100},
    {"train__negatives": 64},
    {"train__learning_rate": 0.01},
    {"train__weight_decay": 0.5},
    {"train__clip_norm": 0.01},
    {"train__warmup_share": 0.5},
    {"train__ema_decay": 0.5},
    {"train__precision": "bf16"},
    {"train__id_dropout": 0.5},
    {"model__temperature": 0.2},
    {"features__init_std": 0.01},
    {"model__learn_temperature": False},
    {"features__history": {"length": 3}},
    {"features__history": {"decays": [0.2]}},
    {"features__activity": {"audience": 2}},
    {"features__activity": {"refresh_h": 12}},
    {"sampler": {"kind": "uniform"}},
    {"sampler": {"kind": "popularity", "alpha": 0.1}},
    {"sampler": {"kind": "active", "alpha": 0.1}},
    {"sampler": {"kind": "active", "window_h": 3}},
    {"sampler": {"kind": "active", "uniform_share": 0.9}},
    {"sampler": {"kind": "in_batch"}, "train__negatives": 1024},
    {"loss": {"kind": "bce"}},
    {"loss": {"kind": "bce", "log_q": False}},
    {"loss": {"kind": "in_batch_softmax"}},
    {"loss": {"kind": "in_batch_softmax", "streaming": {"step": 0.05}}},
    {"loss": {"kind": "full_softmax"}, "train__negatives": 1024},
    {"sampler": {"kind": "unseen"}, "train__negatives": 10},
    {
        "sampler": {
            "kind": "mixed",
            "parts": [{"kind": "frequency_bands", "share": 0.5}, {"kind": "ralm", "share": 0.5}],
        }
    },
    {"loss": {"kind": "triplet"}},
    {"loss": {"kind": "bpr"}},
    {"loss": {"kind": "ccl"}},
    {"loss": {"kind": "gbce"}, "sampler": {"kind": "uniform"}},
    {"loss": {"kind": "sampled_softmax", "log_q": False}},
]


@pytest.mark.parametrize("changes", KNOBS, ids=str)
def test_a_knob_of_the_same_shapes_changes_the_towers(changes, prepared_run, trained, tmp_path):
    model, _ = fit(prepared_run(**changes), tmp_path)
    assert weights(model).isfinite().all()
    assert not torch.equal(weights(model), weights(trained[0]))


def test_id_dropout_hides_its_share_of_a_batchs_ids_from_the_item_tower(prepared_run, monkeypatch):
    run = prepared_run(train__id_dropout=0.25)
    samples = run.step("sample_negatives")
    prepared, seen = load_prepared(samples), []
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    model = TwoTower(run.config, prepared.schema, prepared.items)
    embed = model.items
    monkeypatch.setattr(model, "items", lambda inputs: seen.append(inputs.item) or embed(inputs))
    for seed, rows in enumerate(objective.examples.batches(512, seed=0)[:6]):
        objective(model, rows, torch.Generator().manual_seed(seed))
    shown = torch.cat(seen) > 0
    assert len(shown) > 500
    assert 0.69 < shown.float().mean() < 0.81  # 0.75, give or take 0.02


@pytest.mark.parametrize(
    "changes",
    [
        {"features__id_dim": 8},
        {"model__dim": 16},
        {"tower": {"kind": "mlp", "hidden": [32, 16]}},
        {"features__activity": {"windows_h": [2]}},
        {"features__activity": {"enabled": False}, "sampler": {"kind": "uniform"}},
        {"features__history": {"length": 0}},
    ],
    ids=str,
)
def test_a_knob_of_shapes_changes_the_parameters(changes, prepared_run, trained, tmp_path):
    model, _ = fit(prepared_run(**changes), tmp_path)
    assert len(weights(model)) != len(weights(trained[0]))


PLACES = {
    "features__activity": {"enabled": False},
    "sampler": {"kind": "uniform"},
    "evaluation__baselines": ["hot"],
}


@pytest.fixture(scope="module")
def by_place(prepared_run, tmp_path_factory):
    return fit(prepared_run(**PLACES), tmp_path_factory.mktemp("places"))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"train__target": "future"},
        {"train__target": "rest", "features__columns": {"context": []}},
        {"train__refit": False},
        {"train__sparse_rows": 10},
        {"model__similarity": "dot"},
        {"features__history": {"learn_decays": True}},
        {
            "loss": {"kind": "full_softmax"},
            "sampler": {"kind": "active"},
            "train__negatives": 1024,
        },
        {"tower": {"kind": "mlp", "dropout": 0.3}},
    ],
    ids=str,
)
def test_a_knob_of_training_by_place_changes_the_towers(changes, prepared_run, by_place, tmp_path):
    model, _ = fit(prepared_run(**PLACES | changes), tmp_path)
    assert weights(model).isfinite().all()
    assert not torch.equal(weights(model), weights(by_place))


@pytest.mark.parametrize("kind", sorted(TOWERS))
def test_every_tower_trains_by_place_and_by_refresh_and_learns(kind, prepared_run, tmp_path):
    for place, ways in enumerate((PLACES, {})):
        run = prepared_run(
            **ways,
            tower={"kind": kind},
            train={"epochs": 2, "batch_size": 64, "negatives": 128, "refit": False},
        )
        (tmp_path / str(place)).mkdir()
        _, trainer = fit(run, tmp_path / str(place))
        losses = [
            point["train_loss"] for point in trainer.progress.history if "train_loss" in point
        ]
        assert losses[-1] < losses[0] - 0.1


def test_large_tables_are_updated_by_row_and_left_out_of_the_average(prepared_run, tmp_path):
    model, trainer = fit(prepared_run(**PLACES, train__sparse_rows=10, train__epochs=1), tmp_path)
    assert model.item_id.weight is trainer.model.item_id.weight
    assert trainer.model.item_id.weight.grad.is_sparse
    assert not torch.equal(weights(model.item_tower), weights(trainer.model.item_tower))
    assert len(trainer.optimizers.members) == 2


def test_a_lazy_step_is_adams_first_step_on_the_rows_it_touches():
    rows, dense, sparse = (
        torch.tensor([1, 3, 3]),
        torch.nn.Embedding(5, 2),
        torch.nn.Embedding(5, 2, sparse=True),
    )
    sparse.load_state_dict(dense.state_dict())
    before = dense.weight.detach().clone()
    for table, optimizer in ((dense, torch.optim.Adam), (sparse, torch.optim.SparseAdam)):
        table(rows).square().sum().backward()
        optimizer(table.parameters(), lr=0.1).step()
    torch.testing.assert_close(sparse.weight, dense.weight)
    assert torch.equal(sparse.weight[[0, 2, 4]], before[[0, 2, 4]])


def test_divergence_is_an_error_that_says_what_to_lower(prepared_run, tmp_path):
    run = prepared_run(train={"epochs": 2, "learning_rate": 1e30, "device": "cpu"})
    with pytest.raises(
        ConfigError,
        match=r"diverged in the select phase at step .*, learning rate .*: [a-z_@0-9]+ (nan|inf);"
        r" lower train\.learning_rate",
    ):
        fit(run, tmp_path)


@pytest.mark.parametrize("loss", ["sampled_softmax", "in_batch_softmax"])
def test_in_batch_log_q_counts_training_events_only(prepared_run, loss):
    """What the batch's items are expected to be is taken over the events that training sees, not
    over dropped ones.
    """
    run = prepared_run(loss={"kind": loss}, sampler={"kind": "in_batch"}, train__negatives=1024)
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    events = objective.examples.events
    bucket = int(events.bucket[0])
    rows = (events.bucket == bucket) & (events.item > 0)
    items, counts = events.item[rows].unique(return_counts=True)
    ((name, sampler),) = objective.samplers.items()
    got = sampler.log_q(objective.tables[name], bucket, items, events).exp()
    torch.testing.assert_close(got, counts / counts.sum())


def some_events(prepared_run, **changes):
    """An objective, a model, and a batch of it."""
    run = prepared_run(**changes)
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    torch.manual_seed(0)
    objective, model = (
        Objective(run.config, prepared, prepared.log, samples, "refit"),
        TwoTower(run.config, prepared.schema).eval(),
    )
    rows = objective.examples.batches(16, 0)[0]
    return objective, model, rows, objective.examples.take(rows, torch.Generator().manual_seed(3))


def scores_of(objective, model, batch, n, items):
    """Logits of the n-th event against some items, embedded by themselves."""
    as_of, config = int(objective.times[batch.bucket]), objective.config
    vectors = model.items(
        item_inputs(objective.log, objective.items, items, as_of, config.features, objective.scale)
    )
    return model.users(batch.inputs)[n] @ vectors.T / model.temperature


@torch.no_grad()
def test_own_negatives_equal_a_loop(prepared_run):
    """Binary cross-entropy with 5 negatives a row that the row's user has not clicked."""
    changes = {
        "sampler": {"kind": "unseen"},
        "loss": {"kind": "bce", "log_q": False},
        "train__negatives": 5,
    }
    objective, model, rows, batch = some_events(prepared_run, **changes)
    drawn = objective.samplers["sampler"].draw(
        objective.tables["sampler"], batch.bucket, 5, batch.events, torch.Generator().manual_seed(3)
    )
    losses = []
    for n, (user, own) in enumerate(
        zip(batch.events.user.tolist(), batch.events.item.tolist(), strict=True)
    ):
        assert not set(drawn[n].tolist()) & set(
            objective.log.item[objective.log.user == user].tolist()
        )
        scores = scores_of(objective, model, batch, n, torch.tensor([own, *drawn[n].tolist()]))
        losses.append(softplus(-scores[0]) + softplus(scores[1:]).sum())
    torch.testing.assert_close(
        objective(model, rows, torch.Generator().manual_seed(3)), torch.stack(losses).mean()
    )


@torch.no_grad()
def test_full_softmax_is_cross_entropy_over_all_items(prepared_run):
    objective, model, rows, batch = some_events(
        prepared_run, loss={"kind": "full_softmax"}, train__negatives=1024
    )
    items = torch.arange(1, len(objective.log.created))
    scores = torch.stack(
        [scores_of(objective, model, batch, n, items) for n in range(len(batch.events.item))]
    )
    torch.testing.assert_close(
        objective(model, rows, torch.Generator()), cross_entropy(scores, batch.events.item - 1)
    )


@torch.no_grad()
def test_ccl_sees_cosines_not_logits(prepared_run):
    """No candidate reaches cosine 0.999, so that a loss is one minus the positive's cosine."""
    objective, model, rows, batch = some_events(prepared_run, loss={"kind": "ccl", "margin": 0.999})
    own = [
        scores_of(objective, model, batch, n, item[None])[0] * model.temperature
        for n, item in enumerate(batch.events.item)
    ]
    torch.testing.assert_close(
        objective(model, rows, torch.Generator()), 1 - torch.stack(own).mean()
    )


def test_patience_ends_the_search_for_epochs(prepared_run, tmp_path):
    """A learning rate of nearly nothing: no epoch is better than the first, so patience 1 stops
    after the second.
    """
    run = prepared_run(
        train={
            "epochs": 6,
            "patience": 1,
            "learning_rate": 1e-12,
            "ema_decay": 0.0,
            "device": "cpu",
        }
    )
    _, trainer = fit(run, tmp_path)
    judged = [
        point["train_epoch"] for point in trainer.progress.history if "valid_recall@200" in point
    ]
    assert judged == [1, 2]
    assert trainer.progress.best_epoch == 1


def test_epochs_are_added_as_long_as_the_last_one_is_the_best(prepared_run, tmp_path, monkeypatch):
    """Epochs 1, 2 and 4 are the last and the best; 5 and 6 are not better, so that patience 2 stops
    before the limit. The refit repeats the learning rates of the first four.
    """
    values = iter([0.1, 0.2, 0.15, 0.3, 0.2, 0.2])
    monkeypatch.setattr(HeldOutQueries, "score", lambda *_: next(values))
    rates = []
    update = Update.__call__

    def noted(self, rows, seed, rate, first):
        rates.append(rate)
        return update(self, rows, seed, rate, first)

    monkeypatch.setattr(Update, "__call__", noted)
    run = prepared_run(train={"epochs": 1, "max_epochs": 16, "patience": 2, "device": "cpu"})
    _, trainer = fit(run, tmp_path)
    assert next(values, None) is None
    assert trainer.progress.best_epoch == 4
    steps = trainer.steps_per_epoch
    refit = rates[-4 * steps :]
    for epoch, total in enumerate([1, 2, 4, 4]):
        last = (epoch + 1) * steps - 1
        assert refit[last] == learning_rate(run.config.train, last, total * steps)


def test_validation_recall_equals_a_loop(plain):
    config, prepared = plain.config, load_prepared(plain.step("sample_negatives"))
    torch.manual_seed(0)
    model = TwoTower(config, prepared.schema, prepared.items).eval()
    config = config.model_copy(
        update={"train": config.train.model_copy(update={"metric": "recall@20"})}
    )
    log, as_of = prepared.log, prepared.log.end - 24 * 3_600_000
    got = HeldOutQueries(config, log).score(model, prepared)

    from dssm_core.features.inputs import item_inputs, users_as_of

    known = log.before(as_of)
    catalogue = [code for code in range(1, len(log.created)) if log.created[code] < as_of]
    codes = torch.tensor(catalogue)
    with torch.no_grad():
        vectors = model.items(
            item_inputs(known, prepared.items, codes, as_of, config.features, prepared.scale)
        )
    after = [
        (u, i)
        for u, i, t in zip(log.user.tolist(), log.item.tolist(), log.time.tolist(), strict=True)
        if t >= as_of
    ]
    recalls = []
    for user in sorted({u for u, _ in after} & set(known.user.tolist())):
        wanted = {i for u, i in after if u == user} & set(catalogue)
        if not wanted:
            continue
        with torch.no_grad():
            query = model.users(
                users_as_of(
                    known,
                    prepared.users,
                    torch.tensor([user]),
                    torch.tensor([as_of]),
                    config.features,
                )
            )
        top = codes[(query @ vectors.T)[0].topk(20).indices].tolist()
        recalls.append(len(wanted & set(top)) / len(wanted))
    assert got == pytest.approx(np.mean(recalls), abs=1e-6)


def test_a_served_user_equals_the_exported_one(prepared_run, monkeypatch, tmp_path):
    """Training's features and serving's are one: the encoder, told a history, gives the vector
    exported as of the cutoff.
    """
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = prepared_run()
    for name in ("train_towers", "export_embeddings", "build_index"):
        execute(run, name)
    folder = bundle.assemble(run, tmp_path / "bundle")
    encoder = Encoder(folder)
    data = queries.read_evaluation_data(run)
    asked = data.all
    columns = tuple(feature.column for feature in run.config.features.columns.context)
    frame = query_rows.RequestRows.of(asked, data.items, columns).part(0, len(asked.codes))
    exported = np.load(folder / "user_embeddings.npy")
    np.testing.assert_allclose(embed_rows(encoder, frame), exported[asked.codes], atol=1e-5)
    items = np.load(folder / "item_embeddings.npy")
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    assert len(items) == len(encoder.item_ids.index)
    nobody = pd.DataFrame({"user_id": ["nobody"], "history": [["no such item"]]})
    np.testing.assert_allclose(embed_rows(encoder, nobody)[0], exported[0], atol=1e-5)


def test_histories_are_cut_to_the_newest_known(plain, tmp_path):
    """Items that came after the training, here rows 8 and 9, have no trained embedding."""
    encoder = object.__new__(Encoder)
    encoder.prepared = SimpleNamespace(schema=SimpleNamespace(items=9))
    rows = np.array([0, 1, 2, 6, 3, 8, 4, 9])
    histories = Histories.of(np.array([0, 0, 0, 2, 3, 3, 3, 3]), rows, 4)
    assert encoder._history(histories, 2).tolist() == [[2, 3], [0, 0], [7, 0], [4, 5]]


def test_checkpoints_come_back_and_pickles_are_refused(tmp_path):
    file = tmp_path / "c.pt"
    assert load_checkpoint(file) is None
    save_checkpoint(file, {"step": 3, "weights": torch.arange(3)})
    assert load_checkpoint(file)["weights"].tolist() == [0, 1, 2]

    class Evil:
        def __reduce__(self):
            return print, ("owned",)

    torch.save({"x": Evil()}, file)
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(file)


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match=r"train\.device is 'cuda' but torch sees no GPU"):
        choose_device("cuda")


def test_an_epoch_of_fewer_events_takes_others_each_time_and_is_continued(prepared_run, tmp_path):
    run = prepared_run(train={"events_per_epoch": 500, "epochs": 3, "batch_size": 50})
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit")
    epochs = [
        torch.cat([rows.at for rows in objective.batches(seed=epoch, epoch=epoch)]).unique()
        for epoch in range(2)
    ]
    assert [len(rows) for rows in epochs] == [500, 500]
    assert len(torch.cat(epochs).unique()) > 700
    expected, trainer = fit(run, tmp_path)
    epochs = 3 + trainer.progress.best_epoch
    assert epochs * 500 / 50 <= trainer.progress.step < epochs * 2 * 500 / 50

    def killed(values, step):
        if step > 1.5 * trainer.steps_per_epoch:  # in the second epoch
            raise KeyboardInterrupt

    given = run.config, prepared, samples, torch.device("cpu"), tmp_path / "killed.pt"
    with pytest.raises(KeyboardInterrupt):
        Trainer(*given, killed).fit()
    again = Trainer(*given, lambda values, step: None).fit()
    assert torch.equal(weights(again), weights(expected))
    assert trainer.objective.examples.count > 2_000
    assert "each epoch took all" in notes(Train(events_per_epoch=9), 1, 9, {})[0]
    assert notes(Train(events_per_epoch=9), 1, 10, {}) == []
