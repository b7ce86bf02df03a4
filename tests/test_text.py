"""Text encoders and the attention pool: what a row's tokens become depends on the row alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from n3r.text import AttentionPool, BiLSTM, Dropout, LSTMEncoder, TransformerBlock, TransformerEncoder

VOCAB = 20
D = 8
some_lengths = st.lists(st.integers(0, 7), min_size=1, max_size=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with every parameter drawn anew, so that none is a neutral 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator(seed))
    return module.eval()


def lstm_encoder() -> nn.Module:
    return randomised(LSTMEncoder(VOCAB, D, 5, 2, 0.2))


def transformer_encoder() -> nn.Module:
    return randomised(TransformerEncoder(VOCAB, D, 2, 2, 12, 0.2))


ENCODERS = [lstm_encoder, transformer_encoder]


def padded(lengths: list[int], extra: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (B, T) and mask; padded positions hold random ids too, since they must not matter."""
    width = max(1, max(lengths) + extra)
    ids = torch.randint(0, VOCAB, (len(lengths), width), generator=generator(seed))
    return ids, torch.arange(width) < torch.tensor(lengths)[:, None]


# ---- BiLSTM


def packed_reference(lstm: BiLSTM, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """torch's own bidirectional LSTM with the same weights, over packed rows: (T, B, 2H)."""
    reference = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, bidirectional=True)
    for name, parameter in lstm.named_parameters():
        setattr(reference, name, parameter)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    return pad_packed_sequence(reference(packed)[0], total_length=len(x))[0]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 3))
def test_defect_11_equals_torchs_packed_lstm_in_values_and_gradients(lengths, n_layers, extra):
    lstm = randomised(BiLSTM(4, 3, n_layers, 0.5)).double()
    lengths = torch.tensor(lengths)
    n_tokens = int(lengths.max()) + extra
    x = torch.randn(n_tokens, len(lengths), 4, generator=generator(), dtype=torch.double, requires_grad=True)
    mask = (torch.arange(n_tokens)[:, None] < lengths)[:, :, None]
    upstream = torch.randn(n_tokens, len(lengths), 6, generator=generator(1), dtype=torch.double) * mask
    found = []
    for out in (lstm(x, lengths), packed_reference(lstm, x, lengths)):
        gradients = torch.autograd.grad((out * upstream).sum(), [x, *lstm.parameters()])
        found.append([out * mask, *gradients])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-12)


def test_defect_14_an_empty_row_does_not_disturb_the_others():
    lstm = randomised(BiLSTM(4, 3, 2, 0.0))
    x = torch.randn(5, 3, 4, generator=generator())
    with torch.no_grad():
        out = lstm(x, torch.tensor([5, 0, 2]))
        expected = packed_reference(lstm, x[:, [0, 2]], torch.tensor([5, 2]))
    torch.testing.assert_close(out[:, 0], expected[:, 0])
    torch.testing.assert_close(out[:2, 2], expected[:2, 1])


def test_dropout_acts_between_layers_in_training_only():
    x, lengths = torch.randn(4, 2, 4, generator=generator()), torch.tensor([4, 3])
    for n_layers, same in ((1, True), (2, False)):
        lstm = randomised(BiLSTM(4, 3, n_layers, 0.5))
        assert torch.equal(lstm(x, lengths), lstm(x, lengths))
        lstm.train()
        assert torch.equal(lstm(x, lengths), lstm(x, lengths)) == same


# ---- encoders


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("n_rows", [1, 5])
def test_shapes(encoder, n_rows):
    encoder = encoder()
    ids, mask = padded([3, 0, 6, 1, 2][:n_rows])
    tokens, same = encoder(ids, mask)
    assert tokens.shape == (*ids.shape, encoder.d_out)
    assert torch.equal(same, mask)


@pytest.mark.parametrize("encoder", ENCODERS)
@given(some_lengths, st.integers(0, 5), st.integers(0, 99))
def test_defect_10_11_tokens_do_not_depend_on_padding_or_batch_mates(encoder, lengths, extra, seed):
    encoder = encoder()
    ids, mask = padded(lengths, extra, seed)
    with torch.no_grad():
        tokens, _ = encoder(ids, mask)
        for row, length in enumerate(lengths):
            if length:
                alone, _ = encoder(ids[row : row + 1, :length], mask[row : row + 1, :length])
                torch.testing.assert_close(tokens[row, :length], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_token_of_a_row_sees_every_other(encoder):
    """Change one id, and what each position of the row becomes changes."""
    encoder = encoder()
    ids, mask = padded([6])
    with torch.no_grad():
        before, _ = encoder(ids, mask)
        for place in range(6):
            changed = ids.clone()
            changed[0, place] = (ids[0, place] + 1) % VOCAB
            difference = (encoder(changed, mask)[0] - before).abs().amax(dim=2)
            assert (difference > 1e-6).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_order_of_tokens_matters(encoder):
    encoder, pool = encoder(), None
    ids = torch.tensor([[7, 8, 9], [9, 8, 7]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    pool = randomised(AttentionPool(encoder.d_out, 4))
    with torch.no_grad():
        one, other = pool(*encoder(ids, mask))
    assert (one - other).abs().max() > 1e-4


def test_defect_51_fused_attention_equals_heads_one_by_one():
    """Each head's softmax spelled out, from the same weights."""
    block = randomised(TransformerBlock(D, 2, 0.3))
    x = torch.randn(3, 4, D, generator=generator())
    mask = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    normed = block.norm1(x)
    query, key, value = (normed @ block.qkv.weight.T).split(D, dim=2)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        score = query[:, :, part] @ key[:, :, part].transpose(1, 2) / 2  # sqrt of the head's width 4
        heads.append(score.masked_fill(~mask[:, None, :], float("-inf")).softmax(2) @ value[:, :, part])
    expected = x + block.proj(torch.cat(heads, dim=2))
    expected = expected + block.ffn(block.norm2(expected))
    torch.testing.assert_close(block(x, mask[:, None, None, :]), expected, rtol=1e-5, atol=1e-5)


def test_positions_are_learnt_from_the_first_token_on():
    encoder = transformer_encoder()
    ids, mask = padded([3])
    with torch.no_grad():
        before = encoder(ids, mask)[0]
        encoder.position.weight[3:] += 1
        assert torch.equal(encoder(ids, mask)[0], before)
        encoder.position.weight[2] += 1
        assert not torch.equal(encoder(ids, mask)[0], before)


def test_texts_over_the_block_size_are_refused():
    ids, mask = padded([13])
    with pytest.raises(ValueError, match="13 tokens; this model reads 12"):
        transformer_encoder()(ids, mask)
    assert transformer_encoder()(ids[:, :12], mask[:, :12])[0].shape == (1, 12, D)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="embedding_size 8 .* n_heads 3"):
        TransformerEncoder(VOCAB, 8, 1, 3, 12, 0.0)


# ---- pool


def test_pool_worked_example():
    """Scores 0 and ln 3 weigh 1/4 and 3/4; the third token is padding."""
    pool = AttentionPool(2, 2)
    with torch.no_grad():
        pool.attention.weight.copy_(torch.tensor([[1.0, 0.0]]))
        pool.attention.bias.fill_(5.0)  # shifts all scores alike: no effect
        pool.proj.weight.copy_(torch.eye(2))
        pool.proj.bias.zero_()
    ln3 = torch.tensor(3.0).log().item()
    tokens = torch.tensor([[[0.0, 8.0], [ln3, 4.0], [99.0, 99.0]]])
    out = pool(tokens, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(out, torch.tensor([[0.75 * ln3, 5.0]]))


@pytest.mark.parametrize("d_out", [None, 3])
@pytest.mark.parametrize("rubbish", [1e6, float("inf"), float("nan")])
def test_defect_10_padding_weighs_nothing_whatever_it_holds(d_out, rubbish):
    pool = randomised(AttentionPool(4, d_out))
    tokens = torch.randn(2, 5, 4, generator=generator())
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    expected = torch.cat([pool(tokens[:1], mask[:1]), pool(tokens[1:, :2], mask[1:, :2])])
    out = pool(tokens.masked_fill(~mask[:, :, None], rubbish), mask)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("d_out", [None, 3])
def test_defect_14_an_empty_row_pools_to_zero(d_out):
    pool = randomised(AttentionPool(4, d_out))
    tokens = torch.randn(1, 3, 4, generator=generator(), requires_grad=True)
    out = pool(tokens, torch.zeros(1, 3, dtype=torch.bool))
    torch.testing.assert_close(out[0], pool.norm.bias if d_out is None else pool.proj.bias)
    out.sum().backward()
    assert torch.equal(tokens.grad, torch.zeros_like(tokens))


def test_pool_width_is_told():
    assert AttentionPool(4).d_out == 4
    assert AttentionPool(4, 3).d_out == 3


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5])
def test_dropout_keeps_the_mean_drops_its_share_and_each_element_by_itself(rate):
    torch.manual_seed(0)
    drop = Dropout(rate)
    x = torch.ones(1000, 1003)
    y = drop(x)
    dropped = (y == 0).double()
    assert dropped.mean() == pytest.approx(rate, abs=1 / 512 + 0.002)
    assert y.mean() == pytest.approx(1, abs=0.004)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - round(256 * rate) / 256)])
    for shift in (1, 2, 4, 8):  # neighbours share a 64-bit draw and must not know of each other
        pairs = dropped[:, shift:] * dropped[:, :-shift]
        assert pairs.mean() == pytest.approx(float(dropped.mean()) ** 2, abs=0.002)
    assert not torch.equal(drop(x), y)
    assert drop.eval()(x) is x


def test_dropout_masks_the_gradient_like_the_value():
    x = torch.ones(50, 7, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
