"""Text encoders and pools: what a row's tokens become depends on the row alone; BERT and its weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from n3r.bert import ChunkPool, TextBertBase
from n3r.model import RiskModel, configure, model_select
from n3r.text import (
    AttentionPool,
    BiLSTM,
    CNNEncoder,
    Dropout,
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
    return randomised(LSTMEncoder(VOCAB, D, 5, 2, 0.2))


def transformer_encoder() -> nn.Module:
    return randomised(TransformerEncoder(VOCAB, D, 2, 2, 12, 0.2))


def cnn_encoder() -> nn.Module:
    return randomised(CNNEncoder(VOCAB, D, [3, 5], [6, 4]))


SEQUENTIAL = [lstm_encoder, transformer_encoder]  # each token sees the whole text
ENCODERS = [*SEQUENTIAL, cnn_encoder]


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
        before = encoder(ids, mask)
        encoder.position.weight[3:] += 1
        assert torch.equal(encoder(ids, mask), before)
        encoder.position.weight[2] += 1
        assert not torch.equal(encoder(ids, mask), before)


def test_texts_over_the_block_size_are_refused():
    ids, mask = padded([13])
    with pytest.raises(ValueError, match="13 tokens; this model reads 12"):
        transformer_encoder()(ids, mask)
    assert transformer_encoder()(ids[:, :12], mask[:, :12]).shape == (1, 12, D)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="embedding_size 8 .* n_heads 3"):
        TransformerEncoder(VOCAB, 8, 1, 3, 12, 0.0)


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


def test_cnn_widths():
    encoder = CNNEncoder(VOCAB, D, [3, 5, 7], [6, 4])
    assert encoder.d_out == 12
    assert [len(branch) for branch in encoder.branches] == [2, 2, 2]
    assert {convolution.kernel_size for convolution in encoder.branches[2]} == {(7,)}


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
    branch = randomised(TextBranch(encoder, MaxPool(encoder.d_out, 5, 0.5)))
    ids, mask = padded([length], extra=49)
    width = max(1, length)
    with torch.no_grad():
        long, short = branch(ids, mask).vector, branch(ids[:, :width], mask[:, :width]).vector
    assert long.shape == (1, branch.d_out)
    assert torch.isfinite(long).all()
    torch.testing.assert_close(long, short, rtol=1e-5, atol=1e-6)
    if not length:
        torch.testing.assert_close(long[0], branch.pool.proj.bias)


def test_even_kernels_have_no_middle():
    with pytest.raises(ValueError, match=r"kernel_sizes \[3, 4\]"):
        CNNEncoder(VOCAB, D, [3, 4], [6])


# ---- pools


def test_max_pool_worked_example():
    pool = MaxPool(2, 2, 0.5).eval()
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
    encoder = randomised(LSTMEncoder(VOCAB, D, 5, 1, 0.0))
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


def test_chunk_pool_worked_example():
    """First tokens atanh 0.5, 0.1 and 0.9: the mean of the two real chunks is 0.3, times 10 it is 3."""
    pool = ChunkPool(1, 1, 0.5).eval()
    with torch.no_grad():
        pool.dense.weight.fill_(1.0)
        pool.dense.bias.zero_()
        pool.proj.weight.fill_(10.0)
        pool.proj.bias.zero_()
    first = torch.tensor([0.5, 0.1, 0.9]).atanh()
    tokens = torch.stack([first, torch.full((3,), 77.0)], dim=1)[None, :, :, None]  # (1, 3, 2, 1)
    mask = torch.tensor([[[True, True], [True, False], [False, False]]])
    torch.testing.assert_close(pool(tokens, mask), torch.tensor([[3.0]]))


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


def test_a_branch_gives_its_vector_its_tokens_and_their_mask():
    encoder = lstm_encoder()
    branch = TextBranch(encoder, randomised(AttentionPool(encoder.d_out, 3)))
    ids, mask = padded([3, 0, 6])
    vector, tokens, same = branch(ids, mask)
    assert (branch.d_out, branch.d_tokens) == (3, encoder.d_out)
    assert vector.shape == (3, 3)
    torch.testing.assert_close(tokens, encoder(ids, mask))
    assert torch.equal(same, mask)


# ---- BERT

ARCHITECTURE = {
    "model_type": "bert",
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


def bert(seed: int = 0, **options) -> TextBertBase:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextBertBase(ARCHITECTURE, 8, **options).eval()


def chunked(rows: list[list[int]], n_chunks: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids (B, K, T) of rows of chunks of these lengths, and their mask."""
    n_chunks = max(n_chunks, *map(len, rows))
    lengths = torch.tensor([row + [0] * (n_chunks - len(row)) for row in rows])
    width = int(lengths.max())
    ids = torch.randint(0, VOCAB, (*lengths.shape, width), generator=generator(seed))
    return ids, torch.arange(width) < lengths[:, :, None]


some_chunks = st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=4)


@given(some_chunks, st.integers(0, 5))
def test_defect_19_a_bert_row_does_not_depend_on_chunks_of_its_batch_mates(rows, n_chunks):
    model = bert()
    ids, mask = chunked(rows, n_chunks)
    with torch.no_grad():
        together = model(ids, mask).vector
        for row, lengths in enumerate(rows):
            kept = (slice(row, row + 1), slice(len(lengths)), slice(max(lengths)))
            alone = model(ids[kept], mask[kept]).vector[0]
            torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)


def test_defect_19_the_vector_is_the_mean_over_real_chunks():
    model = bert()
    ids, mask = chunked([[5, 2]], n_chunks=4)
    with torch.no_grad():
        each = [model.pool.dense(model.encoder(ids[:, k, None], mask[:, k, None])[0, 0, 0]) for k in (0, 1)]
        expected = model.pool.proj(torch.stack(each).tanh().mean(dim=0))
        torch.testing.assert_close(model(ids, mask).vector[0], expected)


@pytest.mark.parametrize(("rows", "computed"), [([[3], [2, 7, 1], [4]], 5), ([[3, 1], [2, 7]], 4)])
def test_defect_19_chunks_that_are_all_padding_are_not_computed(rows, computed):
    model, seen = bert(), []
    model.encoder.bert.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    ids, mask = chunked(rows)
    vector, tokens, flat = model(ids, mask)
    assert seen == [computed]
    assert vector.shape == (len(rows), 8)
    assert tokens.shape == (len(rows), ids[0].numel(), 16)
    assert torch.equal(flat, mask.flatten(1))
    assert not tokens.unflatten(1, ids.shape[1:])[~mask.any(dim=2)].any()


def test_defect_19_a_row_of_empty_chunks_is_refused():
    ids, mask = chunked([[3], [2, 4]])
    mask[0] = False
    with pytest.raises(ValueError, match="chunks are all empty"):
        bert()(ids, mask)


def test_chunks_over_the_places_of_the_bert_are_refused():
    ids, mask = chunked([[33], [2, 4]])
    with pytest.raises(ValueError, match="33 tokens; this model reads 32"):
        bert()(ids, mask)
    assert bert()(ids[..., :32], mask[..., :32]).vector.shape == (2, 8)


@pytest.mark.parametrize("hidden_common_dim", [1, 8, 40])
def test_hidden_common_dim_is_the_width_of_the_vector(hidden_common_dim):
    model = TextBertBase(ARCHITECTURE, hidden_common_dim)
    assert (model.d_out, model.d_tokens) == (hidden_common_dim, 16)
    assert model(*chunked([[3], [1, 2]])).vector.shape == (2, hidden_common_dim)


def test_dropout_is_the_architectures_and_the_pools_and_none_is_on_attention_weights():
    model = TextBertBase({**ARCHITECTURE, "hidden_dropout_prob": 0.25}, 8, dropout=0.75)
    assert {m.p for m in model.encoder.modules() if isinstance(m, Dropout)} == {0.25, 0.0}
    assert model.pool.drop.p == 0.75
    assert not [m for m in model.modules() if isinstance(m, nn.Dropout)]


def test_gradient_checkpointing_gives_the_same_loss_and_gradients_and_runs_each_layer_twice():
    ids, mask = chunked([[3, 6], [2]])
    results = []
    for checkpointing in (False, True):
        model, runs = bert(gradient_checkpointing=checkpointing).train(), []
        layer = model.encoder.bert.encoder.layer[0].attention
        layer.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        with torch.random.fork_rng():
            torch.manual_seed(5)  # of the dropout
            loss = model(ids, mask).vector.square().sum()
        loss.backward()
        assert len(runs) == 1 + checkpointing
        results.append([loss, *(parameter.grad for parameter in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain)


# ---- pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A three-layer BERT with its pooler, as transformers saves it."""
    from transformers import BertConfig, BertModel

    path = tmp_path_factory.mktemp("bert")
    torch.manual_seed(7)
    model = BertModel(BertConfig(**ARCHITECTURE))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)  # biases and norms too
    model.save_pretrained(path / "whole")
    return path / "whole"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("reinit_pooler", [False, True])
@pytest.mark.parametrize("reinit_layers", [0, 1, 2, 3])
def test_defect_19_reinit_pooler_and_reinit_layers_do_not_depend_on_each_other(
    folder, reinit_pooler, reinit_layers
):
    model, before, source = bert(), bert().state_dict(), weights_of(folder)
    model.load_pretrained(str(folder), reinit_pooler, reinit_layers)
    fresh = tuple(f"encoder.layer.{i}." for i in range(3 - reinit_layers, 3))
    pooler = {"dense.weight": "pooler.dense.weight", "dense.bias": "pooler.dense.bias"}
    after = model.state_dict()
    for name, value in after.items():
        if name.startswith("encoder.bert."):
            inner = name.removeprefix("encoder.bert.")
            expected = before[name] if inner.startswith(fresh) else source[inner]
        elif name.removeprefix("pool.") in pooler and not reinit_pooler:
            expected = source[pooler[name.removeprefix("pool.")]]
        else:
            expected = before[name]
        assert torch.equal(value, expected), name
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert ("pool.dense.weight" in changed) != reinit_pooler
    for i in range(3):
        name = f"encoder.bert.encoder.layer.{i}.output.dense.weight"
        assert (name in changed) == (i < 3 - reinit_layers)


def test_a_new_pooler_is_drawn_as_bert_draws_it():
    dense = TextBertBase({**ARCHITECTURE, "initializer_range": 0.5, "hidden_size": 64}, 8).pool.dense
    assert dense.weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert not dense.bias.any()


def test_a_pretrained_model_scores_as_the_source_does(folder):
    """One chunk a row: our pooled vector is transformers' `pooler_output`."""
    from transformers import AutoModel

    model = bert()
    model.load_pretrained(str(folder), reinit_pooler=False, reinit_layers=0)
    ids, mask = chunked([[5], [2]])
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder)(ids[:, 0], attention_mask=mask[:, 0].long()).pooler_output
        torch.testing.assert_close(model(ids, mask).vector, model.pool.proj(theirs))


def test_a_model_class_takes_architecture_and_weights_and_needs_the_folder_no_more(folder, tmp_path):
    gone = tmp_path / "gone"
    shutil.copytree(folder, gone)
    dimensions = {"vocab_size": VOCAB, "n_tab_features": 2, "reinit_layers": 1, "reinit_pooler": False}
    model = model_select("trimodal_bert", pretrained=str(gone), **dimensions)
    source = weights_of(folder)
    for text in model.texts:
        name = "encoder.layer.1.output.dense.weight"
        assert torch.equal(text.encoder.bert.state_dict()[name], source[name])
        assert torch.equal(text.pool.dense.weight, source["pooler.dense.weight"])
    assert model.config.max_tokens == 32
    shutil.rmtree(gone)
    again = RiskModel(configure(**json.loads(json.dumps(model.config.model_dump()))))
    again.load_state_dict(model.state_dict())


def broken(folder: Path, path: Path, how: str) -> Path:
    """A copy of a model folder with a fault, or a path that is none."""
    if how == "text file":
        path.mkdir()
        (path / "notes.txt").write_text("nothing to see")
    elif how == "a file":
        path.write_text("nothing to see")
    elif how != "nothing there":
        shutil.copytree(folder, path)
    if how == "no weights":
        (path / "model.safetensors").unlink()
    elif how == "no config":
        (path / "config.json").unlink()
    elif how == "config is no JSON":
        (path / "config.json").write_text("nothing to see")
    return path


@pytest.mark.parametrize(
    "how", ["nothing there", "text file", "a file", "no weights", "no config", "config is no JSON"]
)
def test_a_path_that_is_no_model(folder, tmp_path, how):
    path = str(broken(folder, tmp_path / "model", how))
    for load in (
        bert().load_pretrained,
        lambda path: model_select("bert", vocab_size=VOCAB, n_tab_features=0, pretrained=path),
    ):
        with pytest.raises(ValueError) as caught:
            load(path)
        text = str(caught.value)
        assert text.startswith(f"{path} is no BERT model: ")
        assert "save_pretrained" in text
        assert "\n" not in text


def without(folder: Path, path: Path, *names: str) -> str:
    """A copy of a model folder without some of its weights."""
    from safetensors.torch import save_file

    shutil.copytree(folder, path)
    kept = {name: value for name, value in weights_of(folder).items() if name not in names}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


def test_a_model_without_a_pooler_needs_reinit_pooler(folder, tmp_path):
    """Such as one saved after masked-language training: transformers would draw a pooler at random."""
    path = without(folder, tmp_path / "headless", "pooler.dense.weight", "pooler.dense.bias")
    with pytest.raises(ValueError, match=f"{path} has no pooler; set reinit_pooler"):
        bert().load_pretrained(path, reinit_pooler=False)
    model = bert()
    model.load_pretrained(path, reinit_pooler=True, reinit_layers=0)
    assert torch.equal(model.pool.dense.weight, bert().pool.dense.weight)


def test_a_model_that_lacks_a_layers_weights(folder, tmp_path):
    name = "encoder.layer.1.output.dense.weight"
    path = without(folder, tmp_path / "part", name)
    with pytest.raises(ValueError, match=f"{path} lacks 1 weights of the architecture: {name}"):
        bert().load_pretrained(path, reinit_layers=1)
    bert().load_pretrained(path, reinit_layers=2)  # the layer starts anew: nothing is missed


def test_weights_of_another_width(folder):
    model = TextBertBase({**ARCHITECTURE, "hidden_size": 8}, 8)
    with pytest.raises(ValueError, match=f"{folder} lacks .* weights of the architecture"):
        model.load_pretrained(str(folder))


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_attention_in_training_is_that_of_scoring_but_for_its_dropout(lengths):
    torch.manual_seed(0)
    block = TransformerBlock(16, 4, 0.0).double()
    n_tokens = max(1, *lengths)
    mask = torch.arange(n_tokens) < torch.tensor(lengths)[:, None]
    mask[:, 0] |= ~mask.any(dim=1)  # as the encoder does: a row looks at something
    x = torch.randn(len(lengths), n_tokens, 16, dtype=torch.float64)
    out = [block.train(training)(x, mask[:, None, None, :])[mask] for training in (True, False)]
    assert float((out[0] - out[1]).detach().abs().max()) < 1e-10


def test_attention_drops_weights_at_its_rate():
    """One head that looks at all tokens alike and hands on which they are: the output is its weights."""
    torch.manual_seed(0)
    block = TransformerBlock(64, 1, 0.25).train()
    block.norm1, block.proj, block.ffn = nn.Identity(), nn.Identity(), nn.Linear(64, 64)
    with torch.no_grad():
        block.qkv.weight.copy_(torch.cat([torch.zeros(128, 64), torch.eye(64)]))
        block.ffn.weight.zero_()
        block.ffn.bias.zero_()
    x = torch.eye(64).expand(100, 64, 64)
    weights = (block(x, torch.ones(100, 1, 1, 64, dtype=torch.bool)) - x).detach()
    kept = weights != 0
    # What is kept of the weights is dropped once more on its way to the sum.
    assert float(kept.float().mean()) == pytest.approx(0.75**2, abs=0.005)
    assert weights[kept].double().mean() == pytest.approx(1 / 64 / 0.75**2, rel=1e-4)
    both = kept[:, :, 1:] & kept[:, :, :-1]
    assert float(both.float().mean()) == pytest.approx(0.75**4, abs=0.005)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3), part=st.integers(1, 60))
def test_the_gradient_of_a_block_is_right_with_its_dropout(lengths, part):
    block = TransformerBlock(8, 2, 0.25).double().train()
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[:, None, None, :]
    x = torch.randn(len(lengths), max(lengths), 8, dtype=torch.float64, requires_grad=True)

    def drawn_alike(x):
        torch.manual_seed(3)
        return block(x, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("n3r.text.PART", part)  # whatever the parts, also those of one row's head
        assert torch.autograd.gradcheck(drawn_alike, (x,))
