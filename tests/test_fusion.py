"""Fusions: worked examples, what they may not depend on, and that every part of them learns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from n3r.fusion import FUSIONS, Concat, CrossAttention, Gate, Mixture, Widths, build_fusion
from n3r.kernels import Dropout
from n3r.text import Modality

WIDTHS = [Widths(6, 5), Widths(4, 4), Widths(8, 3)]  # of vectors and tokens
D, HEADS, NO_DROP = 8, 2, nn.Identity()
every = pytest.mark.parametrize("name", list(FUSIONS))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fusion(name: str, n: int, d: int = D, widths: list[Widths] = WIDTHS) -> nn.Module:
    """A fusion of `n` modalities in eval mode, none of whose parameters is a neutral 0 or 1."""
    module = build_fusion(name, widths[:n], d, HEADS, Dropout(0.5))
    draw = generator()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.5, generator=draw)
    return module.eval()


def modalities(
    n: int, n_rows: int = 3, seed: int = 0, lengths: tuple[int, ...] = (4, 2, 7)
) -> list[Modality]:
    """Random ones of up to `lengths` tokens; the last row of each has one token, or none."""
    draw = generator(seed)
    out = []
    for i, (width, length) in enumerate(zip(WIDTHS[:n], lengths, strict=False)):
        mask = torch.arange(length) < torch.tensor([length] * (n_rows - 1) + [i % 2])[:, None]
        vector = torch.randn(n_rows, width.vector, generator=draw)
        out.append(Modality(vector, torch.randn(n_rows, length, width.tokens, generator=draw), mask))
    return out


def fill(linear: nn.Linear, weight: list, bias: list) -> None:
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))


# ---- all of them


@every
@pytest.mark.parametrize("n", [2, 3])
def test_width_is_told(name, n):
    module = fusion(name, n, d=12)
    expected = {"concat": sum(w.vector for w in WIDTHS[:n]), "cross_attention": 12 * n}.get(name, 12)
    assert module.d_out == expected
    assert module(modalities(n)).shape == (3, expected)


@every
def test_defect_18_22_one_modality_alone_is_handed_on_by_no_parameters(name):
    module, alone = fusion(name, 1), modalities(1)
    assert module.d_out == WIDTHS[0].vector
    assert list(module.parameters()) == []
    assert torch.equal(module(alone), alone[0].vector)


@every
@pytest.mark.parametrize("n", [2, 3])
def test_defect_17_18_every_parameter_and_every_modality_gets_a_gradient(name, n):
    module, given_ = fusion(name, n), modalities(n)
    for modality in given_:
        modality.vector.requires_grad_()
        modality.tokens.requires_grad_()
    module(given_).square().sum().backward()
    assert [key for key, p in module.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-6] == []
    for modality in given_:
        assert (modality.vector.grad.abs().amax(dim=1) > 1e-7).all()
        if module.needs_tokens:
            seen = modality.tokens.grad.abs().amax(dim=2) > 1e-7
            assert torch.equal(seen, modality.mask)
        else:
            assert modality.tokens.grad is None


@every
@given(st.integers(1, 4), st.integers(0, 99))
def test_defect_10_a_row_does_not_depend_on_its_batch_mates(name, n_rows, seed):
    module, together = fusion(name, 3), modalities(3, n_rows, seed)
    with torch.no_grad():
        out = module(together)
        for row in range(n_rows):
            one = [Modality(*(part[row : row + 1] for part in modality)) for modality in together]
            torch.testing.assert_close(module(one)[0], out[row], rtol=1e-5, atol=1e-6)


# ---- concat


def test_concat_is_in_order():
    text, tabular = torch.full((2, 3), 1.0), torch.full((2, 2), 2.0)
    mask = torch.ones(2, 1, dtype=torch.bool)
    out = Concat([Widths(3, 3), Widths(2, 2)], 9, 1, NO_DROP)(
        [Modality(vector, vector[:, None], mask) for vector in (text, tabular)]
    )
    assert out.tolist() == [[1, 1, 1, 2, 2]] * 2


# ---- gate


def vectors(*values: list) -> list[Modality]:
    """Modalities of given vectors, with a token each that the fusion must not read."""
    out = [torch.tensor(value) for value in values]
    nothing = torch.zeros(len(out[0]), 1, dtype=torch.bool)
    return [Modality(vector, vector[:, None] * float("nan"), nothing) for vector in out]


def test_gate_worked_example():
    """Two modalities, two elements: the gate's layer norm gives ln 3 for the first's first, 0 elsewhere."""
    gate = Gate([Widths(1, 1), Widths(1, 1)], 2, 1, NO_DROP)
    fill(gate.proj[0], [[4.0], [8.0]], [0.0, 0.0])
    fill(gate.proj[1], [[0.0], [2.0]], [0.0, 0.0])
    with torch.no_grad():
        gate.gate[1].weight.zero_()
        gate.gate[1].bias.copy_(torch.tensor([3.0, 1.0, 1.0, 1.0]).log())
    out = gate(vectors([[1.0]], [[1.0]]))
    torch.testing.assert_close(out, torch.tensor([[3.0, 5.0]]))  # 3/4 of 4 and 1/4 of 0; half of 8 and of 2


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("kind", [Gate, Mixture])
def test_weights_sum_to_one(kind, n):
    """Modalities that agree give what they agree on, whatever weighs them."""
    module = kind(WIDTHS[:n], D, 1, NO_DROP)
    for proj in module.proj if kind is Gate else module.experts:
        nn.init.zeros_(proj.weight)
        nn.init.constant_(proj.bias, 2.5)
    torch.testing.assert_close(module(modalities(n)), torch.full((3, D), 2.5))


def test_the_gate_of_two_is_a_sigmoid_of_the_difference():
    """The published two-way gate: g x text + (1 - g) x tabular."""
    gate, given_ = fusion("gate", 2), modalities(2)
    with torch.no_grad():
        a, b = (proj(modality.vector) for proj, modality in zip(gate.proj, given_, strict=True))
        first, second = gate.gate(torch.cat([a, b], dim=1)).chunk(2, dim=1)
        g = (first - second).sigmoid()
        torch.testing.assert_close(gate(given_), g * a + (1 - g) * b)


# ---- mixture


def test_mixture_worked_example():
    """The router gives ln 3 and 0 where the first vector is 1: weights 3/4 and 1/4."""
    mixture = Mixture([Widths(1, 1), Widths(1, 1)], 1, 1, NO_DROP)
    fill(mixture.experts[0], [[8.0]], [0.0])
    fill(mixture.experts[1], [[2.0]], [2.0])
    fill(mixture.router, [[torch.tensor(3.0).log().item(), 0.0], [0.0, 0.0]], [0.0, 0.0])
    out = mixture(vectors([[1.0], [0.0]], [[1.0], [3.0]]))
    torch.testing.assert_close(out, torch.tensor([[7.0], [4.0]]))  # 3/4 of 8 and 1/4 of 4; half of 0 and of 8


# ---- cross-attention


def permuted(modality: Modality, seed: int) -> Modality:
    order = torch.randperm(modality.mask.shape[1], generator=generator(seed))
    return Modality(modality.vector, modality.tokens[:, order], modality.mask[:, order])


@given(st.integers(0, 99))
def test_the_order_of_tokens_does_not_matter(seed):
    module, given_ = fusion("cross_attention", 3), modalities(3)
    with torch.no_grad():
        torch.testing.assert_close(
            module([permuted(m, seed) for m in given_]), module(given_), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("rubbish", [1e6, float("inf"), float("nan")])
def test_defect_10_masked_tokens_do_not_matter_whatever_they_hold(rubbish):
    module, given_ = fusion("cross_attention", 3), modalities(3)
    spoilt = [m._replace(tokens=m.tokens.masked_fill(~m.mask[:, :, None], rubbish)) for m in given_]
    with torch.no_grad():
        torch.testing.assert_close(module(spoilt), module(given_))
    for modality in spoilt:
        modality.tokens.requires_grad_()
    module(spoilt).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())
    assert not any(m.tokens.grad[~m.mask].any() for m in spoilt)


@pytest.mark.parametrize("looked_at", [0, 1, 2])
def test_each_modality_looks_at_the_tokens_of_all_others_and_not_at_its_own(looked_at):
    module, given_ = fusion("cross_attention", 3), modalities(3)
    other = list(given_)
    other[looked_at] = given_[looked_at]._replace(tokens=given_[looked_at].tokens + 1)
    with torch.no_grad():
        moved = (module(other) - module(given_))[0].view(3, D).abs().amax(dim=1) > 1e-5
    assert moved.tolist() == [i != looked_at for i in range(3)]


def test_defect_17_attention_is_not_always_one():
    """The query decides what is looked at: without it every key would weigh the same."""
    module, given_ = fusion("cross_attention", 2), modalities(2)
    with torch.no_grad():
        before = module(given_)
        for look in module.looks:
            look.query.weight.zero_()
            look.query.bias.zero_()
        assert (module(given_) - before).abs().amax(dim=1).min() > 1e-3


def test_attention_worked_example():
    """A key that answers the query far better than all others: what is seen is its value."""
    module = CrossAttention([Widths(2, 2), Widths(2, 2)], 2, 1, NO_DROP).eval()
    eye = torch.eye(2).tolist()
    for linear in (*module.vectors, *module.tokens):
        fill(linear, eye, [0.0, 0.0])
    look = module.looks[0]
    for linear in (look.value, look.proj):
        fill(linear, eye, [0.0, 0.0])
    fill(look.query, (100 * torch.eye(2)).tolist(), [0.0, 0.0])
    fill(look.ffn[3], torch.zeros(2, 8).tolist(), [0.0, 0.0])
    with torch.no_grad():
        look.key.weight.copy_(torch.eye(2))
    look.norm1, look.norm2 = nn.Identity(), nn.Identity()
    tokens = torch.tensor([[[5.0, 7.0], [1.0, 9.0], [90.0, 90.0]]])
    one = Modality(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))
    other = Modality(torch.tensor([[3.0, 3.0]]), tokens, torch.tensor([[True, True, False]]))
    assert module([one, other])[0, :2].tolist() == [1 + 5, 0 + 7]  # 5 is the largest first element not masked
