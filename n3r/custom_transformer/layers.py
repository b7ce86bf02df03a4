"""The layers of a transformer with their derivatives written out: no module, no parameter, no autograd.

Every layer has two methods. `forward(x)` gives its output and a cache of what the way back needs.
`backward(d_out, cache)` takes the derivative of the loss with respect to the output and gives that with
respect to the input, and those of the layer's parameters by their names. Decisions:

- Vectors are rows: a position is a row of x (B, T, D), and a matrix stands on its right, y = x W + b.
- `d_z` is the derivative of the loss with respect to z, and has the shape of z.
- Attention's weights, (B H, T, T), are the largest things in sight: they are computed again on the way back
  instead of being kept.
- Sums over many terms (means, variances, a token's gradients) are taken in float32 at least.
"""

from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

Gradients = dict[str, Tensor]
IGNORED = -100  # a label that is not to be predicted, as in torch


class Start(NamedTuple):
    """Where the first values of parameters come from: the same on every device."""

    generator: torch.Generator
    device: torch.device
    dtype: torch.dtype

    def normal(self, *shape: int, std: float) -> Tensor:
        """Normal values of mean 0."""
        values = torch.empty(shape).normal_(0, std, generator=self.generator)
        return values.to(self.device, self.dtype)

    def constant(self, value: float, *shape: int) -> Tensor:
        """One value everywhere."""
        return torch.full(shape, value, device=self.device, dtype=self.dtype)


class Layer:
    """Tensors and layers by name; a tensor that is an attribute is a parameter."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All tensors of the layer and of those in it, by dotted name."""
        found: dict[str, Tensor] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                found[name] = value
            for inner, layer in _layers(name, value):
                found |= _inside(inner, layer.parameters)
        return found


class Linear(Layer):
    """y = x W + b, of x (B, T, I) and W (I, O).

    y_o = sum_i x_i W_io + b_o, so x_i reaches the loss through every y_o: d_x = d_y W^T. W_io is used at each
    position, and derivatives of the uses add up: d_W = x^T d_y over all positions, d_b = their sum.
    """

    def __init__(self, start: Start, n_in: int, n_out: int, scale: float = 1.0):
        self.weight = start.normal(n_in, n_out, std=scale / sqrt(n_in))
        self.bias = start.constant(0, n_out)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        flat = torch.addmm(self.bias, x.flatten(0, 1), self.weight)
        return flat.view(*x.shape[:2], -1), x

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        x, d_y_flat = cache.flatten(0, 1), d_y.flatten(0, 1)
        d_x = (d_y_flat @ self.weight.T).view(cache.shape)
        return d_x, {"weight": x.T @ d_y_flat, "bias": d_y_flat.sum(0)}


class LayerNorm(Layer):
    """y = g n + b with n = (x - m) r, m the mean and 1 / r^2 = variance + epsilon over a position's D values.

    Moving x_j also moves m and r, so of d_n the parts along 1 (through m) and along n (through r) are lost:
    d_x = r (d_n - mean(d_n) - n mean(d_n n)), with d_n = d_y g. d_g = sum(d_y n), d_b = sum(d_y).
    Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """

    EPSILON = 1e-5

    def __init__(self, start: Start, n: int):
        self.gain = start.constant(1, n)
        self.bias = start.constant(0, n)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        variance, mean = torch.var_mean(_exact(x), -1, correction=0, keepdim=True)
        r = (variance + self.EPSILON).rsqrt()
        n = ((x - mean) * r).to(x.dtype)
        return torch.addcmul(self.bias, n, self.gain), (n, r)

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        n, r = cache
        d_n = d_y * self.gain
        along_n = (_exact(d_n) * n).mean(-1, keepdim=True)
        d_x = r * (d_n - _exact(d_n).mean(-1, keepdim=True) - n * along_n)
        gradients = {"gain": (d_y * n).sum((0, 1)), "bias": d_y.sum((0, 1))}
        return d_x.to(d_y.dtype), gradients


class Embedding(Layer):
    """y_t = E[id_t] + P[t]: a vector of the token and one of its place.

    A row of E is used wherever its token stands: d_E[v] = sum of d_y over the places of v; d_P[t] = sum of
    d_y over the batch. There is no way back further: ids are no numbers.
    """

    def __init__(self, start: Start, n_tokens: int, n_places: int, n: int):
        self.token = start.normal(n_tokens, n, std=0.02)
        self.place = start.normal(n_places, n, std=0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, Any]:
        return self.token[ids] + self.place[: ids.shape[1]], ids

    def backward(self, d_y: Tensor, cache: Any) -> tuple[None, Gradients]:
        d_token = torch.zeros_like(self.token, dtype=_exact(d_y).dtype)
        d_token.index_add_(0, cache.flatten(), _exact(d_y).flatten(0, 1))
        d_place = torch.zeros_like(self.place)
        d_place[: d_y.shape[1]] = d_y.sum(0)
        return None, {"token": d_token.to(d_y.dtype), "place": d_place}


class Attention(Layer):
    """Causal multi-head self-attention: o = softmax(q k^T / sqrt(d) + mask) v in each of H heads.

    With weights p = softmax(s): d_v = p^T d_o and d_p = d_o v^T. A softmax's row sums to one, so what moves
    all of it alike is lost: d_s = p (d_p - sum_j d_p_j p_j), and that sum is d_o . o. Then d_q = d_s k and
    d_k = d_s^T q, both / sqrt(d). The mask is -infinity where a key lies after its query: there p and d_s
    are 0.
    Vaswani et al., "Attention Is All You Need", 2017; weights computed again as in Dao et al., 2022.
    """

    def __init__(self, start: Start, n: int, n_heads: int, scale: float):
        self.n_heads = n_heads
        self.project = Linear(start, n, 3 * n)  # q, k and v, one beside the other
        self.output = Linear(start, n, n, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        projected, of_project = self.project.forward(x)
        q, k, v = self._split(projected, 3)
        y, of_output = self.output.forward(self._merge((self._weights(q, k) @ v)[None]))
        return y, (of_project, q, k, v, of_output)

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        of_project, q, k, v, of_output = cache
        d_merged, d_output = self.output.backward(d_y, of_output)
        [d_o], [o] = self._split(d_merged, 1), self._split(of_output, 1)
        p = self._weights(q, k)
        d_v = p.mT @ d_o
        d_s = (d_o @ v.mT).sub_((d_o * o).sum(-1, keepdim=True)).mul_(p).mul_(q.shape[-1] ** -0.5)
        d_qkv = self._merge(torch.stack([d_s @ k, d_s.mT @ q, d_v]))
        d_x, d_project = self.project.backward(d_qkv, of_project)
        return d_x, {**_inside("project", d_project), **_inside("output", d_output)}

    def weights(self, cache: Any) -> Tensor:
        """The p of a forward pass, (B, H, T, T): how much each place reads of each earlier one."""
        _, q, k, *_ = cache
        return self._weights(q, k).unflatten(0, (-1, self.n_heads))

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        future = torch.full((q.shape[1],) * 2, -torch.inf, device=q.device, dtype=q.dtype).triu_(1)
        return torch.baddbmm(future, q, k.mT, alpha=q.shape[-1] ** -0.5).softmax(-1)

    def _split(self, x: Tensor, n: int) -> Tensor:
        """(B, T, n D) -> (n, B H, T, d)."""
        return x.unflatten(-1, (n, self.n_heads, -1)).permute(2, 0, 3, 1, 4).flatten(1, 2)

    def _merge(self, heads: Tensor) -> Tensor:
        """(n, B H, T, d) -> (B, T, n D)."""
        return heads.unflatten(1, (-1, self.n_heads)).permute(1, 3, 0, 2, 4).flatten(2)


class FeedForward(Layer):
    """y = max(0, x W1 + b1) W2 + b2.

    The maximum passes a derivative on where it passed a value on: d_a = d_h where h > 0, else 0.
    """

    def __init__(self, start: Start, n: int, n_hidden: int, scale: float):
        self.hidden = Linear(start, n, n_hidden)
        self.output = Linear(start, n_hidden, n, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        a, of_hidden = self.hidden.forward(x)
        y, h = self.output.forward(a.relu_())
        return y, (of_hidden, h)

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        of_hidden, h = cache
        d_h, d_output = self.output.backward(d_y, h)
        d_x, d_hidden = self.hidden.backward(d_h.mul_(h > 0), of_hidden)
        return d_x, {**_inside("hidden", d_hidden), **_inside("output", d_output)}


class Block(Layer):
    """y = x + attention(norm1(x)), then z = y + feed_forward(norm2(y)).

    A sum hands its derivative to both terms: d_y = d_z + what comes back through norm2, and so on.
    """

    def __init__(self, start: Start, n: int, n_heads: int, n_hidden: int, n_blocks: int):
        scale = 1 / sqrt(2 * n_blocks)  # the sum of all blocks' outputs starts at the size of one
        self.norm1 = LayerNorm(start, n)
        self.attention = Attention(start, n, n_heads, scale)
        self.norm2 = LayerNorm(start, n)
        self.feed_forward = FeedForward(start, n, n_hidden, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        normed, of_norm1 = self.norm1.forward(x)
        attended, of_attention = self.attention.forward(normed)
        y = x + attended
        normed, of_norm2 = self.norm2.forward(y)
        fed, of_feed_forward = self.feed_forward.forward(normed)
        return y + fed, (of_norm1, of_attention, of_norm2, of_feed_forward)

    def backward(self, d_z: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        of_norm1, of_attention, of_norm2, of_feed_forward = cache
        back, d_feed_forward = self.feed_forward.backward(d_z, of_feed_forward)
        back, d_norm2 = self.norm2.backward(back, of_norm2)
        d_y = d_z + back
        back, d_attention = self.attention.backward(d_y, of_attention)
        back, d_norm1 = self.norm1.backward(back, of_norm1)
        parts = {"norm1": d_norm1, "attention": d_attention, "norm2": d_norm2, "feed_forward": d_feed_forward}
        return d_y + back, {key: d for name, part in parts.items() for key, d in _inside(name, part).items()}


def cross_entropy(logits: Tensor, targets: Tensor, reduce: bool = True) -> tuple[Tensor, Any]:
    """-log softmax(logits)[target], the mean over targets that are not IGNORED, or each (B, T); in nats.

    log softmax(z)_t = z_t - log sum_v exp(z_v). logits (B, T, V), targets (B, T).
    """
    known = targets != IGNORED
    at = targets.clamp(min=0)[..., None]
    log_sum = _exact(logits).logsumexp(-1)
    losses = (log_sum - logits.gather(-1, at)[..., 0]) * known
    return losses.sum() / known.sum() if reduce else losses, (logits, log_sum, at, known)


def cross_entropy_backward(cache: Any) -> Tensor:
    """d_logits of the mean loss: (softmax - one-hot) / tokens, 0 where the target is IGNORED.

    z_v is in the sum with weight softmax(z)_v, and once more, negative, where v is the target.
    """
    logits, log_sum, at, known = cache
    share = (known.to(log_sum.dtype) / known.sum())[..., None]
    d_logits = (logits - log_sum[..., None]).exp_().mul_(share)
    return d_logits.scatter_add_(-1, at, -share).to(logits.dtype)


def _layers(name: str, value: Any) -> list[tuple[str, Layer]]:
    """The layers that an attribute is or lists, by name."""
    items = (
        {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {name: value}
    )
    return [(inner, item) for inner, item in items.items() if isinstance(item, Layer)]


def _inside(name: str, tensors: Gradients) -> Gradients:
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def _exact(x: Tensor) -> Tensor:
    """In float32, or float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
