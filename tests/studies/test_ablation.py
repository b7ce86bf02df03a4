"""Deviations switched one by one: each changes what it says and nothing else, and the base is the legacy."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from n3r.bundle import Bundle
from n3r.data import make_loader
from n3r.estimate import bounded
from n3r.kernels import BiLSTM, Dropout
from n3r.legacy.trainer import LegacyTokenizer
from n3r.model import RiskModel
from n3r.schema import TEXT as JOINED
from n3r.studies import ablation, beside, parity, parts
from n3r.text import AttentionPool, TransformerBlock
from n3r.train import TrainConfig, collate_for, parameter_groups

PAD = 1
TEXT, NUMERIC = ["emailAddress", "customerName"], [f"x{i}" for i in range(5)]
both = pytest.mark.parametrize("model_class", ["lstm2risk", "transformer2risk"])


@pytest.fixture(scope="module")
def legacy_tokenizer(splits) -> LegacyTokenizer:
    return beside.legacy_tokenizer(splits["train"], 0)


@pytest.fixture(params=["lstm2risk", "transformer2risk"])
def bundle(request, a_bundle) -> Bundle:
    return a_bundle(request.param)


@pytest.fixture
def built(a_bundle) -> Callable[[tuple[str, ...], str], RiskModel]:
    """A model of a class, of the legacy's parts for the deviations that are off."""

    def build(off, model_class: str) -> RiskModel:
        sizes = {"vocab_size": 30, "n_tab_features": 3, "n_tab_bins": 0}
        config = a_bundle(model_class).model.config.model_copy(update=sizes)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return RiskModel(config, parts.parts_without(off))

    return build


def a_batch(model: RiskModel, n: int = 12) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    mask = torch.arange(18) < torch.randint(1, 19, (n, 1), generator=rng)
    ids = torch.randint(7, 30, (n, 18), generator=rng).where(mask, PAD)
    return {"text": ids, "attn_mask": mask, "tabular": torch.randn(n, 3, generator=rng)}


# ---- the registry


def test_each_deviation_has_one_note_where_it_is_made():
    notes = parity.deviations()
    for name, deviation in ablation.DEVIATIONS.items():
        found = [note for note in notes if deviation.note in note["what"]]
        assert len(found) == 1, name


def test_a_bundle_makes_the_deviations_that_its_configs_ask_for(a_bundle):
    lstm, transformer = (a_bundle(name) for name in ("lstm2risk", "transformer2risk"))
    every = set(ablation.DEVIATIONS) - {"identity"}
    assert set(ablation.made_by(lstm)) == every - {"pool"}
    assert set(ablation.made_by(transformer)) == every - {"max_tokens"}
    assert set(ablation.made_by(a_bundle("lstm2risk", identity=True))) == every - {"pool"} | {"identity"}
    plain = a_bundle("lstm2risk", decay="all", gradient_clip=None, precision="float32")
    assert set(ablation.made_by(plain)) == every - {"pool", "decay", "clipping", "precision"}


def test_unknown_deviations_are_refused_with_those_there_are(bundle, splits, tmp_path, legacy_tokenizer):
    made = ", ".join(ablation.made_by(bundle))
    with pytest.raises(ValueError, match=rf"\['typo'\].*{made}"):
        ablation.train_with(("typo",), bundle, splits, tmp_path, 0, legacy_tokenizer)
    with pytest.raises(ValueError, match=r"\['typo'\]"):
        ablation.ablate(bundle, splits, [0], tmp_path, [("decay", "typo")])


def test_labels_say_which_deviations_are_on():
    made = ("a", "b", "c")
    labels = [ablation.label(on, made) for on in [(), ("a",), ("a", "c"), made, ("b",)]]
    assert labels == ["none", "a", "all but b", "all", "b"]
    assert ablation.label(("a", "b"), (*made, "d")) == "a + b"


# ---- the legacy's parts


@both
def test_other_kernels_and_dropout_keep_the_function(model_class, built):
    ours, theirs = built((), model_class), built(("kernels", "dropout"), model_class)
    batch = a_batch(ours)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(theirs.eval()(batch), ours.eval()(batch), rtol=0, atol=1e-6)


def test_models_are_built_of_the_parts_of_what_is_off(built):
    def kinds(off, model_class: str) -> set[type]:
        return {type(part) for part in built(off, model_class).modules()}

    off = kinds(("pool", "kernels", "dropout"), "transformer2risk")
    assert {parts.PoolOverPadding, parts.LoopedBlock, nn.Dropout} <= off and Dropout not in off
    assert parts.PackedLSTM in kinds(("kernels",), "lstm2risk")
    on = kinds((), "transformer2risk") | kinds((), "lstm2risk")
    assert {AttentionPool, TransformerBlock, BiLSTM, Dropout} <= on


def test_the_legacys_pool_reads_padding_and_nothing_else_differs(built):
    ours, theirs = built((), "transformer2risk").eval(), built(("pool",), "transformer2risk").eval()
    batch = a_batch(ours)
    full = batch["attn_mask"].all(dim=1)
    assert 0 < full.sum() < len(full)
    moved = (ours(batch) - theirs(batch)).abs().amax(dim=1)
    assert moved[full].max() < 1e-6 and moved[~full].max() > 1e-4


@both
def test_one_logit_is_that_of_the_second_class_and_learns_alone(model_class, built):
    ours, theirs = built((), model_class), built(("logits",), model_class).eval()
    logits = theirs(a_batch(ours))
    assert logits.shape == ours.eval()(a_batch(ours)).shape == (12, 2)
    assert (logits[:, 0] == 0).all() and logits[:, 1].std() > 0
    assert set(theirs.state_dict()) == set(ours.state_dict())
    ends = (list(model.head.parameters())[-1] for model in (ours, theirs))
    assert [len(bias) for bias in ends] == [2, 1]


@both
@pytest.mark.parametrize("off", [("pool", "kernels", "dropout", "logits"), ("pool", "dropout"), ("kernels",)])
def test_parts_train(model_class, off, built):
    model = built(off, model_class).train()
    batch = a_batch(model)
    assert not torch.equal(model(batch), model(batch))  # dropout draws
    model(batch).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- what each switch changes of rows and configs


def test_the_tokenizer_reads_fields_and_the_legacys_the_joined_text(bundle, splits, legacy_tokenizer):
    frame = splits["test"]
    off = ablation.texts((), bundle, frame, legacy_tokenizer)
    assert [off.row(i).tolist() for i in range(len(frame))] == [
        legacy_tokenizer.encode(t) for t in frame[JOINED]
    ]
    on = ablation.texts(("tokenizer",), bundle, frame, legacy_tokenizer)
    np.testing.assert_array_equal(on.ids, bundle.tokenizer.encode(frame[TEXT]).ids)


def test_texts_of_an_lstm_are_cut_only_where_that_is_on(splits, legacy_tokenizer, a_bundle):
    bundle = a_bundle("lstm2risk")
    bundle = replace(bundle, texts=bundle.texts.model_copy(update={"max_tokens": 8}))
    for on in [(), ("tokenizer",)]:
        whole = ablation.texts(on, bundle, splits["test"], legacy_tokenizer)
        cut = ablation.texts((*on, "max_tokens"), bundle, splits["test"], legacy_tokenizer)
        assert whole.lengths.max() > 8 >= cut.lengths.max()


def test_features_one_deviation_at_a_time(bundle, splits):
    frame = splits["test"]
    holes = frame["x0"].is_null().to_numpy()
    raw = frame.select(pl.col(NUMERIC).fill_null(-1)).to_numpy().astype(np.float32)

    def read(*on: str) -> np.ndarray:
        return ablation.tabular(on, bundle, frame, training=False)

    assert holes.any()
    np.testing.assert_array_equal(read(), raw)
    median = np.float32(splits["train"]["x0"].median())
    filled = read("imputation")
    np.testing.assert_array_equal(filled[:, 0], np.where(holes, median, raw[:, 0]))
    np.testing.assert_array_equal(filled[:, 1:], np.column_stack([raw[:, 1:], holes]))
    scaled, both = read("scaling"), read("scaling", "imputation")
    np.testing.assert_array_equal(scaled[~holes], both[~holes, :5])
    assert (scaled[holes, 0] == scaled[:, 0].min()).all()  # -1 is below every value
    with_risk = read("risk_tables")
    np.testing.assert_array_equal(with_risk[:, :5], raw)
    assert with_risk.shape[1] == 6
    whole = read("scaling", "imputation", "risk_tables")
    np.testing.assert_array_equal(whole, bundle.features.transform(frame))
    np.testing.assert_array_equal(
        ablation.tabular(("scaling", "imputation", "risk_tables"), bundle, splits["train"], training=True),
        bundle.features.transform(splits["train"], out_of_fold=True),
    )


def test_identity_features_are_read_where_that_is_on(splits, a_bundle):
    bundle, frame = a_bundle("lstm2risk", identity=True), splits["train"]
    n = len(bundle.features.identity.names)

    def read(*on: str) -> np.ndarray:
        return ablation.tabular(on, bundle, frame, training=True)

    np.testing.assert_array_equal(read(), frame.select(pl.col(NUMERIC).fill_null(-1)).to_numpy())
    assert read("identity").shape == (len(frame), len(NUMERIC) + n)
    np.testing.assert_array_equal(read("identity")[:, : len(NUMERIC)], read())
    whole = read("identity", "scaling", "imputation", "risk_tables")
    np.testing.assert_array_equal(whole, bundle.features.transform(frame, out_of_fold=True))


def test_batches_off_are_of_all_lengths_and_scored_as_they_come(bundle, splits, legacy_tokenizer):
    def spreads(on, shuffle) -> list[np.ndarray]:
        rows = ablation.dataset(on, bundle, splits["train"], legacy_tokenizer, training=True)
        loader = make_loader(rows, collate_for(bundle.model.config, PAD), 16, shuffle=shuffle)
        return [batch["row_id"].numpy() for batch in loader], rows.text.lengths

    found = {}
    for on in [("batches",), ()]:
        batches, lengths = spreads(on, shuffle=True)
        found[on] = np.mean([np.ptp(lengths[rows]) for rows in batches])
        assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert found["batches",] < 0.5 * found[()]
    in_order, lengths = spreads((), shuffle=False)
    assert all(sorted(rows) == list(range(min(rows), max(rows) + 1)) for rows in in_order)


def test_decay_all_decays_every_parameter(built):
    model = built((), "lstm2risk")
    whole, nothing = parameter_groups(model, TrainConfig(decay="all", weight_decay=0.3))
    assert {id(p) for p in whole["params"]} == {id(p) for p in model.parameters()}
    assert (whole["weight_decay"], nothing["params"]) == (0.3, [])


# ---- whole trainings


def weights(folder) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    return checkpoint["state_dict"]


@pytest.mark.parametrize(
    "name", ["decay", "clipping", "precision", "dropout", "pool", "tokenizer", "bins", "logits"]
)
def test_a_deviation_changes_what_is_learnt(name, splits, tmp_path, legacy_tokenizer, a_bundle):
    bundle = a_bundle("transformer2risk", epochs=1, weight_decay=0.5, gradient_clip=1e-3)
    base, one = (
        ablation.train_with(on, bundle, splits, tmp_path / str(i), 0, legacy_tokenizer)
        for i, on in enumerate([(), (name,)])
    )
    assert base.scores.shape == one.scores.shape == (len(splits["test"]),)
    assert np.abs(base.scores - one.scores).max() > 1e-5
    assert min(base.orders_per_second, one.orders_per_second) > 0


def test_without_best_epoch_all_epochs_run_and_the_last_counts(splits, tmp_path, legacy_tokenizer, a_bundle):
    """A rate so high that the first epoch is the best: with it on, training stops after `patience` more."""
    bundle = a_bundle("lstm2risk", epochs=6, patience=1, lr=0.3, precision="float32")
    for on in [(), ("best_epoch",)]:
        ablation.train_with(on, bundle, splits, tmp_path / str(len(on)), 0, legacy_tokenizer)
    epochs = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")["epoch"]
        for path in (tmp_path / "0", tmp_path / "1")
    ]
    assert epochs[0] == 5 > epochs[1]
    assert not (tmp_path / "0" / "checkpoints" / "best.ckpt").exists()
    assert (tmp_path / "1" / "checkpoints" / "best.ckpt").exists()


def test_all_on_is_the_bundles_own_training(splits, tmp_path, legacy_tokenizer, a_bundle):
    bundle = a_bundle("lstm2risk", precision="float32")
    whole = ablation.train_with(ablation.made_by(bundle), bundle, splits, tmp_path / "a", 3, legacy_tokenizer)
    again = beside.score_again(bundle, splits, 3, tmp_path / "b")
    np.testing.assert_allclose(whole.scores, again, rtol=0, atol=1e-6)


def test_ablate_gives_a_row_a_set_and_keeps_what_it_trained(splits, tmp_path, a_bundle):
    bundle = a_bundle("lstm2risk", epochs=1)
    sets = [("decay",), ("scaling", "bins")]

    def ablate(bundle, folder) -> tuple[pl.DataFrame, dict[str, int]]:
        table = ablation.ablate(bundle, splits, [0, 1], tmp_path / folder, sets)
        files = (tmp_path / folder).rglob("kept/model.safetensors")
        return table, {str(path.parent): path.stat().st_mtime_ns for path in files}

    one, written = ablate(bundle, "a")
    assert one["deviation"].to_list() == ["none", "decay", "scaling + bins"]
    base, decay, _ = one.to_dicts()
    assert (base["difference"], base["difference_low"], base["speed_ratio"]) == (None, None, 1.0)
    assert decay["difference"] == pytest.approx(decay["auc"] - base["auc"])
    assert decay["what"] == ablation.DEVIATIONS["decay"].what and decay["n_seeds"] == 2
    assert len(written) == 6
    again, kept = ablate(bundle, "a")
    assert again.equals(one) and kept == written  # speeds too: nothing was trained
    other, trained = ablate(bundle, "b")
    figures = ["deviation", "n_seeds", "n", "n_positive", "auc", *bounded("difference")]
    assert other.select(figures).equals(one.select(figures)) and len(trained) == 6
    edited = replace(bundle, train_config=bundle.train_config.model_copy(update={"lr": 0.02}))
    _, anew = ablate(edited, "a")
    assert all(anew[place] > written[place] for place in written)


# ---- the table and the notes


def test_the_table_by_hand():
    """Two frauds and two legitimate orders: the base ranks one pair of four wrong, the other set none."""
    y = np.array([1, 1, 0, 0])
    base = [ablation.Trained(np.array([0.9, 0.4, 0.5, 0.1]), 100.0)] * 2
    better = [ablation.Trained(np.array([0.9, 0.6, 0.5, 0.1]), speed) for speed in (150.0, 250.0)]
    found = ablation.table({(): base, ("pool",): better}, y, ("pool", "decay")).to_dicts()[1]
    assert (found["deviation"], found["n_seeds"], found["n"], found["n_positive"]) == ("pool", 2, 4, 2)
    assert (found["auc"], found["difference"], found["speed_ratio"]) == (1.0, 0.25, 2.0)
    assert found["orders_per_second"] == 200


def test_one_class_has_no_difference():
    trained = [ablation.Trained(np.array([0.9, 0.4]), 1.0)]
    found = ablation.table({(): trained, ("pool",): trained}, np.zeros(2), ("pool", "decay"))
    assert found.select("auc", "difference", "difference_low", "difference_high").row(1) == (None,) * 4


def test_effects_stand_beside_the_notes_of_their_names():
    table = pl.DataFrame(
        {"deviation": ["none", "pool"], "speed_ratio": [1.0, 1.1]}
        | dict(zip(bounded("difference"), ([None, 0.1], [None, 0.0], [None, 0.2]), strict=True))
    )
    notes = ablation.effects(parity.deviations(), {"transformer2risk": table})
    assert len(notes) == len(parity.deviations())
    (pool,) = [note for note in notes if note["deviation"] == "pool"]
    assert (pool["where"], pool["transformer2risk_difference"]) == ("text.py", 0.1)
    named = [note["deviation"] for note in notes if note["deviation"]]
    assert sorted(named) == sorted(ablation.DEVIATIONS)
    assert all(n["transformer2risk_difference"] is None for n in notes if n["deviation"] != "pool")
