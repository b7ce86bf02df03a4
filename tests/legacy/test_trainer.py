"""The legacy re-implementation: published keys and counts, kept behaviours, weight mapping.

Tests named test_defect_NN_kept_* pin faults that parity needs: n3r's own modules must not have them.
"""

import math
import re

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from n3r.legacy.trainer import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTextDataset,
    LegacyTokenizer,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
    legacy_lstm_collate,
    legacy_tabular,
    legacy_transformer_collate,
    predict_legacy,
    to_n3r,
    train_legacy,
)

PAD = 1
N_TAB = 3
TINY_LSTM = LegacyLSTMConfig(
    embedding_size=4, hidden_size=4, n_tab_features=N_TAB, n_embed=40, n_lstm_layers=2
)
TINY_TRANSFORMER = LegacyTransformerConfig(
    embedding_size=8,
    hidden_size=4,
    n_tab_features=N_TAB,
    n_embed=40,
    n_blocks=2,
    n_heads=2,
    block_size=12,
)
BOTH = [(LegacyLSTM2Risk, TINY_LSTM), (LegacyTransformer2Risk, TINY_TRANSFORMER)]


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


def lstm_table(n_tab=100, vocab=4000):
    shapes = {
        "text_projection.token_embedding_table.weight": (vocab, 16),
        "text_projection.lstm_pooling.attention.weight": (1, 256),
        "text_projection.lstm_pooling.attention.bias": (1,),
        "text_projection.lstm_norm.weight": (256,),
        "text_projection.lstm_norm.bias": (256,),
        "net.9.weight": (128, 512),
        "net.9.bias": (128,),
        "net.12.weight": (1, 128),
        "net.12.bias": (1,),
    }
    for layer in range(4):
        for direction in ("", "_reverse"):
            end = f"l{layer}{direction}"
            shapes[f"text_projection.lstm.weight_ih_{end}"] = (512, 256 if layer else 16)
            shapes[f"text_projection.lstm.weight_hh_{end}"] = (512, 128)
            shapes[f"text_projection.lstm.bias_ih_{end}"] = (512,)
            shapes[f"text_projection.lstm.bias_hh_{end}"] = (512,)
    for i in (0, 3, 6):
        shapes |= layer_shapes(f"net.{i}.ffwd.0", (512,), 512)
        shapes |= layer_shapes(f"net.{i}.ffwd.1", (2048, 512), 2048)
        shapes |= layer_shapes(f"net.{i}.ffwd.3", (512, 2048), 512)
    return shapes | tab_table(n_tab, 256)


def transformer_table(n_tab=100, vocab=4000):
    shapes = {
        "text_projection.token_embedding_table.weight": (vocab, 128),
        "text_projection.position_embedding_table.weight": (100, 128),
        **layer_shapes("text_projection.tab_layer", (256, n_tab), 256),
        **layer_shapes("text_projection.attention_pooling.attention", (1, 128), 1),
        **layer_shapes("text_projection.proj", (512, 128), 512),
        **layer_shapes("net.12", (1, 1024), 1),
    }
    for b in range(8):
        block = f"text_projection.blocks.{b}"
        shapes |= {f"{block}.sa.heads.{h}.qkv.weight": (48, 128) for h in range(8)}
        shapes |= layer_shapes(f"{block}.sa.proj", (128, 128), 128)
        shapes |= layer_shapes(f"{block}.ffwd.net.0", (512, 128), 512)
        shapes |= layer_shapes(f"{block}.ffwd.net.3", (128, 512), 128)
        shapes |= layer_shapes(f"{block}.ln1", (128,), 128)
        shapes |= layer_shapes(f"{block}.ln2", (128,), 128)
    for i in (0, 3, 6, 9):
        shapes |= layer_shapes(f"net.{i}.net.0", (1024, 1024), 1024)
        shapes |= layer_shapes(f"net.{i}.net.2", (1024, 1024), 1024)
    return shapes | tab_table(n_tab, 512)


def layer_shapes(name, weight, bias):
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


def tab_table(n_tab, width):
    return {
        **layer_shapes("tab_projection.0", (n_tab,), n_tab),
        "tab_projection.0.running_mean": (n_tab,),
        "tab_projection.0.running_var": (n_tab,),
        "tab_projection.0.num_batches_tracked": (),
        **layer_shapes("tab_projection.1", (width, n_tab), width),
        **layer_shapes("tab_projection.4", (width, width), width),
        **layer_shapes("tab_projection.5", (width,), width),
    }


def n_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("model_class", "config", "table", "counts"),
    [
        (
            LegacyLSTM2Risk,
            LegacyLSTMConfig(),
            lstm_table(),
            (7_860_426, 1_400_065, 92_360, 6_368_001),
        ),
        (
            LegacyTransformer2Risk,
            LegacyTransformerConfig(),
            transformer_table(),
            (10_913_354, 2_199_937, 315_592, 8_397_825),
        ),
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


def test_special_tokens_have_the_published_ids(tokenizer):
    specials = ["[CLS]", "[PAD]", "[UNK]", "[BOS]", "[EOS]", "[MISSING]", "|"]
    assert [tokenizer.encode(token) for token in specials] == [[i] for i in range(7)]
    assert (tokenizer.cls_token, tokenizer.pad_token) == (0, 1)
    assert tokenizer.vocab_size == tokenizer.tokenizer.get_vocab_size()


def test_a_name_gets_no_token_before_or_after_it(tokenizer):
    ids = tokenizer.encode("marta|[MISSING]|marta")
    marta = tokenizer.encode("marta")
    assert ids == [*marta, 6, 5, 6, *marta]
    assert tokenizer.encode("") == []


def test_pairs_rarer_than_min_frequency_are_not_merged():
    texts = ["qzqzqz"] * 4 + ["aman aman aman"] * 100
    common = LegacyTokenizer(min_frequency=25, target_compression=4.0).train(texts)
    every = LegacyTokenizer(min_frequency=1, target_compression=4.0).train(texts)
    assert common.tokenizer.token_to_id("qz") is None
    assert common.tokenizer.token_to_id("am") is not None
    assert every.tokenizer.token_to_id("qz") is not None


def test_default_search_settings_are_the_published_ones():
    defaults = LegacyTokenizer()
    assert (defaults.min_frequency, defaults.target_compression) == (25, 2.5)
    assert defaults.max_vocab_size == 50_000


def test_search_moves_towards_the_target():
    """With no frequency floor the size decides: a lower target keeps a smaller vocabulary."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnop"))
    texts = [" ".join("".join(rng.choice(letters, size=6)) for _ in range(4)) for _ in range(400)]
    low, high = (
        LegacyTokenizer(min_frequency=1, target_compression=target, max_vocab_size=4000).train(texts)
        for target in (2.02, 2.06)
    )
    assert 1000 <= low.vocab_size < high.vocab_size <= 4000


def test_defect_39_one_seed_gives_one_tokenizer():
    texts = words(300)

    def vocabulary(seed):
        trained = LegacyTokenizer(seed=seed, min_frequency=12, max_vocab_size=1200).train(texts)
        return trained.tokenizer.get_vocab()

    assert vocabulary(3) == vocabulary(3)
    assert any(vocabulary(3) != vocabulary(seed) for seed in (4, 5))


def test_training_leaves_the_global_random_states_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    LegacyTokenizer(max_vocab_size=1200).train(words(60))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_texts_without_a_token_are_refused():
    with pytest.raises(ValueError, match="no token"):
        LegacyTokenizer().train(["", " ", ""])
    with pytest.raises(ValueError, match="no token"):
        LegacyTokenizer().train([])


def test_an_unreachable_target_is_refused():
    """All texts one long word: about 40 characters per token, farther from 2.5 than zero is."""
    with pytest.raises(ValueError, match=r"2\.5 characters per token"):
        LegacyTokenizer().train(["abcdefghij" * 4] * 200)


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
    assert len(fits) == 15
    assert fits[:3] == [25_500, 37_750, 43_875]  # below the target the lower bound rises


# ---- data


def test_each_access_tokenises_again():
    data = dataset(["abc", "d"])
    _, _, row = data[0], data[0], data[1]
    assert data.tokenizer.calls == 3
    assert row["text"].tolist() == [10]
    assert row["label"].tolist() == [1.0]
    assert {key: row[key].dtype for key in ("text", "tabular", "label")} == {
        "text": torch.int64,
        "tabular": torch.float32,
        "label": torch.float32,
    }


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


def test_tabular_without_columns_keeps_its_rows():
    assert legacy_tabular(pl.DataFrame({"a": [1, 2]}), []).shape == (2, 0)


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


# ---- forward, against computations of our own


def own_tabular(weights, prefix, x):
    """The tabular branch, from its weights and the formulas of its layers."""
    w = {key.removeprefix(prefix): value for key, value in weights.items()}
    x = (x - w["0.running_mean"]) / (w["0.running_var"] + 1e-5).sqrt() * w["0.weight"] + w["0.bias"]
    x = (x @ w["1.weight"].T + w["1.bias"]).clamp(min=0) @ w["4.weight"].T + w["4.bias"]
    return own_norm(x, w["5.weight"], w["5.bias"]).clamp(min=0)


def own_norm(x, weight, bias):
    spread = x.var(-1, correction=0, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt() * weight + bias


def own_pool(steps, weight, bias):
    """Attention pool of one row (T, D), with the softmax spelled out."""
    score = (steps @ weight.T + bias).squeeze(1)
    share = torch.exp(score - score.max())
    return (share / share.sum()) @ steps


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def n3r_lstm_row(w, ids, tabular, hidden):
    """Probability of one row from mapped weights: no padding, so no packing is needed."""
    lstm = nn.LSTM(w["texts.0.encoder.embedding.weight"].shape[1], hidden, 2, bidirectional=True)
    lstm.load_state_dict({k.removeprefix("texts.0.encoder.lstm."): v for k, v in w.items() if ".lstm." in k})
    steps = lstm(w["texts.0.encoder.embedding.weight"][ids])[0]
    text = own_pool(steps, w["texts.0.pool.attention.weight"], w["texts.0.pool.attention.bias"])
    text = own_norm(text, w["texts.0.pool.norm.weight"], w["texts.0.pool.norm.bias"])
    x = torch.cat([text, own_tabular(w, "tabular.net.", tabular)])
    for i in (0, 3, 6):
        name = f"head.net.{i}"
        inner = own_norm(x, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
        inner = linear(inner, w, f"{name}.ffn.0").clamp(min=0)
        x = (x + linear(inner, w, f"{name}.ffn.2")).clamp(min=0)
    logits = linear(linear(x, w, "head.net.9").clamp(min=0), w, "head.net.12")
    return logits.softmax(-1)[1]


def n3r_transformer_row(w, ids, tabular, n_heads):
    """Probability of one row from mapped weights, all heads in one product, no padding."""
    x = w["texts.0.encoder.embedding.weight"][ids] + w["texts.0.encoder.position.weight"][: len(ids)]
    width = x.shape[1]
    for b in range(2):
        name = f"texts.0.encoder.blocks.{b}"
        y = own_norm(x, w[f"{name}.norm1.weight"], w[f"{name}.norm1.bias"])
        qkv = (y @ w[f"{name}.qkv.weight"].T).view(len(ids), 3, n_heads, width // n_heads)
        mixed = F.scaled_dot_product_attention(*qkv.permute(1, 2, 0, 3))  # (heads, T, D / heads)
        x = x + linear(mixed.transpose(0, 1).reshape(len(ids), width), w, f"{name}.proj")
        y = own_norm(x, w[f"{name}.norm2.weight"], w[f"{name}.norm2.bias"])
        x = x + linear(linear(y, w, f"{name}.ffn.0").clamp(min=0), w, f"{name}.ffn.3")
    pooled = own_pool(x, w["texts.0.pool.attention.weight"], w["texts.0.pool.attention.bias"])
    x = torch.cat([linear(pooled, w, "texts.0.pool.proj"), own_tabular(w, "tabular.net.", tabular)])
    for i in (0, 3, 6, 9):
        inner = linear(x, w, f"head.net.{i}.ffn.0").clamp(min=0)
        x = (x + linear(inner, w, f"head.net.{i}.ffn.2")).clamp(min=0)
    return linear(x, w, "head.net.12").softmax(-1)[1]


@torch.no_grad()
def test_lstm_packed_batch_equals_each_row_alone_with_mapped_weights():
    model = build(*BOTH[0])
    data = dataset(["abcde", "f", "ghij", "klmnopqrs"])
    mapped = to_n3r(model.state_dict(), "lstm2risk")
    own = [
        n3r_lstm_row(mapped, row["text"], row["tabular"], TINY_LSTM.hidden_size).item()
        for row in rows_of(data)
    ]
    np.testing.assert_allclose(predict_legacy(model, data), own, atol=1e-6)
    assert np.ptp(own) > 1e-3  # otherwise a constant would pass


@torch.no_grad()
def test_transformer_without_padding_equals_fused_attention_with_mapped_weights():
    model = build(*BOTH[1])
    data = dataset(["abcde", "fghij", "klmno"])
    mapped = to_n3r(model.state_dict(), "transformer2risk")
    own = [
        n3r_transformer_row(mapped, row["text"], row["tabular"], TINY_TRANSFORMER.n_heads).item()
        for row in rows_of(data)
    ]
    np.testing.assert_allclose(predict_legacy(model, data), own, atol=1e-6)
    assert np.ptp(own) > 1e-3


@torch.no_grad()
def test_lstm_without_lengths_runs_over_padding():
    """Lengths are optional in the legacy; without them padding is read like text."""
    model = build(*BOTH[0])
    batch = legacy_lstm_collate(PAD)(rows_of(dataset(["abcde", "f"])))
    packed = model(batch)
    unpacked = model({key: value for key, value in batch.items() if key != "text_length"})
    assert unpacked[0].item() == pytest.approx(packed[0].item(), abs=1e-6)
    assert abs(unpacked[1].item() - packed[1].item()) > 1e-5


@torch.no_grad()
def test_probability_shape():
    for model_class, config in BOTH:
        model = build(model_class, config)
        data = dataset(["abc", "de"])
        collate = legacy_lstm_collate(PAD)
        if model_class is LegacyTransformer2Risk:
            collate = legacy_transformer_collate(PAD, config.block_size)
        scores = model(collate(rows_of(data)))
        assert scores.shape == (2, 1)
        assert ((scores > 0) & (scores < 1)).all()


# ---- faults that are kept


def test_defect_10_kept_transformer_score_depends_on_batch_mates():
    model = build(*BOTH[1])
    data = dataset(["ab", "cdefghijkl"])
    alone = predict_legacy(model, data, batch_size=1)
    together = predict_legacy(model, data, batch_size=2)
    assert abs(alone[0] - together[0]) > 1e-4
    assert alone[1] == pytest.approx(together[1], abs=1e-6)  # the longest row has no padding


def test_defect_10_lstm_score_does_not_depend_on_batch_mates():
    model = build(*BOTH[0])
    data = dataset(["ab", "cdefghijkl", "m"])
    alone, together = (predict_legacy(model, data, batch_size=n) for n in (1, 3))
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_defect_14_kept_lstm_raises_on_an_empty_text():
    with pytest.raises(RuntimeError, match="greater than 0"):
        predict_legacy(build(*BOTH[0]), dataset(["abc", ""]))


def test_defect_14_kept_transformer_scores_an_empty_text_as_nan():
    scores = predict_legacy(build(*BOTH[1]), dataset(["abc", ""]))
    assert np.isnan(scores).tolist() == [False, True]


def test_defect_11_kept_lengths_must_be_sorted():
    batch = legacy_lstm_collate(PAD)(rows_of(dataset(["abc", "d"])))
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        build(*BOTH[0])({key: value.flip(0) for key, value in batch.items()})


def test_defect_23_kept_a_last_batch_of_one_row_raises_in_training():
    data = dataset(["abc", "de", "f"])
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        train_legacy(build(*BOTH[0]), data, data, epochs=1, batch_size=2, progress=False)


def test_defect_23_kept_ten_steps_in_all_raise():
    data = dataset(["ab", "cd", "ef", "gh"])
    with pytest.raises(ValueError, match="10 steps"):
        train_legacy(build(*BOTH[0]), data, data, epochs=5, batch_size=2, progress=False)


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


def test_progress_goes_to_stderr_with_loss_and_rate(capsys):
    data = planted(64, seed=1)
    options = {"epochs": 1, "batch_size": 32}
    train_legacy(build(*BOTH[0]), data, data, **options, progress=False)
    assert capsys.readouterr() == ("", "")
    train_legacy(build(*BOTH[0]), data, data, **options, progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(r"loss=\d\.\d{4}, lr=\d", shown.err)


@pytest.mark.parametrize(("model_class", "config"), BOTH)
def test_predictions_come_back_in_input_order(model_class, config):
    """The transformer reads padding (defect 10), so its reference is one batch of all rows."""
    model = build(model_class, config)
    texts = ["a", "bcdefg", "hi", "jklmnopq", "rst", "u", "vwxyz"]
    data = dataset(texts)
    one_by_one = predict_legacy(model, data, batch_size=1)
    assert len(set(one_by_one.tolist())) == len(texts)
    if model_class is LegacyLSTM2Risk:
        for batch_size in (2, 3, 7):
            scores = predict_legacy(model, data, batch_size)
            np.testing.assert_allclose(scores, one_by_one, atol=1e-6)
    else:
        batch = legacy_transformer_collate(PAD, config.block_size)(rows_of(data))
        with torch.no_grad():
            expected = model(batch).squeeze(1).numpy()
        np.testing.assert_allclose(predict_legacy(model, data, 7), expected, atol=1e-6)
    assert one_by_one.dtype == np.float32
    assert not model.training


# ---- weights for n3r


def n3r_shapes(model_class):
    """The names and shapes n3r gives its parameters, at the tiny sizes."""
    tab = {key.replace("tab_projection", "tabular.net"): s for key, s in tab_table(N_TAB, 8).items()}
    if model_class == "lstm2risk":
        shapes = {
            "texts.0.encoder.embedding.weight": (40, 4),
            **layer_shapes("texts.0.pool.attention", (1, 8), 1),
            **layer_shapes("texts.0.pool.norm", (8,), 8),
            **layer_shapes("head.net.9", (4, 16), 4),
            **layer_shapes("head.net.12", (2, 4), 2),
        }
        for end in ("l0", "l0_reverse", "l1", "l1_reverse"):
            shapes[f"texts.0.encoder.lstm.weight_ih_{end}"] = (16, 8 if "1" in end else 4)
            shapes[f"texts.0.encoder.lstm.weight_hh_{end}"] = (16, 4)
            shapes[f"texts.0.encoder.lstm.bias_ih_{end}"] = (16,)
            shapes[f"texts.0.encoder.lstm.bias_hh_{end}"] = (16,)
        for i in (0, 3, 6):
            shapes |= layer_shapes(f"head.net.{i}.norm", (16,), 16)
            shapes |= layer_shapes(f"head.net.{i}.ffn.0", (64, 16), 64)
            shapes |= layer_shapes(f"head.net.{i}.ffn.2", (16, 64), 16)
        return shapes | tab
    shapes = {
        "texts.0.encoder.embedding.weight": (40, 8),
        "texts.0.encoder.position.weight": (12, 8),
        **layer_shapes("texts.0.pool.attention", (1, 8), 1),
        **layer_shapes("texts.0.pool.proj", (8, 8), 8),
        **layer_shapes("head.net.12", (2, 16), 2),
    }
    for b in range(2):
        name = f"texts.0.encoder.blocks.{b}"
        shapes[f"{name}.qkv.weight"] = (24, 8)
        shapes |= layer_shapes(f"{name}.proj", (8, 8), 8)
        shapes |= layer_shapes(f"{name}.ffn.0", (32, 8), 32)
        shapes |= layer_shapes(f"{name}.ffn.3", (8, 32), 8)
        shapes |= layer_shapes(f"{name}.norm1", (8,), 8)
        shapes |= layer_shapes(f"{name}.norm2", (8,), 8)
    for i in (0, 3, 6, 9):
        shapes |= layer_shapes(f"head.net.{i}.ffn.0", (16, 16), 16)
        shapes |= layer_shapes(f"head.net.{i}.ffn.2", (16, 16), 16)
    return shapes | tab


@pytest.mark.parametrize(("legacy", "model_class"), [(BOTH[0], "lstm2risk"), (BOTH[1], "transformer2risk")])
def test_mapped_names_and_shapes(legacy, model_class):
    mapped = to_n3r(build(*legacy).state_dict(), model_class)
    assert {key: tuple(value.shape) for key, value in mapped.items()} == n3r_shapes(model_class)


def test_head_rows_are_queries_then_keys_then_values():
    state = build(*BOTH[1]).state_dict()
    mapped = to_n3r(state, "transformer2risk")["texts.0.encoder.blocks.1.qkv.weight"]
    first, second = (state[f"text_projection.blocks.1.sa.heads.{h}.qkv.weight"] for h in (0, 1))
    assert torch.equal(mapped[0:4], first[0:4])  # queries of head 0, then of head 1
    assert torch.equal(mapped[4:8], second[0:4])
    assert torch.equal(mapped[8:12], first[4:8])
    assert torch.equal(mapped[20:24], second[8:12])


@pytest.mark.parametrize(("legacy", "model_class"), [(BOTH[0], "lstm2risk"), (BOTH[1], "transformer2risk")])
def test_two_logits_give_the_sigmoid(legacy, model_class):
    state = build(*legacy).state_dict()
    mapped = to_n3r(state, model_class)
    x = torch.randn(50, state["net.12.weight"].shape[1], generator=torch.Generator().manual_seed(0))
    sigmoid = linear(x, state, "net.12").sigmoid().squeeze(1)
    softmax = linear(x, mapped, "head.net.12").softmax(-1)[:, 1]
    torch.testing.assert_close(softmax, sigmoid, atol=1e-6, rtol=0)
    assert state["net.12.weight"].shape[0] == 1  # the given weights are not changed


def test_a_wrong_state_dict_names_its_keys():
    state = build(*BOTH[0]).state_dict()
    state["net.9.scale"] = state.pop("net.9.bias")
    with pytest.raises(ValueError, match=r"missing \['net\.9\.bias'\], unknown \['net\.9\.scale'\]"):
        to_n3r(state, "lstm2risk")


def test_a_missing_head_or_layer_is_named():
    state = build(*BOTH[1]).state_dict()
    del state["text_projection.blocks.0.sa.heads.0.qkv.weight"]
    with pytest.raises(ValueError, match=r"missing \['text_projection\.blocks\.0\.sa\.heads\.0"):
        to_n3r(state, "transformer2risk")
    state = build(*BOTH[0]).state_dict()
    del state["text_projection.lstm.bias_hh_l0_reverse"]
    with pytest.raises(ValueError, match=r"bias_hh_l0_reverse"):
        to_n3r(state, "lstm2risk")


def test_the_other_models_weights_are_refused():
    with pytest.raises(ValueError, match="not a legacy transformer2risk"):
        to_n3r(build(*BOTH[0]).state_dict(), "transformer2risk")
    with pytest.raises(ValueError, match="'bert'.*lstm2risk or transformer2risk"):
        to_n3r({}, "bert")


def test_mapping_leaves_the_global_random_state_alone():
    state = build(*BOTH[1]).state_dict()
    before = torch.get_rng_state()
    to_n3r(state, "transformer2risk")
    assert torch.equal(before, torch.get_rng_state())
