"""What is fast gives what torch gives: LSTM, dropout, attention; memory is kept and given back."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from n3r.kernels import BiLSTM, Dropout, keep_memory
from n3r.text import TransformerBlock


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in eval mode with every parameter drawn anew, so that none is a neutral 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=generator(seed))
    return module.eval()


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
    lstm = randomised(BiLSTM(4, 3, n_layers, Dropout(0.5))).double()
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
    lstm = randomised(BiLSTM(4, 3, 2, Dropout(0.0)))
    x = torch.randn(5, 3, 4, generator=generator())
    with torch.no_grad():
        out = lstm(x, torch.tensor([5, 0, 2]))
        expected = packed_reference(lstm, x[:, [0, 2]], torch.tensor([5, 2]))
    torch.testing.assert_close(out[:, 0], expected[:, 0])
    torch.testing.assert_close(out[:2, 2], expected[:2, 1])


def test_dropout_acts_between_layers_in_training_only():
    x, lengths = torch.randn(4, 2, 4, generator=generator()), torch.tensor([4, 3])
    for n_layers, same in ((1, True), (2, False)):
        lstm = randomised(BiLSTM(4, 3, n_layers, Dropout(0.5)))
        assert torch.equal(lstm(x, lengths), lstm(x, lengths))
        lstm.train()
        assert torch.equal(lstm(x, lengths), lstm(x, lengths)) == same


# ---- dropout


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


# ---- attention


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_attention_in_training_is_that_of_scoring_but_for_its_dropout(lengths):
    torch.manual_seed(0)
    block = TransformerBlock(16, 4, Dropout(0.0)).double()
    n_tokens = max(1, *lengths)
    mask = torch.arange(n_tokens) < torch.tensor(lengths)[:, None]
    mask[:, 0] |= ~mask.any(dim=1)  # as the encoder does: a row looks at something
    x = torch.randn(len(lengths), n_tokens, 16, dtype=torch.float64)
    out = [block.train(training)(x, mask[:, None, None, :])[mask] for training in (True, False)]
    assert float((out[0] - out[1]).detach().abs().max()) < 1e-10


def test_attention_drops_weights_at_its_rate():
    """One head that looks at all tokens alike and hands on which they are: the output is its weights."""
    torch.manual_seed(0)
    block = TransformerBlock(64, 1, Dropout(0.25)).train()
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
    block = TransformerBlock(4, 2, Dropout(0.25)).double().train()
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[:, None, None, :]
    x = torch.randn(len(lengths), max(lengths), 4, dtype=torch.float64, requires_grad=True)

    def drawn_alike(x):
        torch.manual_seed(3)
        return block(x, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("n3r.kernels.PART", part)  # whatever the parts, also those of one row's head
        assert torch.autograd.gradcheck(drawn_alike, (x,))


# ---- memory

COUNT = """
import resource, torch
from n3r.kernels import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(40_000_000)  # 160 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

usual = faults()
with keep_memory():
    faults()  # the heap grows
    kept, inside = faults(), held()
print(usual, kept, inside - held())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_is_kept_between_steps_and_given_back_at_the_end(run_fresh):
    usual, kept, given_back = map(int, run_fresh(COUNT).split())
    assert kept < usual / 5
    assert given_back > 100  # MB


def test_it_is_given_back_after_an_error_too():
    with pytest.raises(ZeroDivisionError), keep_memory():
        raise ZeroDivisionError
