"""The legacy re-implementation: published keys and counts, kept behaviours, weight mapping.

Tests named test_defect_NN_kept_* pin faults that parity needs: n3r's own modules must not have them.
"""

import math
import re
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)
from n3r.legacy.trainer import (
    LegacyTextDataset,
    LegacyTokenizer,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
    train_legacy,
)
from n3r.legacy.weights import to_n3r
from n3r.model import RiskModel, configure

PAD = 1
N_TAB = 3
TINY = {"hidden_size": 4, "n_tab_features": N_TAB, "n_embed": 40}
TINY_LSTM = LegacyLSTMConfig(**TINY, embedding_size=4, n_lstm_layers=2)
BLOCKS = {"embedding_size": 8, "n_blocks": 2, "n_heads": 2, "block_size": 12}
TINY_TRANSFORMER = LegacyTransformerConfig(**TINY, **BLOCKS)
BOTH = [(LegacyLSTM2Risk, TINY_LSTM), (LegacyTransformer2Risk, TINY_TRANSFORMER)]
NAMES = ["lstm2risk", "transformer2risk"]


class LetterTokenizer:
    """One id per letter, counting calls: a stands for 7, and so on; specials as published."""

    pad_token = PAD

    def __init__(self):
        self.calls = 0

    def encode(self, text):
        self.calls += 1
        return [ord(letter) - ord("a") + 7 for letter in text]


def build(model_class, config, seed=0):
    """A model with random weights, biases and batch statistics, from its own random state."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        for name, value in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(0, 0.5)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return model.eval()


def dataset(texts, seed=0):
    rng = np.random.default_rng(seed)
    tabular = rng.normal(size=(len(texts), N_TAB)).astype(np.float32)
    labels = (np.arange(len(texts)) % 2).astype(np.float32)
    return LegacyTextDataset(texts, tabular, labels, LetterTokenizer())


def rows_of(data):
    return [data[i] for i in range(len(data))]


# ---- published keys, shapes, counts


def lstm_table():
    text, shapes = "text_projection", {}
    for end in (f"l{layer}{direction}" for layer in range(4) for direction in ("", "_reverse")):
        shapes[f"{text}.lstm.weight_ih_{end}"] = (512, 16 if "l0" in end else 256)
        shapes[f"{text}.lstm.weight_hh_{end}"] = (512, 128)
        shapes |= {f"{text}.lstm.bias_{kind}_{end}": (512,) for kind in ("ih", "hh")}
    for i in (0, 3, 6):
        shapes |= layer_shapes(f"net.{i}.ffwd.0", (512,))
        shapes |= layer_shapes(f"net.{i}.ffwd.1", (2048, 512))
        shapes |= layer_shapes(f"net.{i}.ffwd.3", (512, 2048))
    return shapes | {
        f"{text}.token_embedding_table.weight": (4000, 16),
        **layer_shapes(f"{text}.lstm_pooling.attention", (1, 256)),
        **layer_shapes(f"{text}.lstm_norm", (256,)),
        **layer_shapes("net.9", (128, 512)),
        **layer_shapes("net.12", (1, 128)),
        **tab_table(256),
    }


def transformer_table():
    text, shapes = "text_projection", {}
    for block in (f"{text}.blocks.{b}" for b in range(8)):
        shapes |= {f"{block}.sa.heads.{h}.qkv.weight": (48, 128) for h in range(8)}
        shapes |= layer_shapes(f"{block}.sa.proj", (128, 128))
        shapes |= layer_shapes(f"{block}.ffwd.net.0", (512, 128))
        shapes |= layer_shapes(f"{block}.ffwd.net.3", (128, 512))
        shapes |= layer_shapes(f"{block}.ln1", (128,)) | layer_shapes(f"{block}.ln2", (128,))
    for i in (0, 3, 6, 9):
        shapes |= layer_shapes(f"net.{i}.net.0", (1024, 1024)) | layer_shapes(f"net.{i}.net.2", (1024, 1024))
    return shapes | {
        f"{text}.token_embedding_table.weight": (4000, 128),
        f"{text}.position_embedding_table.weight": (100, 128),
        **layer_shapes(f"{text}.tab_layer", (256, 100)),
        **layer_shapes(f"{text}.attention_pooling.attention", (1, 128)),
        **layer_shapes(f"{text}.proj", (512, 128)),
        **layer_shapes("net.12", (1, 1024)),
        **tab_table(512),
    }


def layer_shapes(name, weight):
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def tab_table(width):
    tab = "tab_projection"
    return {
        **layer_shapes(f"{tab}.0", (100,)),
        **{f"{tab}.0.running_{kind}": (100,) for kind in ("mean", "var")},
        f"{tab}.0.num_batches_tracked": (),
        **layer_shapes(f"{tab}.1", (width, 100)),
        **layer_shapes(f"{tab}.4", (width, width)),
        **layer_shapes(f"{tab}.5", (width,)),
    }


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


LSTM_COUNTS = (7_860_426, 1_400_065, 92_360, 6_368_001)  # in all, of text, tabular branch and the rest
TRANSFORMER_COUNTS = (10_913_354, 2_199_937, 315_592, 8_397_825)


@pytest.mark.parametrize(
    ("model_class", "config", "table", "counts"),
    [
        (LegacyLSTM2Risk, LegacyLSTMConfig(), lstm_table(), LSTM_COUNTS),
        (LegacyTransformer2Risk, LegacyTransformerConfig(), transformer_table(), TRANSFORMER_COUNTS),
    ],
)
def test_published_keys_shapes_and_parameter_counts(model_class, config, table, counts):
    with torch.device("meta"):
        model = model_class(config)
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == table
    parts = (model, model.text_projection, model.tab_projection, model.net)
    assert tuple(map(n_parameters, parts)) == counts
    assert model.state_dict()["tab_projection.0.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize(("model_class", "config"), BOTH)
def test_dropout_and_activation_order_of_the_tail(model_class, config):
    kinds = [type(layer).__name__ for layer in build(model_class, config).net]
    n_blocks = 3 if model_class is LegacyLSTM2Risk else 4
    tail = ["Linear", "ReLU", "Dropout", "Linear"] if n_blocks == 3 else ["Linear"]
    assert kinds == ["_Residual", "ReLU", "Dropout"] * n_blocks + tail + ["Sigmoid"]


# ---- tokenizer


def words(n, seed=0):
    """`n` texts of three made-up words each; one stem in four is a frequent one."""
    rng = np.random.default_rng(seed)
    syllables = np.array(["ka", "ro", "mi", "ten", "sol", "bra", "du", "li", "pe", "xo"])
    return [
        "|".join("".join(rng.choice(syllables, size=3)) for _ in range(2)) + "|" + "marta" for _ in range(n)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return LegacyTokenizer(seed=1, max_vocab_size=1200).train(words(400))


def test_special_tokens_have_the_published_ids_and_a_name_gets_none_before_or_after_it(tokenizer):
    specials = ["[CLS]", "[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MISSING]", "|"]
    assert [tokenizer.encode(token) for token in specials] == [[i] for i in range(7)]
    assert (tokenizer.cls_token, tokenizer.pad_token) == (0, 1)
    assert tokenizer.vocab_size == tokenizer.tokenizer.get_vocab_size()
    marta = tokenizer.encode("marta")
    assert tokenizer.encode("marta|[MISSING]|marta") == [*marta, 6, 5, 6, *marta]
    assert tokenizer.encode("") == []


def test_pairs_rarer_than_min_frequency_are_not_merged():
    texts = ["qzqzqz"] * 4 + ["aman aman aman"] * 100
    common = LegacyTokenizer(min_frequency=25, target_compression=4.0).train(texts)
    every = LegacyTokenizer(min_frequency=1, target_compression=4.0).train(texts)
    assert common.tokenizer.token_to_id("qz") is None
    assert common.tokenizer.token_to_id("am") is not None
    assert every.tokenizer.token_to_id("qz") is not None


def test_defect_39_one_seed_gives_one_tokenizer_whatever_the_global_random_state():
    texts = words(300)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trained = [
        LegacyTokenizer(seed=seed, min_frequency=12, max_vocab_size=1200).train(texts)
        for seed in (3, 3, 4, 5)
    ]
    first, same, *others = (found.tokenizer.get_vocab() for found in trained)
    assert first == same and any(first != other for other in others)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["", " ", ""], "no token"),
        ([], "no token"),
        # One long word: about 40 characters per token, farther from 2.5 than zero is.
        (["abcdefghij" * 4] * 200, r"2\.5 characters per token"),
    ],
)
def test_texts_that_no_vocabulary_fits_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        LegacyTokenizer().train(texts)


def test_defect_13_kept_nfkc_is_applied_outside_the_tokenizer(tokenizer):
    wide = "\uff4d\uff41\uff52\uff54\uff41"  # full-width letters
    assert tokenizer.encode(wide) == tokenizer.encode("marta")
    assert tokenizer.tokenizer.encode(wide).ids != tokenizer.encode("marta")


def test_defect_15_kept_a_typed_special_token_is_masked_as_padding(tokenizer):
    data = LegacyTextDataset(["marta[PAD]marta"], np.zeros((1, N_TAB)), np.zeros(1), tokenizer)
    batch = legacy_transformer_collate(tokenizer.pad_token, 100)(rows_of(data))
    assert batch["attn_mask"].sum() == batch["attn_mask"].numel() - 1


def test_defect_50_kept_every_step_trains_again(monkeypatch):
    fits = []
    original = LegacyTokenizer._fit
    monkeypatch.setattr(LegacyTokenizer, "_fit", lambda self, t, n: fits.append(n) or original(self, t, n))
    LegacyTokenizer(target_compression=9.0).train(words(60))  # out of reach: all 15 steps
    assert (LegacyTokenizer.min_frequency, LegacyTokenizer.target_compression) == (25, 2.5)
    assert len(fits) == 15
    assert fits[:3] == [25_500, 37_750, 43_875]  # below the target the lower bound rises


# ---- data


def test_each_access_tokenises_again():
    data = dataset(["abc", "d"])
    _, _, row = data[0], data[0], data[1]
    assert data.tokenizer.calls == 3
    assert row["text"].tolist() == [10]
    assert row["label"].tolist() == [1.0]
    kinds = [row[key].dtype for key in ("text", "tabular", "label")]
    assert kinds == [torch.int64, torch.float32, torch.float32]


def test_unequal_counts_are_named():
    with pytest.raises(ValueError, match="'texts': 2, 'tabular': 1, 'labels': 2"):
        LegacyTextDataset(["a", "b"], np.zeros((1, 1)), np.zeros(2), LetterTokenizer())


@given(st.lists(st.text("abcdef", min_size=1, max_size=9), min_size=1, max_size=8))
def test_lstm_collate_sorts_every_field_alike(texts):
    data = dataset(texts)
    batch = legacy_lstm_collate(PAD)(rows_of(data))
    lengths = batch["text_length"].tolist()
    order = batch["row_id"].tolist()
    assert lengths == sorted(map(len, texts), reverse=True)
    assert sorted(order) == list(range(len(texts)))
    assert batch["text"].shape == (len(texts), max(lengths))
    assert batch["label"].shape == (len(texts), 1)
    for place, row in enumerate(order):
        ids = data.tokenizer.encode(texts[row])
        assert batch["text"][place].tolist() == ids + [PAD] * (max(lengths) - len(ids))
        assert batch["tabular"][place].tolist() == data.tabular[row].tolist()
        assert batch["label"][place].item() == data.labels[row]
        assert lengths[place] == len(texts[row])


@given(st.lists(st.text("abcdef", max_size=9), min_size=1, max_size=8), st.integers(1, 6))
def test_transformer_collate_keeps_order_and_truncates(texts, block_size):
    data = dataset(texts)
    batch = legacy_transformer_collate(PAD, block_size)(rows_of(data))
    width = batch["text"].shape[1]
    assert batch["row_id"].tolist() == list(range(len(texts)))
    assert width == min(block_size, max(map(len, texts)))
    for place, text in enumerate(texts):
        ids = data.tokenizer.encode(text)[:block_size]
        assert batch["text"][place].tolist() == ids + [PAD] * (width - len(ids))
        assert batch["attn_mask"][place].tolist() == [True] * len(ids) + [False] * (width - len(ids))


def test_tabular_fills_null_only():
    frame = pl.DataFrame({"a": [1, None, 3], "b": [0.5, float("nan"), None], "c": [True, False, None]})
    table = legacy_tabular(frame, ["b", "a", "c"])
    assert table.dtype == np.float32
    assert table.flags["C_CONTIGUOUS"]
    expected = [[0.5, 1, 1], [math.nan, -1, 0], [-1, 3, -1]]
    np.testing.assert_array_equal(table, np.array(expected, dtype=np.float32))
    assert legacy_tabular(frame, []).shape == (3, 0)


def test_tabular_names_every_unusable_column():
    frame = pl.DataFrame({"name": ["Ana Smith"], "a": [1]})
    with pytest.raises(ValueError, match=r"\['name', 'gone'\]") as caught:
        legacy_tabular(frame, ["name", "a", "gone"])
    assert "Ana" not in str(caught.value)


def test_defect_38_kept_nan_reaches_the_score():
    data = dataset(["abc", "de"])
    data.tabular[1, 0] = np.nan
    scores = predict_legacy(build(*BOTH[0]), data)
    assert np.isnan(scores).tolist() == [False, True]


# ---- forward: test_model.py compares it with n3r's at the published depth


@torch.no_grad()
def test_lstm_without_lengths_runs_over_padding():
    """Lengths are optional in the legacy; without them padding is read like text."""
    model = build(*BOTH[0])
    batch = legacy_lstm_collate(PAD)(rows_of(dataset(["abcde", "f"])))
    packed = model(batch)
    unpacked = model({key: value for key, value in batch.items() if key != "text_length"})
    assert unpacked[0].item() == pytest.approx(packed[0].item(), abs=1e-6)
    assert abs(unpacked[1].item() - packed[1].item()) > 1e-5


# ---- faults that are kept


@pytest.mark.parametrize(("kind", "moves"), [(0, False), (1, True)])
def test_defect_10_kept_only_the_transformers_score_depends_on_batch_mates(kind, moves):
    model, data = build(*BOTH[kind]), dataset(["ab", "cdefghijkl"])
    alone, together = (predict_legacy(model, data, batch_size=n) for n in (1, 2))
    assert (abs(alone[0] - together[0]) > 1e-4) == moves
    assert alone[1] == pytest.approx(together[1], abs=1e-6)  # the longest row has no padding


def test_defect_14_kept_an_empty_text_raises_in_the_lstm_and_is_nan_in_the_transformer():
    with pytest.raises(RuntimeError, match="greater than 0"):
        predict_legacy(build(*BOTH[0]), dataset(["abc", ""]))
    scores = predict_legacy(build(*BOTH[1]), dataset(["abc", ""]))
    assert np.isnan(scores).tolist() == [False, True]


def test_defect_11_kept_lengths_must_be_sorted():
    batch = legacy_lstm_collate(PAD)(rows_of(dataset(["abc", "d"])))
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        build(*BOTH[0])({key: value.flip(0) for key, value in batch.items()})


@pytest.mark.parametrize(
    ("texts", "epochs", "message"),
    [(["abc", "de", "f"], 1, "more than 1 value per channel"), (["ab", "cd", "ef", "gh"], 5, "10 steps")],
)
def test_defect_23_kept_a_last_batch_of_one_row_and_ten_steps_in_all_raise(texts, epochs, message):
    with pytest.raises(ValueError, match=message):
        train_legacy(
            build(*BOTH[0]), dataset(texts), dataset(texts), epochs=epochs, batch_size=2, progress=False
        )


# ---- training


def planted(n, seed):
    """Texts whose letter z decides half of the label, a tabular feature the other half."""
    rng = np.random.default_rng(seed)
    texts = ["".join(rng.choice(list("abcdez"), size=rng.integers(2, 8))) for _ in range(n)]
    tabular = rng.normal(size=(n, N_TAB)).astype(np.float32)
    signal = np.array(["z" in text for text in texts]) + tabular[:, 0]
    return LegacyTextDataset(texts, tabular, (signal > 0.6).astype(float), LetterTokenizer())


def trained(model_class, config, seed=0, epochs=6):
    model = build(model_class, config)
    train, test = planted(512, seed=1), planted(256, seed=2)
    options = {"epochs": epochs, "batch_size": 32, "lr": 1e-2, "seed": seed, "progress": False}
    history = train_legacy(model, train, test, **options)
    return model, history, predict_legacy(model, test)


@pytest.mark.parametrize(("model_class", "config"), BOTH)
def test_training_learns_a_planted_signal(model_class, config):
    _, history, scores = trained(model_class, config)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert set(history[0]) == {"epoch", "lr", "train_loss", "train_auc", "seconds", "test_auc"}
    assert history[-1]["test_auc"] > 0.85
    assert history[-1]["train_auc"] > history[0]["train_auc"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert scores.std() > 0.05


def test_training_repeats_bit_for_bit_and_leaves_global_state_alone():
    before = torch.get_rng_state()
    runs = [trained(*BOTH[0], seed=seed, epochs=2) for seed in (5, 5, 6)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(record.pop("seconds") > 0 for run in runs for record in run[1])
    assert runs[0][1] == runs[1][1] != runs[2][1]
    assert np.array_equal(runs[0][2], runs[1][2])
    first, second = (run[0].state_dict() for run in runs[:2])
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_learning_rate_follows_the_published_cycle():
    """128 rows / 32 x 5 epochs = 20 steps; the cosine ends at lr / 25 / 1e4."""
    data = planted(128, seed=1)
    model = build(*BOTH[0])
    history = train_legacy(model, data, data, epochs=5, batch_size=32, lr=1e-2, progress=False)
    rates = [record["lr"] for record in history]
    assert rates == sorted(rates, reverse=True)
    # after 4 of 20 steps: warm-up ends at step 1, then cosine over the 18 steps to 19
    share = (1 + math.cos(math.pi * (4 - 1) / 18)) / 2
    floor = 1e-2 / 25 / 1e4
    assert rates[0] == pytest.approx(floor + (1e-2 - floor) * share, rel=1e-6)


def test_defect_16_kept_weight_decay_reaches_norms_and_biases():
    """A layer whose output is frozen at zero gets no gradient, so decay alone can move it."""
    model, data = build(*BOTH[0]), planted(32, seed=1)
    last = model.net[0].ffwd[3].weight
    last.data.zero_()
    last.requires_grad_(False)
    norm = model.net[0].ffwd[0]
    before = norm.weight.detach().clone(), norm.bias.detach().clone()
    train_legacy(model, data, data, epochs=4, batch_size=32, lr=1.0, progress=False)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 4, pct_start=0.1)
    kept = 1.0
    for _ in range(4):
        kept *= 1 - 0.01 * cycle.get_last_lr()[0]
        optimizer.step()
        if cycle.last_epoch < 3:
            cycle.step()
    assert kept < 0.99
    torch.testing.assert_close(norm.weight.detach(), before[0] * kept)
    torch.testing.assert_close(norm.bias.detach(), before[1] * kept)


def test_defect_18_kept_the_dead_layer_never_moves():
    start = build(*BOTH[1]).state_dict()
    end = trained(*BOTH[1], epochs=1)[0].state_dict()
    still = [key for key in start if torch.equal(start[key], end[key])]
    dead = "text_projection.tab_layer"
    assert still == [f"{dead}.weight", f"{dead}.bias"]


def test_progress_is_a_line_an_epoch_with_loss_rate_and_auc(capsys):
    data = planted(64, seed=1)
    options = {"epochs": 1, "batch_size": 32}
    train_legacy(build(*BOTH[0]), data, data, **options, progress=False)
    assert capsys.readouterr() == ("", "")
    train_legacy(build(*BOTH[0]), data, data, **options, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(
        r"legacy: epoch 1 of 1, loss \d\.\d{3}, lr \S+, auc 0\.\d{3}, on test rows \S+\n", shown.err
    )


@pytest.mark.parametrize(("model_class", "config"), BOTH)
def test_predictions_come_back_in_input_order(model_class, config):
    """The transformer reads padding (defect 10), so that it is asked for texts of one length."""
    model = build(model_class, config)
    texts = ["a", "bcdefg", "hi", "jklmnopq", "rst", "u", "vwxyz"]
    if model_class is LegacyTransformer2Risk:
        texts = ["abc", "bcd", "xyz", "mno", "pqr", "zzz", "hij"]
    one_by_one = predict_legacy(model, dataset(texts), batch_size=1)
    assert len(set(one_by_one.tolist())) == len(texts)
    assert one_by_one.dtype == np.float32 and not model.training
    assert ((one_by_one > 0) & (one_by_one < 1)).all()
    for batch_size in (2, 3, 7):
        np.testing.assert_allclose(predict_legacy(model, dataset(texts), batch_size), one_by_one, atol=1e-6)


# ---- weights for n3r


@pytest.mark.parametrize("kind", [0, 1])
def test_mapped_names_and_shapes_are_n3rs(kind):
    """That scores are the same too is shown in test_model.py, at the published sizes."""
    legacy, name = BOTH[kind], NAMES[kind]
    sizes = asdict(legacy[1])
    state, before = build(*legacy).state_dict(), torch.get_rng_state()
    kept = {key: value.clone() for key, value in state.items()}
    mapped = to_n3r(state, name)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, kept[key]) for key, value in state.items())  # the given ones stay
    model = configure(name, vocab_size=sizes.pop("n_embed"), **sizes)
    RiskModel(model).load_state_dict(mapped, strict=True)


def without(state: dict, key: str) -> dict:
    return {name: value for name, value in state.items() if name != key}


HEAD, BIAS = "text_projection.blocks.0.sa.heads.0.qkv.weight", "text_projection.lstm.bias_hh_l0_reverse"


@pytest.mark.parametrize(
    ("kind", "name", "change", "message"),
    [
        (
            0,
            "lstm2risk",
            lambda s: {**without(s, BIAS), "new": s[BIAS]},
            rf"missing \['{BIAS}'\]",
        ),
        (0, "lstm2risk", lambda s: {**s, "new": s[BIAS]}, r"unknown \['new'\]"),
        (1, "transformer2risk", lambda s: without(s, HEAD), rf"missing \['{HEAD}"),
        (0, "transformer2risk", dict, "not a legacy transformer2risk"),
        (0, "bert", dict, "'bert'.*lstm2risk or transformer2risk"),
    ],
)
def test_other_weights_are_refused_by_the_names_of_their_keys(kind, name, change, message):
    with pytest.raises(ValueError, match=message):
        to_n3r(change(build(*BOTH[kind]).state_dict()), name)
