"""Training: it learns, repeats bit for bit and returns the best epoch.

Both names models stand for all: test_classes.py shows that every class trains. Resuming: test_checkpoints.py.
"""

import math
import random

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from torch import nn

from n3r.data import OrderDataset
from n3r.model import MODEL_CLASSES, ModelConfig, RiskModel, configure, model_select
from n3r.token_arrays import TokenizedText
from n3r.train import (
    Fitted,
    TrainConfig,
    collate_for,
    fit,
    parameter_groups,
    predict,
    rate_schedule,
)

PAD = 1
FIGURES = ["epoch", "train_loss", "val_accuracy", "val_auroc", "val_average_precision", "val_f1"]
FIGURES += ["val_loss", "val_precision", "val_recall"]  # of an epoch
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


def recomputed(fitted: Fitted, data: OrderDataset) -> dict:
    """An epoch's figures by scikit-learn; of three classes the mean of each against the rest."""
    p, y = predict(fitted.model, data, PAD), data.label
    many = p.shape[1] > 2
    decided = p.argmax(axis=1) if many else p[:, 1] > 0.5
    mean = {"average": "macro" if many else "binary", "zero_division": 0}
    found = {
        "val_auroc": roc_auc_score(y, p if many else p[:, 1], multi_class="ovr"),
        "val_average_precision": average_precision_score(y, p if many else p[:, 1]),
        "val_f1": f1_score(y, decided, **mean),
        "val_precision": precision_score(y, decided, **mean),
        "val_recall": recall_score(y, decided, **mean),
        "val_accuracy": accuracy_score(y, decided),
        "val_loss": -np.log(p[np.arange(len(y)), y]).mean(),
    }
    return {name: pytest.approx(value, abs=1e-5) for name, value in found.items()}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


# ---- learning


@both
@pytest.mark.parametrize("changes", [{"lr": 1e5}, {"lr": 1e5, "gradient_clip": None, "epochs": 1}])
def test_a_loss_that_is_not_finite_stops_the_training_and_names_lr(model_class, changes, planted, tmp_path):
    data = planted(200)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) in epoch \d+: .*lower lr than 100000$"):
        fit(model_config(model_class), data, data, settings(**changes), tmp_path, PAD)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epochs": 0}, "epochs"), ({"epochs": -1}, "epochs"), ({"batch_size": 1}, "batch_size"),
        ({"lr": 0}, "lr"), ({"lr": math.inf}, "lr"), ({"lr": math.nan}, "lr"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"), ({"class_weights": [0.0, 1.0]}, "class_weights"),
        ({"class_weights": [1.0, math.nan]}, "class_weights"), ({"gradient_clip": -1}, "gradient_clip"),
        ({"weight_decay": math.inf}, "weight_decay"),
    ],
)  # fmt: skip
def test_settings_that_cannot_train_are_refused_by_name(changes, key):
    with pytest.raises(ValueError, match=key):
        settings(**changes)


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
    figures, expected = fitted.history[fitted.best_epoch - 1], recomputed(fitted, three(2))
    assert {name: figures[name] for name in expected} == expected
    p = predict(fitted.model, three(3), PAD)
    assert p.shape == (600, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert roc_auc_score(three(3).label, p, multi_class="ovr") > 0.8


def test_columns_of_noise_weigh_little_and_do_not_hurt(planted, tmp_path):
    """Beside 60 columns of noise through bins, which 600 rows are too few to tell from the signal."""

    def noisy(seed: int) -> OrderDataset:
        data = planted(600, seed)
        noise = np.random.default_rng(seed).normal(size=(600, 60)).astype(np.float32)
        return OrderDataset(data.text, np.hstack([data.tabular, noise]), data.label)

    found = {}
    for power in (0.0, 1.0):
        config = model_config(n_tab_features=63, n_tab_bins=8, tab_gain_power=power)
        fitted = fit(config, noisy(1), noisy(2), settings(), tmp_path / str(power), PAD)
        found[power] = auc(fitted, noisy(3))
    weights = fitted.model.tabular.net[0].column_weight[:63]
    assert weights[0] == 1 and weights[3:].max() < 0.3
    assert found[1.0] > found[0.0] + 0.02


def test_class_weights_move_the_scores_to_their_class(planted, tmp_path):
    data = planted(200, 1)
    means = [
        predict(fit(MODEL, data, None, settings(class_weights=w), tmp_path / str(i), PAD).model, data, PAD)[
            :, 1
        ].mean()
        for i, w in enumerate([[5, 1], [1, 1], [1, 5]])
    ]
    assert means[0] + 0.1 < means[1] < means[2] - 0.1


@pytest.fixture(scope="module")
def plain(planted, tmp_path_factory) -> Fitted:
    """A training without any change, to compare others with."""
    return fit(MODEL, planted(96, 1), None, settings(epochs=1), tmp_path_factory.mktemp("plain"), PAD)


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 16}, {"lr": 2e-2}, {"weight_decay": 0.3}, {"schedule": "linear"}]
    + [{"schedule": "constant"}, {"warmup": 0.5}, {"gradient_clip": 1e-9}, {"adam_epsilon": 1e-2}]
    + [{"optimizer": "sgd", "lr": 2e-2, "schedule": "none", "weight_decay": 0.0}],
    ids=str,
)
def test_defect_04_every_setting_takes_effect(change, plain, planted, tmp_path):
    """Tests of their own show it of epochs, class weights, decay, precision and seed."""
    other = fit(MODEL, planted(96, 1), None, settings(epochs=1, **change), tmp_path, PAD)
    assert not same_weights(plain.model, other.model)


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
        for i, val in enumerate([None, planted(64, 2)])
    ]
    losses = [[epoch["train_loss"] for epoch in fitted.history] for fitted in fits]
    assert losses[0] == losses[1]


# ---- figures and the best epoch


def test_the_figures_recomputed_from_predictions_of_a_model_that_is_ready(planted, tmp_path):
    """One epoch, so that the returned weights are those the figures were taken with."""
    val = planted(333, 2)
    fitted = fit(MODEL, planted(200, 1), val, settings(epochs=1), tmp_path, PAD)
    assert not fitted.model.training and fitted.orders_per_second > 0
    kinds = {(parameter.device.type, parameter.dtype) for parameter in fitted.model.parameters()}
    assert kinds == {("cpu", torch.float32)}
    (figures,) = fitted.history
    assert list(figures) == FIGURES
    expected = recomputed(fitted, val)
    assert {name: figures[name] for name in expected} == expected
    assert figures["epoch"] == 1


OFTEN = ("val_auroc", "val_f1", "val_loss")  # a rank, a threshold, and the smaller the better


@pytest.mark.parametrize(
    "monitor", [m if m in OFTEN else pytest.param(m, marks=pytest.mark.slow) for m in FIGURES[2:]]
)
def test_defect_40_the_best_epoch_is_returned_and_patience_ends_the_training(monitor, planted, tmp_path):
    """Validation labels are the opposite of the signal: the more is learnt, the worse they fare."""
    val = planted(300, 2, flipped=True)
    config = settings(epochs=9, monitor=monitor, patience=2)
    fitted = fit(MODEL, planted(600, 1), val, config, tmp_path, PAD)
    figures = [epoch[monitor] for epoch in fitted.history]
    best = min(figures) if monitor == "val_loss" else max(figures)
    assert figures.index(best) == fitted.best_epoch - 1
    assert len(figures) == fitted.best_epoch + 2 < 9
    assert best == recomputed(fitted, val)[monitor]
    assert abs(figures[-1] - best) > 0.01


def test_without_validation_all_epochs_run_and_the_last_counts(planted, tmp_path):
    fitted = fit(MODEL, planted(100, 1), None, settings(epochs=5, patience=1), tmp_path, PAD)
    assert fitted.best_epoch == 5
    assert [list(epoch) for epoch in fitted.history] == [["epoch", "train_loss"]] * 5
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"])


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


def rates(config: TrainConfig, n_steps: int) -> list[float]:
    """The rate of each step of a training of `n_steps`."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], config.lr)
    schedule, taken = rate_schedule(optimizer, config, n_steps), []
    for _ in range(n_steps):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return taken


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 12 steps, of which a quarter warms up: thirds of the peak, then down by ninths, never to 0
        ("linear", [1 / 3, 2 / 3, 1, *(k / 9 for k in range(9, 0, -1))]),
        ("constant", [1 / 3, 2 / 3, *[1] * 10]),
        ("none", [1] * 12),
    ],
)
def test_the_rate_warms_up_and_then_follows_the_schedule(schedule, expected):
    found = rates(settings(schedule=schedule, warmup=0.25, lr=0.06), 12)
    assert found == pytest.approx([0.06 * share for share in expected])


@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 10, 100])
@pytest.mark.parametrize("schedule", ["one_cycle", "linear", "constant"])
def test_defect_23_any_number_of_steps_can_be_scheduled_and_warms_up(schedule, n_steps):
    found = rates(settings(schedule=schedule), n_steps)
    assert all(0 < rate <= 1e-2 * (1 + 1e-9) for rate in found)
    if n_steps >= 10:
        assert max(found) > 0.99e-2
        assert found.index(max(found)) <= n_steps / 10


def test_each_step_of_a_training_has_its_rate(planted, tmp_path, monkeypatch):
    taken = []

    class Noted(torch.optim.AdamW):
        def step(self, *args, **options):
            taken.append(self.param_groups[0]["lr"])
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    config = settings(epochs=2, batch_size=8, schedule="linear")
    fit(MODEL, planted(40, 1), None, config, tmp_path, PAD)
    assert taken == pytest.approx(rates(config, 10))  # the ten steps that the legacy cannot take


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


@pytest.mark.parametrize(("n_rows", "batch_size"), [(33, 32), (2, 512)])
def test_defect_23_no_batch_of_one_row_breaks_training(n_rows, batch_size, planted, tmp_path):
    data = planted(n_rows, 1)
    fitted = fit(MODEL, data, None, settings(epochs=1, batch_size=batch_size), tmp_path, PAD)
    assert len(fitted.history) == 1 and math.isfinite(fitted.history[0]["train_loss"])
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


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_each_precision_learns_and_keeps_float32_weights(precision, planted, tmp_path):
    config = settings(precision=precision)
    fitted = fit(MODEL, planted(600, 1), planted(200, 2), config, tmp_path, PAD)
    assert fitted.precision in ["bfloat16", *(["float32"] if precision == "auto" else [])]
    assert {parameter.dtype for parameter in fitted.model.parameters()} == {torch.float32}
    assert auc(fitted, planted(400, 3)) > 0.8


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
        {"gradient_clip": -1},
        {"adam_epsilon": 0},
        {"monitor": "auc"},
        {"rate": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        settings(**wrong)
