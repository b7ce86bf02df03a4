"""Each layer beside torch's own: values, and gradients by autograd, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from n3r.custom_transformer.layers import (
    IGNORED,
    Attention,
    Block,
    Embedding,
    FeedForward,
    Initialiser,
    LayerNorm,
    Linear,
    cross_entropy,
    cross_entropy_backward,
)

INIT = Initialiser(torch.Generator().manual_seed(0), torch.device("cpu"), torch.float64)


def reference_linear(p, x, name=""):
    return F.linear(x, p[f"{name}weight"].T, p[f"{name}bias"])


def reference_norm(p, x, name=""):
    return F.layer_norm(x, x.shape[-1:], p[f"{name}gain"], p[f"{name}bias"])


def reference_attention(p, x, name="", n_heads=2):
    q, k, v = reference_linear(p, x, f"{name}project.").unflatten(-1, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)
    heads = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return reference_linear(p, heads.transpose(1, 2).flatten(2), f"{name}output.")


def reference_feed_forward(p, x, name=""):
    return reference_linear(p, F.relu(reference_linear(p, x, f"{name}hidden.")), f"{name}output.")


def reference_block(p, x):
    y = x + reference_attention(p, reference_norm(p, x, "norm1."), "attention.")
    return y + reference_feed_forward(p, reference_norm(p, y, "norm2."), "feed_forward.")


def reference_embedding(p, ids):
    return F.embedding(ids, p["token"]) + p["place"][: ids.shape[1]]


LAYERS = {
    "linear": (lambda: Linear(INIT, 6, 5), reference_linear),
    "norm": (lambda: LayerNorm(INIT, 6), reference_norm),
    "attention": (lambda: Attention(INIT, 6, 2, 1.0), reference_attention),
    "feed_forward": (lambda: FeedForward(INIT, 6, 7, 1.0), reference_feed_forward),
    "block": (lambda: Block(INIT, 6, 2, 7, 3), reference_block),
    "embedding": (lambda: Embedding(INIT, 9, 8, 6), reference_embedding),
}


def shaken(make):
    """A layer all of whose parameters are random, biases and gains too."""
    layer = make()
    for parameter in layer.parameters.values():
        parameter.copy_(torch.randn(parameter.shape, generator=INIT.generator, dtype=torch.float64))
    return layer


def an_input(name: str, shape: tuple[int, int]) -> torch.Tensor:
    if name == "embedding":
        return torch.randint(9, shape, generator=INIT.generator)
    return torch.randn(*shape, 6, generator=INIT.generator, dtype=torch.float64)


def largest(difference: torch.Tensor) -> float:
    return float(difference.detach().abs().max())


@pytest.mark.parametrize("name", LAYERS)
@given(n_rows=st.integers(1, 4), n_tokens=st.integers(1, 8))
def test_values_and_gradients_are_those_of_torch_and_autograd(name, n_rows, n_tokens):
    make, reference = LAYERS[name]
    layer, x = shaken(make), an_input(name, (n_rows, n_tokens))
    out, cache = layer.forward(x)
    known = {key: p.clone().requires_grad_() for key, p in layer.parameters.items()}
    given_x = x.clone().requires_grad_(x.is_floating_point())
    expected = reference(known, given_x)
    assert largest(out - expected) < 1e-8
    d_out = torch.randn(out.shape, generator=INIT.generator, dtype=torch.float64)
    d_x, gradients = layer.backward(d_out.clone(), cache)
    expected.backward(d_out)
    assert gradients.keys() == known.keys()
    assert max(largest(gradients[key] - p.grad) for key, p in known.items()) < 1e-8
    assert (d_x is None) if name == "embedding" else largest(d_x - given_x.grad) < 1e-8


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 9)),
    scale=st.sampled_from([1.0, 30.0, 1e4]),
    data=st.data(),
)
def test_cross_entropy_and_its_gradient_are_those_of_torch(shape, scale, data):
    b, t, v = shape
    logits = scale * torch.randn(b, t, v, generator=INIT.generator, dtype=torch.float64)
    labels = data.draw(st.lists(st.integers(-1, v - 1), min_size=b * t, max_size=b * t))
    targets = torch.tensor(labels).view(b, t)
    targets[targets < 0] = IGNORED
    if (targets == IGNORED).all():
        targets[0, 0] = 0
    loss, cache = cross_entropy(logits, targets)
    leaf = logits.clone().requires_grad_()
    expected = F.cross_entropy(leaf.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), abs=1e-8 * scale)
    assert largest(cross_entropy_backward(cache) - leaf.grad) < 1e-8
    each = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(b, t)
    assert largest(cross_entropy(logits, targets, reduce=False)[0] - each) < 1e-8 * scale


def test_worked_example_of_cross_entropy():
    logits = torch.tensor([[[0.0, math.log(3.0)], [0.0, 0.0]]])  # softmax (1/4, 3/4) and (1/2, 1/2)
    loss, cache = cross_entropy(logits, torch.tensor([[0, 1]]))
    assert float(loss) == pytest.approx((math.log(4) + math.log(2)) / 2)
    expected = torch.tensor([[[0.25 - 1, 0.75], [0.5, 0.5 - 1]]]) / 2  # (softmax - one-hot) / tokens
    assert torch.allclose(cross_entropy_backward(cache), expected)


def test_worked_example_of_a_norm():
    layer = LayerNorm(INIT._replace(dtype=torch.float32), 2)
    out, cache = layer.forward(torch.tensor([[[1.0, 3.0]]]))
    assert torch.allclose(out, torch.tensor([[[-1.0, 1.0]]]), atol=1e-4)
    d_x, gradients = layer.backward(torch.tensor([[[1.0, 1.0]]]), cache)
    assert largest(d_x) < 1e-6  # moving both alike moves nothing
    assert torch.allclose(gradients["gain"], out[0, 0])
