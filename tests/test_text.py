"""Text encoders and pools: what a row's tokens become depends on the row alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from n3r.kernels import Dropout
from n3r.text import (
    AttentionPool,
    CNNEncoder,
    EndsPool,
    LSTMEncoder,
    MaxPool,
    TextBranch,
    TransformerBlock,
    TransformerEncoder,
)

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
    return randomised(LSTMEncoder(VOCAB, D, 5, 2, Dropout(0.2)))


def transformer_encoder() -> nn.Module:
    return randomised(TransformerEncoder(VOCAB, D, 2, 2, 12, Dropout(0.2)))


def cnn_encoder() -> nn.Module:
    return randomised(CNNEncoder(VOCAB, D, [3, 5], [6, 4]))


SEQUENTIAL = [lstm_encoder, transformer_encoder]  # each token sees the whole text
ENCODERS = [*SEQUENTIAL, cnn_encoder]


def padded(lengths: list[int], extra: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (B, T) and mask; padded positions hold random ids too, since they must not matter."""
    width = max(1, max(lengths) + extra)
    ids = torch.randint(0, VOCAB, (len(lengths), width), generator=generator(seed))
    return ids, torch.arange(width) < torch.tensor(lengths)[:, None]


# ---- encoders


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("n_rows", [1, 5])
def test_shapes(encoder, n_rows):
    encoder = encoder()
    ids, mask = padded([3, 0, 6, 1, 2][:n_rows])
    assert encoder(ids, mask).shape == (*ids.shape, encoder.d_out)


@pytest.mark.parametrize("encoder", ENCODERS)
@given(some_lengths, st.integers(0, 5), st.integers(0, 99))
def test_defect_10_11_tokens_do_not_depend_on_padding_or_batch_mates(encoder, lengths, extra, seed):
    encoder = encoder()
    ids, mask = padded(lengths, extra, seed)
    with torch.no_grad():
        tokens = encoder(ids, mask)
        for row, length in enumerate(lengths):
            if length:
                alone = encoder(ids[row : row + 1, :length], mask[row : row + 1, :length])
                torch.testing.assert_close(tokens[row, :length], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", SEQUENTIAL)
def test_every_token_of_a_row_sees_every_other(encoder):
    """Change one id, and what each position of the row becomes changes."""
    encoder = encoder()
    ids, mask = padded([6])
    with torch.no_grad():
        before = encoder(ids, mask)
        for place in range(6):
            changed = ids.clone()
            changed[0, place] = (ids[0, place] + 1) % VOCAB
            difference = (encoder(changed, mask) - before).abs().amax(dim=2)
            assert (difference > 1e-6).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_order_of_tokens_matters(encoder):
    encoder = encoder()
    ids = torch.tensor([[7, 8, 9], [9, 8, 7]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    pool = randomised(AttentionPool(encoder.d_out, 4))
    with torch.no_grad():
        one, other = pool(encoder(ids, mask), mask)
    assert (one - other).abs().max() > 1e-4


def test_defect_51_fused_attention_equals_heads_one_by_one():
    """Each head's softmax spelled out, from the same weights."""
    block = randomised(TransformerBlock(D, 2, Dropout(0.3)))
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
        before = encoder(ids, mask)
        encoder.position.weight[3:] += 1
        assert torch.equal(encoder(ids, mask), before)
        encoder.position.weight[2] += 1
        assert not torch.equal(encoder(ids, mask), before)


# ---- convolutions


def test_cnn_worked_example():
    """A kernel of ones over one channel of values 1, 2, 4, 8: sums of neighbours, the fifth is padding."""
    encoder = CNNEncoder(5, 1, [3], [1])
    with torch.no_grad():
        encoder.embedding.weight.copy_(torch.tensor([[1.0], [2.0], [4.0], [8.0], [100.0]]))
        encoder.branches[0][0].weight.fill_(1.0)
        encoder.branches[0][0].bias.fill_(-8.0)
        out = encoder(torch.arange(5)[None], torch.tensor([[True] * 4 + [False]]))
    assert out[0, :4, 0].tolist() == [0, 0, 6, 4]  # 3, 7, 14 and 12, less 8, not below 0


def test_a_token_sees_as_far_as_its_kernels():
    """Two layers of width 5 reach 4 tokens away."""
    encoder = randomised(CNNEncoder(VOCAB, D, [3, 5], [16, 16]))
    ids, mask = padded([12])
    changed = ids.clone()
    changed[0, 6] = (ids[0, 6] + 1) % VOCAB
    with torch.no_grad():
        moved = (encoder(ids, mask) - encoder(changed, mask)).abs().amax(dim=2)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == list(range(2, 11))


@pytest.mark.parametrize("length", [0, 1, 2, 6])
def test_defect_21_texts_shorter_than_a_kernel(length):
    """A text of one token scores, and the same whether the batch is padded to it or to seven kernels."""
    encoder = randomised(CNNEncoder(VOCAB, D, [3, 5, 7], [6, 4]))
    branch = randomised(TextBranch(encoder, MaxPool(encoder.d_out, 5, Dropout(0.5))))
    ids, mask = padded([length], extra=49)
    width = max(1, length)
    with torch.no_grad():
        long, short = branch(ids, mask).vector, branch(ids[:, :width], mask[:, :width]).vector
    assert long.shape == (1, branch.d_out)
    assert torch.isfinite(long).all()
    torch.testing.assert_close(long, short, rtol=1e-5, atol=1e-6)
    if not length:
        torch.testing.assert_close(long[0], branch.pool.proj.bias)


# ---- pools


def test_max_pool_worked_example():
    pool = MaxPool(2, 2, Dropout(0.5)).eval()
    with torch.no_grad():
        pool.proj.weight.copy_(torch.eye(2))
        pool.proj.bias.copy_(torch.tensor([0.5, 0.0]))
    tokens = torch.tensor([[[1.0, 5.0], [3.0, 0.0], [9.0, float("nan")]], [[7.0, 7.0]] * 3])
    out = pool(tokens, torch.tensor([[True, True, False], [False] * 3]))
    assert out.tolist() == [[3.5, 5.0], [0.5, 0.0]]


def test_ends_pool_worked_example():
    """Forward half at the last real token, backward half at the first; an empty row is 0."""
    tokens = torch.arange(24.0).view(2, 3, 4)
    tokens = torch.cat([tokens, torch.full((1, 3, 4), float("nan"))])
    mask = torch.arange(3) < torch.tensor([[2], [3], [0]])
    pool = EndsPool(4)
    assert pool.d_out == 4
    assert pool(tokens, mask).tolist() == [[4, 5, 2, 3], [20, 21, 14, 15], [0, 0, 0, 0]]


@given(some_lengths, st.integers(0, 5))
def test_defect_21_ends_are_the_final_states_of_torchs_packed_lstm(lengths, extra):
    """Not what a row's padding ends in."""
    encoder = randomised(LSTMEncoder(VOCAB, D, 5, 1, Dropout(0.0)))
    ids, mask = padded(lengths, extra)
    with torch.no_grad():
        ends = TextBranch(encoder, EndsPool(encoder.d_out))(ids, mask).vector
        for row, length in enumerate(lengths):
            if length:
                x = encoder.embedding(ids[row, :length])[:, None]  # (T, 1, D)
                _, (state, _) = nn.LSTM.forward(encoder.lstm, x)
                torch.testing.assert_close(ends[row], state[:, 0].flatten())
            else:
                assert not ends[row].any()


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


def test_a_branch_gives_its_vector_its_tokens_and_their_mask():
    encoder = lstm_encoder()
    branch = TextBranch(encoder, randomised(AttentionPool(encoder.d_out, 3)))
    ids, mask = padded([3, 0, 6])
    vector, tokens, same = branch(ids, mask)
    assert (branch.d_out, branch.d_tokens) == (3, encoder.d_out)
    assert vector.shape == (3, 3)
    torch.testing.assert_close(tokens, encoder(ids, mask))
    assert torch.equal(same, mask)
