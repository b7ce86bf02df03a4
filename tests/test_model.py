"""The risk models: the legacy's probabilities from its weights, and what every class keeps to."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from n3r.fusion import FUSIONS
from n3r.kernels import Dropout
from n3r.legacy.models import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
)
from n3r.legacy.weights import to_n3r
from n3r.model import (
    MODEL_CLASSES,
    TEXTS,
    Batch,
    LSTM2Risk,
    ModelConfig,
    MultimodalBert,
    RiskModel,
    Transformer2Risk,
    configure,
    model_select,
)
from n3r.registry import ALIASES
from n3r.tabular import PiecewiseLinear, TabAE, TabularEncoder, WeighedNorm

VOCAB, F, MAX_TOKENS = 30, 3, 9
TINY = {
    "lstm": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "lstm_ends": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 1},
    "transformer": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 2,
        "n_heads": 2,
        "block_size": 12,
    },
    "cnn": {"embedding_size": 8, "kernel_sizes": [3, 5], "n_channels": [6, 8], "hidden_common_dim": 8},
    "bert": {
        "embedding_size": 16,
        "n_blocks": 2,
        "n_heads": 2,
        "block_size": 32,
        "hidden_common_dim": 8,
    },
}
every = pytest.mark.parametrize("model_class", list(MODEL_CLASSES))
# Classes that have every encoder, fusion, head and tabular encoder between them, and one with two texts.
EACH_PART = ["lstm2risk", "transformer2risk", "bimodal_cnn", "bimodal_moe", "bimodal_gate_fusion"]
EACH_PART += ["trimodal_cross_attn", "lstm"]
each_part = pytest.mark.parametrize("model_class", EACH_PART)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with biases, norms and batch statistics drawn anew: none is a neutral 0 or 1."""
    draw = generator(seed)
    for name, value in model.state_dict().items():
        if name.endswith(("running_var", "LayerNorm.weight")):
            value.uniform_(0.5, 2, generator=draw)
        elif value.is_floating_point() and (value.ndim == 1 or "embedding" in name):
            value.normal_(0, 0.5, generator=draw)
        elif ".bert." in name or "pool.dense" in name:  # they start so near 0 that nothing would show
            value.normal_(0, value.shape[1] ** -0.5, generator=draw)
    return model.eval()


def dimensions(model_class: str, **changes) -> dict:
    """Tiny ones, with tabular features where the class takes them."""
    row = MODEL_CLASSES[model_class]
    sizes = TINY[changes.get("encoder", row.encoder)]
    heads = {"fusion_heads": 2} if changes.get("fusion", row.fusion) == "cross_attention" else {}
    return {"vocab_size": VOCAB, "n_tab_features": F if row.tabular else 0, **sizes, **heads, **changes}


def tiny(model_class: str, seed: int = 0, **changes) -> RiskModel:
    """A tiny model with random weights; the same seed gives the same."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomised(model_select(model_class, **dimensions(model_class, **changes)), seed)


frozen = cache(tiny)  # for tests that only read it


def batch_of(model: RiskModel, lengths: list[int], extra: int = 0, seed: int = 0) -> Batch:
    """Random rows of these lengths; padded positions hold random ids too, since they must not matter.

    For BERT a length becomes one to three chunks of other lengths. A second text has the lengths reversed.
    """
    draw = generator(seed)
    batch = {"tabular": torch.randn(len(lengths), model.config.n_tab_features, generator=draw)}
    keys = [key for key in model.inputs if key != "tabular"]
    for ids, mask in zip(keys[::2], keys[1::2], strict=True):
        n = torch.tensor(lengths if ids == "text" else lengths[::-1])
        if model.config.encoder == "bert":
            n_chunks = 1 + n % 3
            chunk = torch.arange(int(n_chunks.max()) + (extra > 0))  # (K,)
            n = (1 + (n[:, None] + 2 * chunk) % MAX_TOKENS) * (chunk < n_chunks[:, None])  # (B, K)
        batch[mask] = torch.arange(max(1, int(n.max()) + extra)) < n[..., None]
        batch[ids] = torch.randint(0, VOCAB, batch[mask].shape, generator=draw)
    return batch


def alone(batch: Batch, row: int) -> Batch:
    """One row of a batch, without the padding that its batch-mates asked for."""
    one = {name: value[row : row + 1] for name, value in batch.items()}
    for ids, mask in (("text", "attn_mask"), ("secondary", "secondary_mask")):
        if mask in one:
            length = max(1, int(one[mask].sum(dim=-1).max()))
            kept = [slice(None)] * (one[mask].ndim - 1) + [slice(length)]
            if one[mask].ndim == 3:
                kept[1] = one[mask][0].any(dim=1)
            one[ids], one[mask] = one[ids][tuple(kept)], one[mask][tuple(kept)]
    return one


def probability(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch).softmax(dim=1)[:, 1]


def last_layer(model: RiskModel) -> nn.Linear:
    return [module for module in model.head.modules() if isinstance(module, nn.Linear)][-1]


def message(model_class: str, **changes) -> str:
    """What the user reads when these dimensions are refused: one line, without a validator's noise."""
    with pytest.raises(ValueError) as caught:
        model_select(model_class, **changes)
    assert type(caught.value) is ValueError
    text = str(caught.value)
    for noise in ("\n", "pydantic", "validation error", "Value error", "input_type", "errors.", "  ", "[]"):
        assert noise not in text
    return text


# ---- the registry

CLASSES = ["lstm2risk", "transformer2risk", "bimodal_bert", "bimodal_cnn", "bimodal_moe"]
CLASSES += ["bimodal_gate_fusion", "bimodal_cross_attn"]
CLASSES += ["trimodal_bert", "trimodal_cross_attn", "trimodal_gate_fusion", "bert", "lstm"]
OTHER_NAMES = {
    "bimodal": "bimodal_bert",
    "trimodal": "trimodal_bert",
    "bimodal_lstm": "lstm2risk",
    "bimodal_transformer": "transformer2risk",
    "multimodal_bert": "bimodal_bert",
    "multimodal_cnn": "bimodal_cnn",
    "multimodal_moe": "bimodal_moe",
    "multimodal_gate_fusion": "bimodal_gate_fusion",
    "multimodal_cross_attn": "bimodal_cross_attn",
}


def test_each_part_is_in_a_class_that_stands_for_it():
    kinds = ("encoder", "fusion", "head", "tabular", "n_texts")
    rows = [[MODEL_CLASSES[name] for name in names] for names in (MODEL_CLASSES, EACH_PART)]
    parts = [{(kind, getattr(row, kind)) for row in found for kind in kinds} for found in rows]
    assert parts[0] == parts[1]


def test_defect_05_classes_and_aliases_are_the_published_names():
    assert list(MODEL_CLASSES) == CLASSES
    assert ALIASES == OTHER_NAMES
    for alias, name in ALIASES.items():
        assert configure(alias, vocab_size=9, n_tab_features=2) == configure(
            name, vocab_size=9, n_tab_features=2
        )
    assert tiny("bimodal_bert").config == MultimodalBert(**dimensions("bimodal_bert")).config


@pytest.mark.parametrize("wrong", ["gpt", "", "LSTM2Risk", "bimodal bert", None])
def test_defect_05_an_unknown_class_lists_all(wrong):
    text = message(wrong, vocab_size=9, n_tab_features=2)
    assert repr(wrong) in text
    assert all(name in text for name in [*MODEL_CLASSES, *ALIASES])


TRANSFORMER = {"embedding_size": 128, "hidden_size": 256, "n_blocks": 8, "n_heads": 8, "block_size": 100}
CNN = {"kernel_sizes": [3, 5, 7], "n_channels": [100, 100], "hidden_common_dim": 100}


@pytest.mark.parametrize(
    ("model_class", "published"),
    [
        ("lstm2risk", {"embedding_size": 16, "hidden_size": 128, "n_lstm_layers": 4, "dropout_rate": 0.2}),
        ("transformer2risk", {**TRANSFORMER, "dropout_rate": 0.2}),
        ("lstm", {"embedding_size": 100, "hidden_size": 100, "n_lstm_layers": 1}),
        ("bimodal_cnn", {**CNN, "dropout_rate": 0.5}),
        ("bimodal_bert", {"hidden_common_dim": 100, "dropout_rate": 0.1}),
    ],
)
def test_published_dimensions_are_the_defaults(model_class, published):
    config = configure(model_class, vocab_size=9, n_tab_features=0 if model_class == "lstm" else 2)
    assert config.model_dump(include=set(published)) == published


@every
def test_each_class_builds_as_published_from_its_vocabulary_alone(model_class):
    n_tab = F if MODEL_CLASSES[model_class].tabular else 0
    with torch.device("meta"):
        model = model_select(model_class, vocab_size=30_522, n_tab_features=n_tab)
    assert len(model.texts) == 1 + model_class.startswith("trimodal")
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000


# ---- the legacy's models


@pytest.mark.parametrize(
    ("build", "expected"),
    [(LSTM2Risk, 7_860_555), (Transformer2Risk, 10_888_523)],
    ids=["lstm2risk", "transformer2risk"],
)
def test_published_dimensions_have_the_published_size(build, expected):
    """The legacy's 7,860,426 and 10,913,354, plus a second logit, less the never-used tab_layer."""
    with torch.device("meta"):
        model = build(vocab_size=4000, n_tab_features=100)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


LEGACY = {
    "lstm2risk": (LegacyLSTM2Risk, LegacyLSTMConfig),
    "transformer2risk": (LegacyTransformer2Risk, LegacyTransformerConfig),
}


def legacy_pair(model_class: str) -> tuple[nn.Module, RiskModel]:
    """A legacy model of the published depth with random weights, and ours with the same."""
    build, config = LEGACY[model_class]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = randomised(build(config(n_embed=VOCAB, n_tab_features=F)))
    ours = model_select(model_class, vocab_size=VOCAB, n_tab_features=F).eval()
    ours.load_state_dict(to_n3r(theirs.state_dict(), model_class))
    return theirs, ours


def test_the_legacys_lstm_probabilities_from_its_weights():
    theirs, ours = legacy_pair("lstm2risk")
    lengths = [19, 12, 12, 5, 1]  # the legacy needs them sorted
    batch = {**batch_of(ours, lengths), "text_length": torch.tensor(lengths)}
    with torch.no_grad():
        expected = theirs(batch).squeeze(1)
    assert expected.std() > 1e-3
    torch.testing.assert_close(probability(ours, batch), expected, rtol=0, atol=1e-6)


def test_the_legacys_transformer_probabilities_from_its_weights_where_nothing_is_padded():
    theirs, ours = legacy_pair("transformer2risk")
    batch = batch_of(ours, [17] * 5)
    with torch.no_grad():
        expected = theirs(batch).squeeze(1)
        assert expected.std() > 1e-3
        torch.testing.assert_close(probability(ours, batch), expected, rtol=0, atol=1e-6)
        # NOTE[DIFF] the legacy pools over padding: a padded row's score is another there, not here.
        padded = {**batch, "attn_mask": torch.arange(17) < torch.tensor([[17], [9], [4], [2], [1]])}
        moved = (theirs(padded).squeeze(1) - probability(ours, padded)).abs()
    assert moved[0] < 1e-6
    assert moved[1:].max() > 1e-3


# ---- what a score may depend on


@each_part
@given(st.lists(st.integers(0, MAX_TOKENS), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 99))
def test_defect_10_11_14_19_a_score_does_not_depend_on_batch_mates_or_padding(
    model_class, lengths, extra, seed
):
    model = frozen(model_class)
    batch = batch_of(model, lengths, extra, seed)
    together = probability(model, batch)
    assert torch.isfinite(together).all()
    for row in range(len(lengths)):
        assert probability(model, alone(batch, row)).item() == pytest.approx(together[row].item(), abs=1e-6)


@each_part
def test_defect_01_each_token_of_each_text_and_each_tabular_column_moves_the_score(model_class):
    """A row in `VOCAB` copies that differ in one token."""
    model = frozen(model_class)
    one = batch_of(model, [5])
    batch = {name: value.repeat(VOCAB, *[1] * (value.ndim - 1)) for name, value in one.items()}
    for ids, mask in (("text", "attn_mask"), ("secondary", "secondary_mask"))[: len(model.texts)]:
        places = one[mask][0].nonzero().tolist()
        assert places
        for place in places:
            text = batch[ids].clone()
            text[(slice(None), *place)] = torch.arange(VOCAB)
            assert probability(model, {**batch, ids: text}).std() > 1e-5
    for column in range(model.config.n_tab_features):
        tabular = batch["tabular"].clone()
        tabular[:, column] = torch.linspace(-2, 2, VOCAB)
        assert probability(model, {**batch, "tabular": tabular}).std() > 1e-5


def test_defect_19_a_row_without_any_token_is_refused_by_every_bert_class():
    for name in (name for name, row in MODEL_CLASSES.items() if row.encoder == "bert"):
        model = frozen(name)
        batch = batch_of(model, [3, 5])
        last_mask = [key for key in model.inputs if key.endswith("mask")][-1]
        batch[last_mask][1] = False
        with pytest.raises(ValueError, match="chunks are all empty"):
            model(batch)


# ---- what learns

# A shift of all scores of a softmax alike changes nothing: these are biases of the scores of one, and a key's
# bias adds the same to all of a query's scores. Their true gradient is 0, and rounding is what shows.
SHIFTS = ("pool.attention.bias", "attention.self.key.bias")


def without_gradient(model: RiskModel) -> list[str]:
    """Parameters that a loss over a batch of mixed lengths does not reach with a finite gradient."""
    model.train()
    loss = nn.functional.cross_entropy(
        model(batch_of(model, [9, 7, 3, 1, 0, 5])), torch.tensor([0, 1, 0, 1, 1, 0])
    )
    loss.backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not 1e-7 <= parameter.grad.abs().max() < torch.inf
    ]
    return [name for name in still if not name.endswith(SHIFTS)]


@every
def test_defect_14_17_18_every_parameter_gets_a_gradient_from_short_and_empty_texts_too(model_class):
    bins = 3 if MODEL_CLASSES[model_class].tabular else 0
    assert without_gradient(tiny(model_class, dropout_rate=0.0, n_tab_bins=bins)) == []


WITHOUT_TABULAR = [name for name, row in MODEL_CLASSES.items() if not row.needs_tabular]


@pytest.mark.parametrize("model_class", WITHOUT_TABULAR)
def test_defect_22_no_tabular_columns(model_class):
    model = tiny(model_class, n_tab_features=0, dropout_rate=0.0)
    assert model.tabular is None
    assert "tabular" not in model.inputs
    batch = batch_of(model, [5, 2, 0])
    del batch["tabular"]
    assert model(batch).shape == (3, 2)
    assert without_gradient(model) == []


@pytest.mark.parametrize("fusion", list(FUSIONS))
@pytest.mark.parametrize("encoder", list(TEXTS))
@pytest.mark.parametrize("n_tab", [0, F])
def test_defect_22_every_encoder_runs_and_learns_with_every_fusion(n_tab, encoder, fusion):
    model = tiny("trimodal_bert", encoder=encoder, fusion=fusion, n_tab_features=n_tab, dropout_rate=0.0)
    d = model.texts[0].d_out
    n = len(model.texts) + bool(n_tab)
    assert model.fusion.d_out == (n * d if fusion in ("concat", "cross_attention") else d)
    assert model(batch_of(model, [4, 9, 1])).shape == (3, 2)
    assert without_gradient(model) == []


def between_layers(model_class: str) -> dict:
    """The published `lstm` drops between its layers alone, and has one."""
    return {"n_lstm_layers": 2} if model_class == "lstm" else {}


@every
def test_defect_04_dropout_takes_effect_everywhere_in_training_alone(model_class):
    for rate in (0.0, 0.4):
        model = tiny(model_class, dropout_rate=rate, **between_layers(model_class))
        rates = {module.p for module in model.modules() if isinstance(module, (nn.Dropout, Dropout))}
        assert rate in rates <= {rate, 0.0}
        batch = batch_of(model, [9, 6])
        assert torch.equal(model(batch), model(batch))
        model.train()
        assert torch.equal(model(batch), model(batch)) == (rate == 0)


# ---- logits, seeds, configs


@each_part
@pytest.mark.parametrize("n_classes", [2, 5])
def test_defect_06_logits_of_each_row_and_class(model_class, n_classes):
    model = tiny(model_class, n_classes=n_classes)
    batch = batch_of(model, [3, 0, 8, 1])
    logits = model(batch)
    assert logits.shape == (4, n_classes)
    assert model(alone(batch, 2)).shape == (1, n_classes)
    with torch.no_grad():
        last_layer(model).bias += 10
    torch.testing.assert_close(model(batch), logits + 10)  # nothing squashes them


@each_part
def test_a_model_is_rebuilt_from_its_config_as_json(model_class):
    bins = 4 if MODEL_CLASSES[model_class].tabular else 0
    model = tiny(model_class, dropout_rate=0.3, n_tab_bins=bins, n_classes=3)
    config = ModelConfig(**json.loads(json.dumps(model.config.model_dump())))
    assert config == model.config
    again = RiskModel(config).eval()
    batch = batch_of(model, [5, 0, 3])
    assert not torch.equal(again(batch), model(batch))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch), model(batch))


def test_a_config_is_frozen_and_takes_no_unknown_field():
    config = tiny("lstm2risk").config
    with pytest.raises(ValueError, match="frozen"):
        config.hidden_size = 7
    with pytest.raises(ValueError, match="n_layers"):
        ModelConfig(**config.model_dump(), n_layers=3)


# ---- dimensions

LSTM, POOL = "texts.0.encoder.lstm", "texts.0.pool"
BERT = "texts.0.encoder.bert"


@pytest.mark.parametrize(
    ("model_class", "name", "value", "changed"),
    [
        ("lstm2risk", "vocab_size", 31, "texts.0.encoder.embedding.weight"),
        ("lstm2risk", "n_tab_features", 4, "tabular.net.1.weight"),
        ("lstm2risk", "n_tab_bins", 5, "tabular.net.1.weight"),
        ("lstm2risk", "n_classes", 3, "head.net.12.weight"),
        ("lstm2risk", "embedding_size", 5, "texts.0.encoder.embedding.weight"),
        ("lstm2risk", "hidden_size", 7, f"{LSTM}.weight_hh_l0_reverse"),
        ("lstm2risk", "n_lstm_layers", 3, f"{LSTM}.weight_hh_l2"),
        ("transformer2risk", "embedding_size", 10, "texts.0.encoder.blocks.0.qkv.weight"),
        ("transformer2risk", "hidden_size", 7, f"{POOL}.proj.weight"),
        ("transformer2risk", "n_blocks", 3, "texts.0.encoder.blocks.2.qkv.weight"),
        ("transformer2risk", "block_size", 13, "texts.0.encoder.position.weight"),
        ("transformer2risk", "n_classes", 3, "head.net.12.weight"),
        ("lstm", "embedding_size", 5, "texts.0.encoder.embedding.weight"),
        ("lstm", "hidden_size", 7, f"{LSTM}.weight_hh_l0"),
        ("lstm", "n_lstm_layers", 2, f"{LSTM}.weight_hh_l1"),
        ("bimodal_cnn", "embedding_size", 5, "texts.0.encoder.embedding.weight"),
        ("bimodal_cnn", "kernel_sizes", [3, 7], "texts.0.encoder.branches.1.0.weight"),
        ("bimodal_cnn", "n_channels", [6, 6, 8], "texts.0.encoder.branches.0.2.weight"),
        ("bimodal_cnn", "hidden_common_dim", 9, f"{POOL}.proj.weight"),
        ("bimodal_bert", "vocab_size", 31, f"{BERT}.embeddings.word_embeddings.weight"),
        ("bimodal_bert", "n_tab_bins", 5, "tabular.net.1.weight"),
        ("bimodal_bert", "hidden_common_dim", 9, f"{POOL}.proj.weight"),
        ("bert", "embedding_size", 20, f"{BERT}.embeddings.word_embeddings.weight"),
        ("bert", "n_blocks", 3, f"{BERT}.encoder.layer.2.output.dense.weight"),
        ("bert", "block_size", 33, f"{BERT}.embeddings.position_embeddings.weight"),
        ("trimodal_bert", "hidden_common_dim", 9, "texts.1.pool.proj.weight"),
        ("bimodal_moe", "fusion_dim", 5, "fusion.experts.1.weight"),
        ("bimodal_gate_fusion", "fusion_dim", 5, "fusion.proj.0.weight"),
        ("bimodal_cross_attn", "fusion_dim", 6, "fusion.looks.0.query.weight"),
        ("trimodal_cross_attn", "n_tab_features", 4, "feature_tokens.weight"),
    ],
)
def test_defect_04_dimensions_take_effect(model_class, name, value, changed):
    before, after = frozen(model_class), tiny(model_class, **{name: value})
    if model_class != "bert":  # whose config keeps the architecture
        assert getattr(after.config, name) == value != getattr(before.config, name)
    shapes = [
        {key: tuple(value.shape) for key, value in model.state_dict().items()} for model in (before, after)
    ]
    assert shapes[1][changed] != shapes[0].get(changed)


@pytest.mark.parametrize(
    ("model_class", "name"),
    [("transformer2risk", "n_heads"), ("bimodal_bert", "n_heads"), ("bimodal_cross_attn", "fusion_heads")],
)
def test_defect_04_heads_take_effect(model_class, name):
    two, four = (tiny(model_class, **{name: n}) for n in (2, 4))
    four.load_state_dict(two.state_dict())
    batch = batch_of(two, [9, 6])
    assert (two(batch) - four(batch)).abs().max() > 1e-5


def test_longest_text_is_told():
    assert tiny("transformer2risk").config.max_tokens == 12
    assert tiny("trimodal_bert").config.max_tokens == 32
    assert tiny("lstm2risk").config.max_tokens is tiny("bimodal_cnn").config.max_tokens is None


# ---- errors

GIVEN = {"vocab_size": 9, "n_tab_features": 2}
ALONE = {"vocab_size": 9, "n_tab_features": 0}
SMALL_BERT = {"model_type": "bert", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1}
SMALL_BERT |= {"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16}


@pytest.mark.parametrize(
    ("model_class", "foreign"),
    [
        ("lstm2risk", {"n_blocks": 2}),
        ("lstm2risk", {"n_heads": 2, "block_size": 9}),
        ("lstm2risk", {"pretrained": "minilm"}),
        ("lstm2risk", {"fusion_dim": 4}),
        ("transformer2risk", {"n_lstm_layers": 2}),
        ("transformer2risk", {"hidden_common_dim": 2}),
        ("bimodal_cnn", {"reinit_layers": 2, "gradient_checkpointing": True}),
        ("bimodal_bert", {"kernel_sizes": [3]}),
        ("bimodal_bert", {"fusion_heads": 2}),
        ("bimodal_moe", {"fusion_heads": 2}),
        ("trimodal_gate_fusion", {"fusion_hidden_dim": 8}),
        ("lstm2risk", {"fusion_hidden_dim": 8}),
    ],
)
def test_defect_04_dimensions_that_no_part_reads_are_refused(model_class, foreign):
    text = message(model_class, **GIVEN, **foreign)
    assert text.startswith(model_class)
    assert text.endswith(f"has no {', '.join(foreign)}")


@pytest.mark.parametrize("model_class", ["bimodal_cross_attn", "trimodal_bert", "trimodal_cross_attn"])
def test_a_head_of_two_layers_has_the_width_given_or_half_its_input(model_class):
    own, given = tiny(model_class), tiny(model_class, fusion_hidden_dim=5)
    d = own.fusion.d_out
    assert [layer.out_features for layer in own.head if isinstance(layer, nn.Linear)] == [max(128, d // 2), 2]
    assert [layer.out_features for layer in given.head if isinstance(layer, nn.Linear)] == [5, 2]
    assert (
        model_select(model_class, **given.config.model_dump(exclude={"model_class"})).config == given.config
    )


def test_defect_04_dimensions_are_those_of_the_chosen_encoder():
    assert tiny("bimodal_cnn", encoder="lstm").config.hidden_size == 6
    text = message("bimodal_cnn", **GIVEN, encoder="lstm", kernel_sizes=[3])
    assert "encoder lstm" in text
    assert "kernel_sizes" in text


WRONG = [{"hiden_size": 4}, {"hidden_size": 0}, {"hidden_size": "many"}, {"dropout_rate": 1.0}]
WRONG += [
    {"n_classes": 1},
    {"encoder": "gru"},
    {"fusion": "sum"},
    {"vocab_size": None},
    {"n_tab_features": -1},
]
WRONG += [{"hidden_size": 0, "n_classes": 1, "dropout_rate": 2}]  # all are named at once
CONVOLUTIONS = [{"kernel_sizes": sizes} for sizes in ([2, 4], [3, 4], [], [-3])]
CONVOLUTIONS += [{"n_channels": sizes} for sizes in ([], [4, 0])]


@pytest.mark.parametrize(
    ("model_class", "wrong"),
    [*(("lstm2risk", wrong) for wrong in WRONG), *(("bimodal_cnn", wrong) for wrong in CONVOLUTIONS)],
)
def test_wrong_dimensions_are_named(model_class, wrong):
    text = message(model_class, **{**GIVEN, **wrong})
    assert all(name in text for name in wrong)


def without(lost: str) -> dict:
    return {name: value for name, value in SMALL_BERT.items() if name != lost}


READ_HERE = ("model_type", "vocab_size", "max_position_embeddings")
HEADS = ["fusion_dim 10 is not a multiple of fusion_heads 4"]
NEEDS_TABULAR = ["bimodal_moe", "bimodal_gate_fusion", "bimodal_cross_attn"]


@pytest.mark.parametrize(
    ("model_class", "given_", "told"),
    [
        ("bert", GIVEN, ["bert reads text alone"]),
        ("lstm", GIVEN, ["lstm reads text alone"]),
        *((name, ALONE, [f"{name} ", "numeric or categorical columns"]) for name in NEEDS_TABULAR),
        ("bimodal_bert", {**GIVEN, "vocab_size": 21, "bert": SMALL_BERT}, ["21", "20"]),
        ("bert", {**ALONE, "bert": SMALL_BERT, "n_blocks": 2, "n_heads": 2}, ["n_blocks, n_heads"]),
        *(
            (
                "bert",
                {**ALONE, "bert": {k: v for k, v in SMALL_BERT.items() if k != lost}},
                [f"bert lacks {lost}"],
            )
            for lost in ("model_type", "vocab_size", "max_position_embeddings")
        ),
        ("transformer2risk", dimensions("transformer2risk", n_heads=3), ["n_heads 3"]),
        ("bert", dimensions("bert", n_heads=3), ["16"]),
        ("bimodal_bert", {**GIVEN, "pretrained": "./nothing"}, ["./nothing is not a BERT model"]),
        ("trimodal_bert", {**GIVEN, "pretrained": "./nothing"}, ["./nothing is not a BERT model"]),
        *(
            (
                name,
                dimensions(name, fusion_heads=4, fusion_dim=10),
                ["fusion_dim 10 is not a multiple of fusion_heads 4"],
            )
            for name in ("bimodal_cross_attn", "trimodal_cross_attn")
            for change in ({"fusion_dim": 10}, {"hidden_common_dim": 10})
        ),
    ],
)
def test_what_does_not_go_together_is_told(model_class, given_, told):
    text = message(model_class, **given_)
    assert all(part in text for part in told)


def test_every_other_class_takes_no_tabular_columns():
    assert sorted(WITHOUT_TABULAR + NEEDS_TABULAR) == sorted(MODEL_CLASSES)


def test_texts_over_the_block_size():
    model = frozen("transformer2risk")
    with pytest.raises(ValueError, match="13 tokens; this model reads 12"):
        model(batch_of(model, [13]))


# ---- parts


def test_piecewise_linear_worked_example():
    """Two bins: -3 to 0 and 0 to 3."""
    out = PiecewiseLinear(2)(torch.tensor([[0.0, 1.5], [-1.5, 10.0], [-10.0, 3.0]]))
    expected = [[0, 1.5, 1, 0, 1, 0.5], [-1.5, 10, 0.5, 0, 1, 1], [-10, 3, 0, 0, 1, 1]]
    torch.testing.assert_close(out, torch.tensor(expected))


@given(st.integers(1, 9))
def test_piecewise_linear_bins_hold_equal_shares(n_bins):
    x = torch.special.ndtri(torch.linspace(0.002, 0.998, 500))[:, None]
    filled = PiecewiseLinear(n_bins)(x)[:, 1:]
    assert filled.shape == (500, n_bins)
    inside = ((filled > 0) & (filled < 1)).sum(dim=0).double() / 500
    torch.testing.assert_close(
        inside, torch.full((n_bins,), 1 / n_bins, dtype=torch.double), atol=0.01, rtol=0
    )
    assert (filled.diff(dim=0) >= 0).all()
    assert (filled.diff(dim=1) <= 0).all()  # a bin begins to fill when the one before is full


def test_a_tabular_encoder_with_bins_tells_a_bump_from_its_sides():
    """|x| < 1/2 from x alone: nothing that is linear in x does better than chance, but bins are."""
    x = torch.linspace(-2, 2, 401)[:, None]
    bump = (x.abs() < 0.5).double()
    columns = torch.cat([PiecewiseLinear(8)(x), torch.ones_like(x)], dim=1).double()
    for features, low, high in ((columns[:, [0, -1]], 0.99, 1.01), (columns, 0.0, 0.5)):
        left = bump - features @ torch.linalg.lstsq(features, bump).solution
        assert low <= (left.var() / bump.var()) <= high


@pytest.mark.parametrize("part", [TabularEncoder, TabAE])
@pytest.mark.parametrize("n_bins", [0, 4])
def test_tabular_encoder_shape(part, n_bins):
    assert part(F, 5, Dropout(0.1), n_bins).eval()(torch.randn(2, F, generator=generator())).shape == (2, 5)


@pytest.mark.parametrize("part", [TabularEncoder, TabAE])
@pytest.mark.parametrize("n_bins", [0, 4])
def test_weights_of_columns(part, n_bins):
    """A weight of 0 hides a column with its bins, 1 changes nothing, and a half acts as half the weights."""
    x = torch.randn(9, F, generator=generator())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = part(F, 5, Dropout(0.0), n_bins).eval()
        torch.manual_seed(0)
        net = part(F, 5, Dropout(0.0), n_bins, weighed=True).eval()
    assert net(x).equal(plain(x))
    net.weigh(np.full(F, 0.5))
    with torch.no_grad():
        plain.net[1].weight *= 0.5
    torch.testing.assert_close(net(x), plain(x))
    net.weigh(np.arange(F) > 0)
    moved = x + torch.tensor([1.0] + [0.0] * (F - 1))
    assert net(moved).equal(net(x)) and not net(x + 1).equal(net(x))


def test_weights_of_columns_are_kept_and_not_learned():
    norm = WeighedNorm(2, 1)
    norm.weigh(np.array([1.0, 0.25]))
    assert norm.state_dict()["column_weight"].tolist() == [1, 0.25, 1, 0.25]
    assert "column_weight" not in dict(norm.named_parameters())


def test_a_single_column_is_no_constant():
    """The published layer norm over the features of a row makes it one."""
    net = TabAE(1, 8, Dropout(0.0))
    assert net(torch.randn(50, 1, generator=generator())).std(dim=0).max() > 0.05
