"""The layers of a transformer with their derivatives written out: no module, no autograd.

`forward(x)` gives the output and a cache for the backward pass. `backward(d_out, cache)` takes the derivative
of the loss with respect to the output; it gives the derivative with respect to the input, and those with
respect to the layer's parameters by name. Decisions:

- Vectors are rows: a position is a row of x (B, T, D), and a matrix stands on its right, y = x W + b.
- `d_z` is the derivative of the loss with respect to z, and has the shape of z.
- Attention's weights, (B H, T, T), are by far the largest tensors, so the backward pass computes them again.
- Sums over many terms (means, variances, a token's gradients) are taken in float32 at least.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

Gradients = dict[str, Tensor]
IGNORED = -100  # a label that is not to be predicted, as in torch


class Initialiser(NamedTuple):
    """First values of parameters, the same on every device."""

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
    """An attribute that is a tensor is a parameter; one that is a layer adds its own."""

    @property
    def layers(self) -> "dict[str, Layer]":
        """The layers inside, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """All tensors of the layer and of those inside, by dotted name."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return own | dotted({name: layer.parameters for name, layer in self.layers.items()})


class Linear(Layer):
    """y = x W + b, of x (B, T, I) and W (I, O).

    y_o = sum_i x_i W_io + b_o, so x_i reaches the loss through every y_o: d_x = d_y W^T. W_io is used at each
    position, and derivatives of the uses add up: d_W = x^T d_y over all positions, d_b = their sum.
    """

    def __init__(self, init: Initialiser, n_in: int, n_out: int, scale: float = 1.0):
        self.weight = init.normal(n_in, n_out, std=scale / sqrt(n_in))
        self.bias = init.constant(0, n_out)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        flat = torch.addmm(self.bias, x.flatten(0, 1), self.weight)
        return flat.view(*x.shape[:2], -1), x

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        x, d_y_flat = cache.flatten(0, 1), d_y.flatten(0, 1)
        d_x = (d_y_flat @ self.weight.T).view(cache.shape)
        return d_x, {"weight": x.T @ d_y_flat, "bias": d_y_flat.sum(0)}


class LayerNorm(Layer):
    """y = g n + b with n = (x - m) r, m the mean and 1 / r^2 = variance + epsilon over a position's D values.

    Moving x_j also moves m and r, so the parts of d_n along 1 (through m) and along n (through r) cancel:
    d_x = r (d_n - mean(d_n) - n mean(d_n n)), with d_n = d_y g. d_g = sum(d_y n), d_b = sum(d_y).
    Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """

    EPSILON = 1e-5

    def __init__(self, init: Initialiser, n: int):
        self.gain = init.constant(1, n)
        self.bias = init.constant(0, n)

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
    """y_t = E[id_t] + P[t]: a vector of the token and one of its position.

    A row of E is used wherever its token stands: d_E[v] = sum of d_y over the positions of v; d_P[t] = sum of
    d_y over the batch. Ids have no derivative, so the backward pass ends here.
    """

    def __init__(self, init: Initialiser, n_tokens: int, n_positions: int, n: int):
        self.token = init.normal(n_tokens, n, std=0.02)
        self.place = init.normal(n_positions, n, std=0.02)  # its name in checkpoints

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

    With weights p = softmax(s): d_v = p^T d_o and d_p = d_o v^T. A row of a softmax sums to one, so a change
    that all of it shares cancels: d_s = p (d_p - sum_j d_p_j p_j), and that sum is d_o . o. Then d_q = d_s k
    and d_k = d_s^T q, both / sqrt(d). The mask is -infinity where a key lies after its query: there p and
    d_s are 0.
    Vaswani et al., "Attention Is All You Need", 2017; weights computed again as in Dao et al., 2022.
    """

    def __init__(self, init: Initialiser, n: int, n_heads: int, scale: float):
        self.n_heads = n_heads
        self.project = Linear(init, n, 3 * n)  # q, k and v, one beside the other
        self.output = Linear(init, n, n, scale)

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
        return d_x, dotted({"project": d_project, "output": d_output})

    def weights(self, cache: Any) -> Tensor:
        """The p of a forward pass, (B, H, T, T): how much each position reads of each earlier one."""
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

    def __init__(self, init: Initialiser, n: int, n_hidden: int, scale: float):
        self.hidden = Linear(init, n, n_hidden)
        self.output = Linear(init, n_hidden, n, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        a, of_hidden = self.hidden.forward(x)
        y, h = self.output.forward(a.relu_())
        return y, (of_hidden, h)

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        of_hidden, h = cache
        d_h, d_output = self.output.backward(d_y, h)
        d_x, d_hidden = self.hidden.backward(d_h.mul_(h > 0), of_hidden)
        return d_x, dotted({"hidden": d_hidden, "output": d_output})


class Block(Layer):
    """y = x + branch(norm(x)), first with attention and then with the feed-forward layer as the branch.

    A sum hands its derivative to both terms: d_x = d_y + what comes back through branch and norm.
    """

    BRANCHES = (("norm1", "attention"), ("norm2", "feed_forward"))

    def __init__(self, init: Initialiser, n: int, n_heads: int, n_hidden: int, n_blocks: int):
        scale = 1 / sqrt(2 * n_blocks)  # the sum of all blocks' outputs starts at the size of one
        self.norm1 = LayerNorm(init, n)
        self.attention = Attention(init, n, n_heads, scale)
        self.norm2 = LayerNorm(init, n)
        self.feed_forward = FeedForward(init, n, n_hidden, scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        layers, cache = self.layers, {}
        for norm, branch in self.BRANCHES:
            normed, cache[norm] = layers[norm].forward(x)
            out, cache[branch] = layers[branch].forward(normed)
            x = x + out
        return x, cache

    def backward(self, d_y: Tensor, cache: Any) -> tuple[Tensor, Gradients]:
        layers, gradients = self.layers, {}
        for norm, branch in reversed(self.BRANCHES):
            d_normed, gradients[branch] = layers[branch].backward(d_y, cache[branch])
            back, gradients[norm] = layers[norm].backward(d_normed, cache[norm])
            d_y = d_y + back
        return d_y, dotted(gradients)


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


def dotted(parts: Mapping[str, Gradients]) -> Gradients:
    """The tensors of several layers, under their layer's name."""
    return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.items()}


def _exact(x: Tensor) -> Tensor:
    """In float32, or float64 where it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
