"""The risk models: the legacy's probabilities from its weights, rows that do not depend on their batch."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from n3r.fusion import Concat
from n3r.legacy import (
    LegacyLSTM2Risk,
    LegacyLSTMConfig,
    LegacyTransformer2Risk,
    LegacyTransformerConfig,
    to_n3r,
)
from n3r.model import (
    MODEL_CLASSES,
    LSTM2Risk,
    ModelConfig,
    PiecewiseLinear,
    RiskModel,
    TabularEncoder,
    Transformer2Risk,
    model_select,
)

VOCAB = 30
F = 3
TINY = {
    "lstm2risk": {"embedding_size": 4, "hidden_size": 6, "n_lstm_layers": 2},
    "transformer2risk": {
        "embedding_size": 8,
        "hidden_size": 6,
        "n_blocks": 2,
        "n_heads": 2,
        "block_size": 12,
    },
}
both = pytest.mark.parametrize("model_class", list(TINY))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with biases, norms and batch statistics drawn anew: none is a neutral 0 or 1."""
    draw = generator(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=draw)
        elif value.is_floating_point() and (value.ndim == 1 or "embedding" in name):
            value.normal_(0, 0.5, generator=draw)
    return model.eval()


def tiny(model_class: str, seed: int = 0, **changes) -> RiskModel:
    """A tiny model with random weights; the same seed gives the same."""
    dimensions = {"vocab_size": VOCAB, "n_tab_features": F, **TINY[model_class], **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return randomised(model_select(model_class, **dimensions), seed)


def batch_of(lengths: list[int], extra: int = 0, seed: int = 0, n_tab: int = F) -> dict[str, torch.Tensor]:
    """Random rows; padded positions hold random ids too, since they must not matter."""
    draw = generator(seed)
    width = max(1, max(lengths) + extra)
    return {
        "text": torch.randint(0, VOCAB, (len(lengths), width), generator=draw),
        "attn_mask": torch.arange(width) < torch.tensor(lengths)[:, None],
        "tabular": torch.randn(len(lengths), n_tab, generator=draw),
    }


def probability(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(batch).softmax(dim=1)[:, 1]


# ---- the legacy's models


@pytest.mark.parametrize(
    ("build", "expected"), [(LSTM2Risk, 7_860_555), (Transformer2Risk, 10_888_523)], ids=list(TINY)
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
    batch = {**batch_of(lengths), "text_length": torch.tensor(lengths)}
    with torch.no_grad():
        expected = theirs(batch).squeeze(1)
    assert expected.std() > 1e-3
    torch.testing.assert_close(probability(ours, batch), expected, rtol=0, atol=1e-6)


def test_the_legacys_transformer_probabilities_from_its_weights_where_nothing_is_padded():
    theirs, ours = legacy_pair("transformer2risk")
    batch = batch_of([17] * 5)
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


@both
@settings(max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 99))
def test_defect_10_11_14_a_score_does_not_depend_on_batch_mates_or_padding(model_class, lengths, extra, seed):
    model = tiny(model_class)
    batch = batch_of(lengths, extra, seed)
    together = probability(model, batch)
    assert torch.isfinite(together).all()
    for row, length in enumerate(lengths):
        alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
        alone["text"], alone["attn_mask"] = (alone[k][:, : max(1, length)] for k in ("text", "attn_mask"))
        assert probability(model, alone).item() == pytest.approx(together[row].item(), abs=1e-6)


@both
def test_defect_01_text_and_every_tabular_column_move_the_score(model_class):
    model, batch = tiny(model_class), batch_of([5])
    before = probability(model, batch)
    for place in range(5):
        text = batch["text"].clone()
        text[0, place] = (text[0, place] + 1) % VOCAB
        assert not torch.equal(probability(model, {**batch, "text": text}), before)
    for column in range(F):
        tabular = batch["tabular"].clone()
        tabular[0, column] += 1
        assert not torch.equal(probability(model, {**batch, "tabular": tabular}), before)


@both
def test_defect_14_empty_texts_are_finite_in_training_too(model_class):
    model = tiny(model_class).train()
    model(batch_of([0, 0, 4])).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@both
def test_defect_18_17_every_parameter_gets_a_gradient(model_class):
    model = tiny(model_class, dropout_rate=0.0, n_tab_bins=3).train()
    loss = nn.functional.cross_entropy(model(batch_of([12, 7, 3, 1, 0, 5])), torch.tensor([0, 1, 0, 1, 1, 0]))
    loss.backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or parameter.grad.abs().max() < 1e-7
    ]
    assert still == ["pool.attention.bias"]  # it shifts all scores of a softmax alike


@both
def test_dropout_is_off_in_eval_and_on_in_training(model_class):
    model, batch = tiny(model_class, dropout_rate=0.5), batch_of([5, 3])
    assert torch.equal(model(batch), model(batch))
    model.train()
    assert not torch.equal(model(batch), model(batch))


@both
@pytest.mark.parametrize("n_rows", [1, 5])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_logits_of_each_row_and_class(model_class, n_rows, n_classes):
    model, batch = tiny(model_class, n_classes=n_classes), batch_of([3, 0, 8, 1, 2][:n_rows])
    logits = model(batch)
    assert logits.shape == (n_rows, n_classes)
    with torch.no_grad():
        model.head.net[-1].bias += 10
    torch.testing.assert_close(model(batch), logits + 10)  # nothing squashes them


@both
def test_defect_22_no_tabular_columns(model_class):
    model = tiny(model_class, n_tab_features=0)
    assert model.tabular is None
    batch = batch_of([5, 2, 0], n_tab=0)
    assert model(batch).shape == (3, 2)
    model.train()(batch).sum().backward()
    assert model.encoder.embedding.weight.grad.abs().sum() > 0


# ---- dimensions


@pytest.mark.parametrize(
    ("model_class", "name", "value", "changed"),
    [
        ("lstm2risk", "vocab_size", 31, "encoder.embedding.weight"),
        ("lstm2risk", "n_tab_features", 4, "tabular.net.1.weight"),
        ("lstm2risk", "n_tab_bins", 5, "tabular.net.1.weight"),
        ("lstm2risk", "n_classes", 3, "head.net.12.weight"),
        ("lstm2risk", "embedding_size", 5, "encoder.embedding.weight"),
        ("lstm2risk", "hidden_size", 7, "encoder.lstm.weight_hh_l0_reverse"),
        ("lstm2risk", "n_lstm_layers", 3, "encoder.lstm.weight_hh_l2"),
        ("transformer2risk", "embedding_size", 10, "encoder.blocks.0.qkv.weight"),
        ("transformer2risk", "hidden_size", 7, "pool.proj.weight"),
        ("transformer2risk", "n_blocks", 3, "encoder.blocks.2.qkv.weight"),
        ("transformer2risk", "block_size", 13, "encoder.position.weight"),
        ("transformer2risk", "n_classes", 3, "head.net.12.weight"),
    ],
)
def test_defect_04_dimensions_take_effect(model_class, name, value, changed):
    before, after = tiny(model_class), tiny(model_class, **{name: value})
    assert getattr(after.config, name) == value != getattr(before.config, name)
    shapes = [
        {key: tuple(value.shape) for key, value in model.state_dict().items()} for model in (before, after)
    ]
    assert shapes[1][changed] != shapes[0].get(changed)


def test_defect_04_heads_and_dropout_take_effect():
    batch = batch_of([9, 6])
    two, four = (tiny("transformer2risk", n_heads=n) for n in (2, 4))
    four.load_state_dict(two.state_dict())
    assert (two(batch) - four(batch)).abs().max() > 1e-4
    for model_class in TINY:
        for rate in (0.0, 0.4):
            model = tiny(model_class, dropout_rate=rate)
            rates = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
            assert rate in rates <= {rate, 0.0}
            model.train()
            with torch.random.fork_rng():
                assert torch.equal(model(batch), model(batch)) == (rate == 0)


@both
def test_published_dimensions_are_the_defaults(model_class):
    with torch.device("meta"):
        config = model_select(model_class, vocab_size=9, n_tab_features=2).config
    published = {
        "lstm2risk": {"embedding_size": 16, "hidden_size": 128, "n_lstm_layers": 4},
        "transformer2risk": {
            "embedding_size": 128,
            "hidden_size": 256,
            "n_blocks": 8,
            "n_heads": 8,
            "block_size": 100,
        },
    }[model_class]
    assert config.model_dump(include=set(published)) == published
    assert config.dropout_rate == 0.2


@both
def test_a_model_is_rebuilt_from_its_config_as_json(model_class):
    model = tiny(model_class, dropout_rate=0.1, n_tab_bins=4)
    config = ModelConfig(**json.loads(json.dumps(model.config.model_dump())))
    assert config == model.config
    again = RiskModel(config).eval()
    again.load_state_dict(model.state_dict())
    batch = batch_of([5, 0, 3])
    assert torch.equal(again(batch), model(batch))


def test_a_config_is_frozen_and_takes_no_unknown_field():
    config = tiny("lstm2risk").config
    with pytest.raises(ValueError, match="frozen"):
        config.hidden_size = 7
    with pytest.raises(ValueError, match="n_layers"):
        ModelConfig(**config.model_dump(), n_layers=3)


# ---- errors


def test_defect_05_an_unknown_class_lists_all():
    with pytest.raises(ValueError, match="'gpt'") as caught:
        model_select("gpt", vocab_size=9, n_tab_features=2)
    assert all(name in str(caught.value) for name in MODEL_CLASSES)


@pytest.mark.parametrize(
    ("model_class", "dimensions"),
    [
        ("lstm2risk", {"n_blocks": 2}),
        ("lstm2risk", {"n_heads": 2, "block_size": 9}),
        ("transformer2risk", {"n_lstm_layers": 2}),
    ],
)
def test_defect_04_dimensions_of_another_class_are_refused(model_class, dimensions):
    with pytest.raises(ValueError, match=f"{model_class} has no {', '.join(dimensions)}"):
        model_select(model_class, vocab_size=9, n_tab_features=2, **dimensions)


@pytest.mark.parametrize(
    "wrong",
    [{"hiden_size": 4}, {"hidden_size": 0}, {"hidden_size": "many"}, {"dropout_rate": 1.0}, {"n_classes": 1}],
)
def test_wrong_dimensions_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tiny("lstm2risk", **wrong)


def test_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="n_heads 3"):
        tiny("transformer2risk", n_heads=3)


def test_texts_over_the_block_size():
    with pytest.raises(ValueError, match="13 tokens; this model reads 12"):
        tiny("transformer2risk")(batch_of([13]))


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


def test_tabular_encoder_shape():
    for n_bins in (0, 4):
        assert TabularEncoder(F, 5, 0.1, n_bins).eval()(torch.randn(2, F, generator=generator())).shape == (
            2,
            5,
        )


def test_concat_puts_text_first_and_takes_text_alone():
    text, tabular = torch.ones(2, 3), torch.zeros(2, 4)
    tokens, mask = torch.ones(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    fusion = Concat(3, 4)
    assert fusion(tokens, mask, text, tabular).tolist() == [[1, 1, 1, 0, 0, 0, 0]] * 2
    assert fusion.d_out == 7
    assert Concat(3, 0)(tokens, mask, text, None) is text
