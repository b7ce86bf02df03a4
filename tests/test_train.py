"""Training: it learns, repeats bit for bit, resumes as if never interrupted, and returns the best epoch.

Both names models stand for all here; that every class trains is shown in test_classes.py.
"""

import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from n3r.bundle import Bundle
from n3r.data import OrderDataset
from n3r.model import MODEL_CLASSES, ModelConfig, RiskModel, configure, model_select
from n3r.schema import ColumnMap
from n3r.tokenizer import TokenizedText
from n3r.train import Fitted, TrainConfig, collate_for, fit, parameter_groups, predict

PAD = 1
DIMENSIONS = {
    "lstm2risk": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "transformer2risk": {"embedding_size": 8, "hidden_size": 6, "n_blocks": 1, "n_heads": 2, "block_size": 9},
}
both = pytest.mark.parametrize("model_class", list(DIMENSIONS))


def model_config(model_class: str = "lstm2risk", **changes) -> ModelConfig:
    with torch.device("meta"):
        dimensions = {"vocab_size": 16, "n_tab_features": 3, **DIMENSIONS[model_class], **changes}
        return model_select(model_class, **dimensions).config


MODEL = model_config()


def settings(**changes) -> TrainConfig:
    defaults = {"epochs": 4, "batch_size": 32, "lr": 1e-2, "precision": "float32"}
    return TrainConfig(**{**defaults, **changes})


def initial(config: ModelConfig = MODEL, seed: int = 0) -> RiskModel:
    """The untrained model that `fit` starts from."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return RiskModel(config)


def auc(fitted: Fitted, data: OrderDataset) -> float:
    return roc_auc_score(data.label, predict(fitted.model, data, PAD)[:, 1])


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class PowerCut(OrderDataset):
    """Fails when batch `budget` + 1 is asked for."""

    budget = 0

    def __getitem__(self, rows):
        self.budget -= 1
        if self.budget < 0:
            raise RuntimeError("power cut")
        return super().__getitem__(rows)


def interrupted(data: OrderDataset, n_batches: int) -> PowerCut:
    failing = PowerCut(*vars(data).values())
    failing.budget = n_batches
    return failing


# ---- learning


@both
def test_a_planted_signal_is_learnt(model_class, planted, tmp_path):
    fitted = fit(model_config(model_class), planted(600, 1), planted(400, 2), settings(), tmp_path, PAD)
    assert auc(fitted, planted(400, 3)) > 0.8
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


@both
def test_shuffled_labels_teach_nothing(model_class, planted, tmp_path):
    train, val, test = (planted(600, seed, shuffled=True) for seed in (1, 2, 3))
    fitted = fit(model_config(model_class), train, val, settings(), tmp_path, PAD)
    assert 0.35 < auc(fitted, test) < 0.65


def test_defect_01_the_text_alone_is_learnt_from(planted, tmp_path):
    """Feature 0 is hidden, so that only token 7 is left to find."""

    def blind(seed: int) -> OrderDataset:
        data = planted(600, seed)
        return OrderDataset(data.text, np.zeros((600, 0), np.float32), data.label)

    config = model_config(n_tab_features=0)
    fitted = fit(config, blind(1), blind(2), settings(epochs=6, lr=2e-2), tmp_path, PAD)
    assert auc(fitted, blind(3)) > 0.7


def test_defect_06_three_classes_are_learnt(planted, tmp_path):
    """Class 0, 1 or 2 as feature 0 is low, middling or high."""

    def three(seed: int) -> OrderDataset:
        data = planted(600, seed)
        return OrderDataset(data.text, data.tabular, np.digitize(data.tabular[:, 0], [-0.5, 0.5]))

    fitted = fit(model_config(n_classes=3), three(1), three(2), settings(), tmp_path, PAD)
    p = predict(fitted.model, three(3), PAD)
    assert p.shape == (600, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert roc_auc_score(three(3).label, p, multi_class="ovr") > 0.8


def test_class_weights_move_the_scores_to_their_class(planted, tmp_path):
    data = planted(200, 1)
    means = [
        predict(fit(MODEL, data, None, settings(class_weights=w), tmp_path / str(i), PAD).model, data, PAD)[
            :, 1
        ].mean()
        for i, w in enumerate([[5, 1], [1, 1], [1, 5]])
    ]
    assert means[0] + 0.1 < means[1] < means[2] - 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"batch_size": 16},
        {"lr": 2e-2},
        {"weight_decay": 0.3},
        {"schedule": "linear"},
        {"schedule": "constant"},
        {"warmup": 0.5},
        {"gradient_clip": 1e-9},
        {"class_weights": [1, 3]},
        {"precision": "bfloat16"},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_defect_04_every_setting_takes_effect(change, planted, tmp_path):
    data = planted(96, 1)
    base = fit(MODEL, data, None, settings(epochs=1), tmp_path / "base", PAD)
    other = fit(MODEL, data, None, settings(**{"epochs": 1, **change}), tmp_path / "other", PAD)
    assert not same_weights(base.model, other.model)


# ---- the same again


@both
def test_one_seed_gives_one_model_whatever_the_global_random_state(model_class, planted, tmp_path):
    train, val = planted(150, 1), planted(100, 2)
    fits = []
    for i, seed in enumerate((5, 5, 6)):
        torch.manual_seed(i)
        state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        config = settings(epochs=2, seed=seed)
        fits.append(fit(model_config(model_class), train, val, config, tmp_path / str(i), PAD))
        predict(fits[-1].model, val, PAD)
        assert torch.equal(state[0], torch.get_rng_state())
        assert state[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert fits[0].history == fits[1].history
    assert same_weights(fits[0].model, fits[1].model)
    assert fits[0].history != fits[2].history
    assert not same_weights(fits[0].model, fits[2].model)


class Diary(OrderDataset):
    """Writes down which rows each batch asks for."""

    def __getitem__(self, rows):
        self.__dict__.setdefault("batches", []).append(rows)
        return super().__getitem__(rows)


def test_defect_36_each_epoch_and_each_seed_has_its_own_batches(planted, tmp_path):
    orders = []
    for seed in (0, 1):
        data = Diary(*vars(planted(96, 1)).values())
        fit(MODEL, data, None, settings(epochs=2, seed=seed), tmp_path / str(seed), PAD)
        epochs = data.batches[:3], data.batches[3:]
        assert all(sorted(sum(epoch, [])) == list(range(96)) for epoch in epochs)
        orders += [{frozenset(batch) for batch in epoch} for epoch in epochs]
    assert not any(one & other for i, one in enumerate(orders) for other in orders[:i])


def test_validation_does_not_touch_training(planted, tmp_path):
    train = planted(150, 1)
    fits = [
        fit(MODEL, train, val, settings(patience=9), tmp_path / str(i), PAD)
        for i, val in enumerate([None, planted(64, 2), planted(33, 3)])
    ]
    losses = [[epoch["train_loss"] for epoch in fitted.history] for fitted in fits]
    assert losses[0] == losses[1] == losses[2]


# ---- figures and the best epoch


def test_the_figures_recomputed_from_predictions(planted, tmp_path):
    """One epoch, so that the returned weights are those the figures were taken with."""
    val = planted(333, 2)
    fitted = fit(MODEL, planted(200, 1), val, settings(epochs=1), tmp_path, PAD)
    (figures,) = fitted.history
    assert list(figures) == ["epoch", "train_loss", "val_auroc", "val_loss"]
    p = predict(fitted.model, val, PAD)
    assert figures["val_auroc"] == pytest.approx(roc_auc_score(val.label, p[:, 1]), abs=1e-5)
    expected = -np.log(p[np.arange(333), val.label]).mean()
    assert figures["val_loss"] == pytest.approx(expected, abs=1e-5)
    assert figures["epoch"] == 1


@pytest.mark.parametrize("monitor", ["val_auroc", "val_loss"])
def test_defect_40_the_best_epoch_is_returned_and_patience_ends_the_training(monitor, planted, tmp_path):
    """Validation labels are the opposite of the signal: the more is learnt, the worse they fare."""
    val = planted(300, 2, flipped=True)
    config = settings(epochs=9, monitor=monitor, patience=2)
    fitted = fit(MODEL, planted(600, 1), val, config, tmp_path, PAD)
    figures = [epoch[monitor] for epoch in fitted.history]
    best = max(figures) if monitor == "val_auroc" else min(figures)
    assert figures.index(best) == fitted.best_epoch - 1
    assert len(figures) == fitted.best_epoch + 2 < 9
    p = predict(fitted.model, val, PAD)
    losses = -np.log(p[np.arange(300), val.label])
    found = roc_auc_score(val.label, p[:, 1]) if monitor == "val_auroc" else losses.mean()
    assert found == pytest.approx(best, abs=1e-5)
    assert abs(figures[-1] - best) > 0.01


def test_without_validation_all_epochs_run_and_the_last_counts(planted, tmp_path):
    fitted = fit(MODEL, planted(100, 1), None, settings(epochs=5, patience=1), tmp_path, PAD)
    assert fitted.best_epoch == 5
    assert [list(epoch) for epoch in fitted.history] == [["epoch", "train_loss"]] * 5
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"])


def test_the_returned_model_is_ready_to_predict(planted, tmp_path):
    data = planted(64, 1)
    fitted = fit(MODEL, data, data, settings(epochs=1), tmp_path, PAD)
    assert not fitted.model.training
    assert {parameter.device.type for parameter in fitted.model.parameters()} == {"cpu"}
    assert {parameter.dtype for parameter in fitted.model.parameters()} == {torch.float32}
    assert fitted.orders_per_second > 0


# ---- optimiser


def test_defect_40_gradients_are_clipped(planted, tmp_path):
    """Adam divides by the gradient's size plus 1e-8: a norm of 1e-12 moves next to nothing."""
    before, data = initial(), planted(96, 1)
    moved = []
    for clip in (1.0, 1e-12):
        config = settings(epochs=1, gradient_clip=clip, weight_decay=0)
        after = fit(MODEL, data, None, config, tmp_path / str(clip), PAD).model
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        moved.append(max((a - b).abs().max().item() for a, b in pairs))
    assert moved[0] > 1e-3
    assert moved[1] < 1e-5


def test_defect_16_decay_reaches_matrices_and_nothing_else(planted, tmp_path):
    """With gradients clipped away, decay alone moves weights: by the product of 1 - rate x decay."""
    before = initial()
    config = settings(epochs=3, gradient_clip=1e-12, weight_decay=0.5)
    after = fit(MODEL, planted(96, 1), None, config, tmp_path, PAD).model
    kept = {}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        big = old.abs() > 1e-2  # a ratio of small numbers says nothing
        if big.any():
            kept[name] = (new[big] / old[big]).mean().item()
    decayed = {name for name, share in kept.items() if share < 0.999}
    assert decayed == {name for name in kept if is_matrix(name)}
    shares = [kept[name] for name in decayed]
    assert max(shares) - min(shares) < 1e-3
    assert len(kept) - len(decayed) > 5


def is_matrix(name: str) -> bool:
    """Whether a parameter is the matrix of a linear or recurrent layer, by the names of both models."""
    vectors = ("bias", "embedding", "position", "norm", "tabular.net.0", "tabular.net.5")
    return not any(part in name for part in vectors)


@both
def test_defect_16_groups_by_type_of_layer(model_class):
    model = initial(model_config(model_class))
    decayed, plain = parameter_groups(model, settings(weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = [[name_of[id(p)] for p in group["params"]] for group in (decayed, plain)]
    assert sorted(names[0] + names[1]) == sorted(name_of.values())
    assert set(names[0]) == {name for name in name_of.values() if is_matrix(name)}


def rates_of(data: OrderDataset, config: TrainConfig, folder: Path, monkeypatch) -> list[float]:
    """The rate of each step of a real training."""
    taken = []

    class Noted(torch.optim.AdamW):
        def step(self, *args, **options):
            taken.append(self.param_groups[0]["lr"])
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    fit(MODEL, data, None, config, folder, PAD)
    return taken


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 12 steps, of which a quarter warms up: thirds of the peak, then down by ninths, never to 0
        ("linear", [1 / 3, 2 / 3, 1, *(k / 9 for k in range(9, 0, -1))]),
        ("constant", [1 / 3, 2 / 3, *[1] * 10]),
    ],
)
def test_the_rate_warms_up_and_then_follows_the_schedule(schedule, expected, planted, tmp_path, monkeypatch):
    config = settings(epochs=3, batch_size=8, schedule=schedule, warmup=0.25, lr=0.06)
    rates = rates_of(planted(32, 1), config, tmp_path, monkeypatch)
    assert rates == pytest.approx([0.06 * share for share in expected])


@pytest.mark.parametrize("n_steps", [1, 2, 3, 10])
@pytest.mark.parametrize("schedule", ["one_cycle", "linear", "constant"])
def test_defect_23_warm_up_counts_in_every_schedule(schedule, n_steps, planted, tmp_path, monkeypatch):
    config = settings(epochs=n_steps, schedule=schedule)
    rates = rates_of(planted(32, 1), config, tmp_path, monkeypatch)
    assert len(rates) == n_steps
    assert all(0 < rate <= 1e-2 * (1 + 1e-9) for rate in rates)
    if n_steps == 10:
        assert max(rates) > 0.99e-2
        assert rates.index(max(rates)) <= 1


def test_only_pretrained_berts_are_fine_tuned():
    dimensions = {"vocab_size": 16, "n_tab_features": 3}
    bert = {"model_type": "bert", "vocab_size": 16, "max_position_embeddings": 64}
    for name, row in MODEL_CLASSES.items():
        own = {**dimensions, "n_tab_features": 3 if row.tabular else 0}
        assert TrainConfig.for_model(configure(name, **own)) == TrainConfig()
        if row.encoder == "bert":
            model = configure(name, **own, pretrained="somewhere", bert=bert)
            config = TrainConfig.for_model(model, epochs=2)
            assert config == TrainConfig(lr=2e-5, weight_decay=0, schedule="linear", epochs=2)
            assert TrainConfig.for_model(model, lr=1e-4).lr == 1e-4


@pytest.mark.parametrize(("n_batches", "epochs"), [(1, 1), (1, 2), (1, 3), (2, 5), (5, 2), (10, 1)])
def test_defect_23_any_number_of_steps_can_be_scheduled(n_batches, epochs, planted, tmp_path):
    data = planted(4 * n_batches, 1)
    fitted = fit(MODEL, data, None, settings(epochs=epochs, batch_size=4), tmp_path, PAD)
    assert len(fitted.history) == epochs
    assert all(math.isfinite(epoch["train_loss"]) for epoch in fitted.history)


@pytest.mark.parametrize(("n_rows", "batch_size"), [(33, 32), (65, 32), (3, 2), (7, 2), (2, 512)])
def test_defect_23_no_batch_of_one_row_breaks_training(n_rows, batch_size, planted, tmp_path):
    data = planted(n_rows, 1)
    fitted = fit(MODEL, data, None, settings(epochs=1, batch_size=batch_size), tmp_path, PAD)
    assert np.isfinite(predict(fitted.model, data, PAD)).all()


def test_defect_14_empty_texts_can_be_trained_on(planted, tmp_path):
    data = planted(32, 1)
    empty = OrderDataset(
        TokenizedText(np.zeros(0, np.int32), np.zeros(33, np.int64)), data.tabular, data.label
    )
    for model_class in DIMENSIONS:
        config = model_config(model_class)
        fitted = fit(config, empty, empty, settings(epochs=1), tmp_path / model_class, PAD)
        assert np.isfinite(predict(fitted.model, empty, PAD)).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "auto"])
def test_each_precision_learns_and_keeps_float32_weights(precision, planted, tmp_path):
    config = settings(precision=precision)
    fitted = fit(MODEL, planted(600, 1), planted(200, 2), config, tmp_path, PAD)
    assert fitted.precision in (["float32", "bfloat16"] if precision == "auto" else [precision])
    assert {parameter.dtype for parameter in fitted.model.parameters()} == {torch.float32}
    assert auc(fitted, planted(400, 3)) > 0.8


# ---- interrupted and resumed


@pytest.mark.parametrize(
    ("n_batches", "flipped"), [(3, False), (7, True), (12, False), (17, True), (24, False)]
)
def test_a_resumed_training_ends_as_an_uninterrupted_one(n_batches, flipped, planted, tmp_path):
    """5 batches an epoch: the power goes in each of 5 epochs; flipped labels have patience running then."""
    train, val = planted(150, 1), planted(100, 2, flipped=flipped)
    config = settings(epochs=5, patience=3)
    whole = fit(MODEL, train, val, config, tmp_path / "whole", PAD)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(MODEL, interrupted(train, n_batches), val, config, tmp_path / "cut", PAD)
    resumed = fit(MODEL, train, val, config, tmp_path / "cut", PAD)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    assert same_weights(resumed.model, whole.model)


def test_a_killed_training_is_resumed_by_another_process(planted, tmp_path, run_fresh):
    code = """
import os, sys
sys.path.insert(0, "tests")
from conftest import planted_orders
import test_train as t

class Killed(t.OrderDataset):
    n_batches = 12
    def __getitem__(self, rows):
        self.n_batches -= 1
        if not self.n_batches:
            os._exit(0)
        return super().__getitem__(rows)

train = Killed(*vars(planted_orders(150, 1)).values())
config = t.model_config("transformer2risk")
t.fit(config, train, planted_orders(100, 2), t.settings(), sys.argv[1], t.PAD)
"""
    config, train, val = model_config("transformer2risk"), planted(150, 1), planted(100, 2)
    run_fresh(code, tmp_path / "killed")
    seen = torch.load(tmp_path / "killed" / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(seen["history"]) == 2
    resumed = fit(config, train, val, settings(), tmp_path / "killed", PAD)
    whole = fit(config, train, val, settings(), tmp_path / "whole", PAD)
    assert resumed.history == whole.history
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("labels", ["true", "flipped", "none"])
def test_a_finished_training_is_not_done_again(labels, planted, tmp_path):
    """Neither after its last epoch nor when patience ended it before."""
    train = planted(100, 1)
    val = None if labels == "none" else planted(64, 2, flipped=labels == "flipped")
    config = settings(epochs=5, patience=2)
    first = fit(MODEL, train, val, config, tmp_path, PAD)
    assert (len(first.history) < 5) == (labels == "flipped")
    for _ in range(2):
        again = fit(MODEL, interrupted(train, 0), val, config, tmp_path, PAD)
        assert again.orders_per_second == first.orders_per_second
        assert (again.history, again.best_epoch) == (first.history, first.best_epoch)
        assert same_weights(again.model, first.model)


def test_no_finished_epoch_is_trained_again(planted, tmp_path):
    """Flipped labels: epoch 1 is the best, and the power goes in epoch 3."""
    train, val = planted(150, 1), planted(100, 2, flipped=True)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(MODEL, interrupted(train, 12), val, settings(), tmp_path, PAD)
    rest = interrupted(train, 2 * 5)
    assert len(fit(MODEL, rest, val, settings(), tmp_path, PAD).history) == 4
    assert rest.budget == 0


def test_a_moved_folder_is_resumed(planted, tmp_path):
    train, val = planted(150, 1), planted(100, 2, flipped=True)
    whole = fit(MODEL, train, val, settings(), tmp_path / "whole", PAD)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(MODEL, interrupted(train, 12), val, settings(), tmp_path / "cut", PAD)
    (tmp_path / "cut").rename(tmp_path / "moved")
    resumed = fit(MODEL, train, val, settings(), tmp_path / "moved", PAD)
    assert (resumed.history, resumed.best_epoch) == (whole.history, whole.best_epoch)
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("change", [{"lr": 2e-2}, {"epochs": 3}, {"seed": 1}, {"hidden_size": 7}])
def test_a_checkpoint_of_other_settings_is_not_resumed(change, planted, tmp_path):
    train, val = planted(100, 1), planted(64, 2)
    fit(MODEL, train, val, settings(epochs=2), tmp_path / "used", PAD)
    config, training = MODEL, settings(**{"epochs": 2, **change} if "hidden_size" not in change else {})
    if "hidden_size" in change:
        config, training = model_config(**change), settings(epochs=2)
    again = fit(config, train, val, training, tmp_path / "used", PAD)
    fresh = fit(config, train, val, training, tmp_path / "fresh", PAD)
    assert again.history == fresh.history
    assert same_weights(again.model, fresh.model)


@pytest.mark.parametrize("what", ["train", "val", "labels", "tabular", "text"])
def test_a_checkpoint_of_other_data_is_not_resumed(what, planted, tmp_path):
    train, val = planted(64, 1), planted(64, 2)
    first = fit(MODEL, train, val, settings(epochs=1), tmp_path, PAD)
    if what == "labels":
        train.label[0] = 1 - train.label[0]
    elif what == "tabular":
        train.tabular[5, 1] += 1e-3
    elif what == "text":
        train.text.ids[3] = 7 if train.text.ids[3] != 7 else 8
    splits = {"train": (planted(64, 3), val), "val": (train, planted(64, 3))}.get(what, (train, val))
    # A resumed training would only repeat the first one's speed.
    assert fit(MODEL, *splits, settings(epochs=1), tmp_path, PAD).orders_per_second != first.orders_per_second


# ---- several processes


@pytest.mark.slow
def test_defect_44_two_processes_train_one_model_and_resume(planted, tmp_path, capfd):
    """Metrics are over all rows of both; nothing is left of the second process but its work."""
    train, val = planted(301, 1), planted(203, 2)
    config = settings(processes=2, seed=2)
    fitted = fit(MODEL, train, val, config, tmp_path, PAD)
    assert "WORLD_SIZE" not in os.environ
    assert len(fitted.history) == 4
    figures = fitted.history[fitted.best_epoch - 1]
    p = predict(fitted.model, val, PAD)
    assert figures["val_auroc"] == pytest.approx(roc_auc_score(val.label, p[:, 1]), abs=1e-6)
    losses = -np.log(p[np.arange(203), val.label])
    assert figures["val_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    assert auc(fitted, planted(400, 3)) > 0.75
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == ["best.ckpt", "last.ckpt"]
    assert len(list((tmp_path / "tensorboard").glob("events.*"))) == 1
    speed = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Speed"]
    assert speed["n_rows"] == pytest.approx(4 * 301, abs=4 * 10)  # the first process's share, twice
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "val_auroc" in shown.err
    assert "Initializing" not in shown.err
    # The power goes in epoch 3, in both.
    with pytest.raises(Exception, match="power cut"):
        fit(MODEL, interrupted(train, 22), val, config, tmp_path / "cut", PAD)
    seen = torch.load(tmp_path / "cut" / "checkpoints" / "last.ckpt", weights_only=True)["history"]
    assert seen == fitted.history[:2]
    resumed = fit(MODEL, train, val, config, tmp_path / "cut", PAD)
    assert resumed.history == fitted.history
    assert same_weights(resumed.model, fitted.model)


SCRIPT = """
import os, sys, time
from pathlib import Path
import polars as pl, torch
sys.path.insert(0, "tests")
from conftest import made_up_names, planted_orders
import test_train as t
from n3r import tables
from n3r.bundle import Recipe, train_bundle
from n3r.features import TabularFeatures
from n3r.schema import ColumnMap
from n3r.tokenizer import NameTokenizer
from n3r.checkpoints import is_first_process

out, rank = Path(sys.argv[1]), os.environ["RANK"]
frames = {name: pl.read_parquet(out / f"{name}.parquet") for name in ("train", "val", "test")}
columns = ColumnMap.from_file(out / "columns.json")
features = TabularFeatures().fit(frames["train"], columns.numeric)
tokenizer = NameTokenizer.load(out)
model = t.model_config(vocab_size=tokenizer.vocab_size, n_tab_features=len(features))
config = t.settings(epochs=2)
recipe = Recipe(tokenizer, features, columns, config)
time.sleep(2 * int(rank))  # defect 44: the ranks are seconds apart
bundle, fitted = train_bundle(model, frames, recipe, out / "fit")
bundle.save(out / "bundle")
torch.save(fitted.model.state_dict(), out / f"weights.{rank}")
(out / f"history.{rank}").write_text(str(fitted.history))
for name, rows in (("test", frames["test"]), ("one", frames["test"][:1]), ("none", frames["test"][:0])):
    table = bundle.predictions(rows)
    table.write_parquet(out / f"{name}.scored.{rank}")
    if is_first_process():
        tables.write(table, out / f"{name}.scored.csv")
torch.distributed.destroy_process_group()
"""


def run_in_two_processes(launcher: str, folder: Path) -> None:
    """The folder's script under torchrun, or started twice with the variables that launchers set."""
    script = [folder / "script.py", folder]
    commands = [[sys.executable, *script]] * 2
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29617"}
    settings = [{**group, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    if launcher == "torchrun":
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        commands, settings = [[sys.executable, *launch, *script]], [{}]
    running = [
        subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": ".", **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, variables in zip(commands, settings, strict=True)
    ]
    for process in running:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "plain"])
def test_defect_44_under_a_launcher_each_row_is_scored_once(launcher, names, tokenizer, tmp_path):
    """Written once, in the rows' order, with their ids, and by both processes alike."""
    columns = ColumnMap(
        id="order",
        text=["email", "billing"],
        label="fraud",
        label_values={"0": 0, "1": 1},
        numeric=["amount"],
        split_by="random",
    )
    rng = np.random.default_rng(0)
    frames = {
        name: names(n, seed=i).with_columns(
            order=pl.Series([f"o{k}" for k in rng.permutation(n)]),
            amount=pl.Series(rng.normal(size=n)),
            label=pl.Series(rng.integers(0, 2, n), dtype=pl.Int8),
        )
        for i, (name, n) in enumerate({"train": 121, "val": 61, "test": 1025}.items())
    }
    for name, rows in frames.items():
        rows.write_parquet(tmp_path / f"{name}.parquet")
    tokenizer.save(tmp_path)
    (tmp_path / "columns.json").write_text(columns.model_dump_json())
    (tmp_path / "script.py").write_text(SCRIPT)
    run_in_two_processes(launcher, tmp_path)
    bundle = Bundle.load(tmp_path / "bundle")
    histories = [(tmp_path / f"history.{rank}").read_text() for rank in (0, 1)]
    assert histories[0] == histories[1]
    weights = [torch.load(tmp_path / f"weights.{rank}", weights_only=True) for rank in (0, 1)]
    for name, value in bundle.model.state_dict().items():
        assert torch.equal(value, weights[0][name]) and torch.equal(value, weights[1][name])
    for name, n in {"test": 1025, "one": 1, "none": 0}.items():
        scored, other = (pl.read_parquet(tmp_path / f"{name}.scored.{rank}") for rank in (0, 1))
        assert scored.equals(other)
        assert scored["order"].equals(frames["test"]["order"][:n])
        np.testing.assert_allclose(
            scored["score"], bundle.predictions(frames["test"][:n])["score"], atol=1e-6
        )
        assert len(pl.read_csv(tmp_path / f"{name}.scored.csv")) == n
    assert not [path.name for path in tmp_path.rglob("*.partial")]
    assert len(list((tmp_path / "fit" / "tensorboard").glob("events.*"))) == 1


# ---- files


@pytest.mark.parametrize("monitor", ["val_auroc", "val_loss"])
def test_defect_41_54_checkpoints_lie_in_one_folder_and_are_read_without_pickle(monitor, planted, tmp_path):
    data = planted(64, 1)
    fit(MODEL, data, data, settings(epochs=2, monitor=monitor), tmp_path, PAD)
    files = sorted(
        path.relative_to(tmp_path / "checkpoints") for path in (tmp_path / "checkpoints").rglob("*")
    )
    assert [str(path) for path in files] == ["best.ckpt", "last.ckpt"]
    for path in files:
        state = torch.load(tmp_path / "checkpoints" / path, weights_only=True)
        assert set(state["state_dict"]) == {f"model.{name}" for name in initial().state_dict()}


def test_tensorboard_gets_every_figure_of_every_epoch(planted, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = planted(64, 1)
    fitted = fit(MODEL, data, data, settings(epochs=2), tmp_path, PAD)
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    events = EventAccumulator(str(file))
    events.Reload()
    for name in ("train_loss", "val_auroc", "val_loss"):
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([epoch[name] for epoch in fitted.history], abs=1e-6)


def test_nothing_is_printed_and_nothing_left_in_the_working_directory(planted, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = planted(64, 1)
    fit(MODEL, data, data, settings(epochs=1), tmp_path / "run", PAD)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "val_auroc" in shown.err


# ---- predict


@both
def test_predictions_come_back_in_input_order(model_class, planted):
    """Against each row run alone through the model."""
    data = planted(57, 1)
    model = initial(model_config(model_class)).eval()
    collate = collate_for(model.config, PAD)
    with torch.no_grad():
        expected = torch.cat([model(collate(data[[row]])).softmax(dim=1) for row in range(57)]).numpy()
    assert np.unique(expected[:, 1]).size > 50
    for batch_size in (1, 2, 8, 1024):
        p = predict(model, data, PAD, batch_size)
        assert (p.shape, p.dtype) == ((57, 2), np.float32)
        np.testing.assert_allclose(p, expected, atol=1e-6)


def test_predicting_turns_dropout_off(planted):
    model = initial(model_config(dropout_rate=0.5)).train()
    data = planted(20, 1)
    np.testing.assert_array_equal(predict(model, data, PAD), predict(model, data, PAD))


def test_defect_43_rows_without_labels_and_no_rows_are_scored(planted):
    data = planted(20, 1)
    unlabelled = OrderDataset(data.text, data.tabular)
    model = initial()
    np.testing.assert_array_equal(predict(model, unlabelled, PAD), predict(model, data, PAD))
    nothing = TokenizedText(np.zeros(0, np.int32), np.zeros(1, np.int64))
    assert predict(model, OrderDataset(nothing, np.zeros((0, 3), np.float32)), PAD).shape == (0, 2)


def test_a_text_over_the_block_size_is_cut(planted):
    """The Transformer reads 9 tokens; what comes after does not count."""
    model = initial(model_config("transformer2risk"))
    ids = np.arange(40, dtype=np.int32) % 9 + 7
    changed = ids.copy()
    changed[9:] = 7
    tabular = np.zeros((1, 3), np.float32)
    one, other = (
        predict(model, OrderDataset(TokenizedText(t, np.array([0, 40])), tabular), PAD)
        for t in (ids, changed)
    )
    np.testing.assert_array_equal(one, other)


# ---- errors, before anything is written


def relabelled(data: OrderDataset, label: list[int] | None) -> OrderDataset:
    return OrderDataset(data.text, data.tabular, label)


@pytest.mark.parametrize(
    ("train_label", "val_label", "changes", "message"),
    [
        ([0, 1], [0, 1], {"class_weights": [1.0, 2.0, 3.0]}, "3 entries for 2 classes"),
        ([0, 2], [0, 1], {}, "train split run from 0 to 2; expected 0 to 1"),
        ([0, 1], [1, 7], {}, "val split run from 1 to 7"),
        ([0, -1], [0, 1], {}, "train split run from -1"),
        (None, [0, 1], {}, "train split run from -1"),
        ([0, 1], None, {}, "val split run from -1"),
        ([1], [0, 1], {}, "train split has 1 rows"),
        ([0, 1], [1], {}, "val split has 1 rows"),
        ([0, 1], [], {}, "val split has 0 rows"),
        ([0, 1, 1], [0, 1, 1, 0], {"processes": 2}, "train split has 3 rows; training needs at least 4"),
        ([0, 1] * 9, None, {"processes": 2, "batch_size": 3}, "3 rows for 2 processes.*batch_size to 4"),
    ],
)
def test_mistakes_are_told_before_training(train_label, val_label, changes, message, planted, tmp_path):
    splits = [
        relabelled(planted(2 if label is None else len(label), 1), label)
        for label in (train_label, val_label)
    ]
    with pytest.raises(ValueError, match=message):
        fit(MODEL, *splits, settings(**changes), tmp_path / "run", PAD)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"lr": 0},
        {"gradient_clip": 0},
        {"monitor": "auc"},
        {"learning_rate": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        settings(**wrong)
