"""Encoders of the tabular features: (B, F) -> (B, D), their scaling, and features as tokens."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuantileMap(nn.Module):
    """The first G features as normal scores of their ranks among the training values: (B, F) -> (B, F).

    `knots` (2, G, K) are the values, ascending, and their scores, as `TabularFeatures.knots` has them:
    between two a straight line, beyond the outer ones their scores. Knots are data and no weights: a bundle
    keeps them with its features, an exported graph inside.
    """

    def __init__(self, knots: np.ndarray):
        super().__init__()
        bits = max(knots.shape[2] - 1, 1).bit_length()
        padding = (0, 0), (0, 0), (0, 2**bits - knots.shape[2])
        value, score = torch.from_numpy(np.pad(np.float64(knots), padding, mode="edge"))  # (G, 2**bits)
        gap, rise = (torch.diff(part, append=part[:, -1:]) for part in (value, score))
        gap[gap == 0] = 1.0  # from the last knot on, where the score no longer rises
        self.steps = [2**bit for bit in reversed(range(bits))]
        self.register_buffer("first", torch.arange(len(value)) * 2**bits, persistent=False)  # (G,)
        for name, part in {
            "value": value.flatten()[:, None],  # (G * 2**bits, 1)
            "line": torch.stack([value, gap, score, rise], dim=2).flatten(0, 1),  # (G * 2**bits, 4)
            "low": value[:, 0],
            "high": value[:, -1],
        }.items():
            self.register_buffer(name, part.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, F)."""
        n_columns = self.first.shape[0]
        scaled = torch.minimum(torch.maximum(x[:, :n_columns], self.low), self.high)  # (B, G)
        at = self.first.expand(x.shape[0], n_columns)  # the last knot not above a value, by bisection
        for step in self.steps:  # a product costs a third of `torch.where` in place of it
            at = at + step * (scaled >= F.embedding(at + step, self.value).squeeze(2))
        value, gap, score, rise = F.embedding(at, self.line).unbind(dim=2)
        # No slope: between two denormal knots it would be infinite.
        return torch.cat([score + rise * ((scaled - value) / gap), x[:, n_columns:]], dim=1)


class PiecewiseLinear(nn.Module):
    """Each normal score also as how far it fills each of K bins of equal probability.

    Piecewise linear encoding of Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep
    Learning", 2022. Features come scaled to normal scores, so one set of edges serves all.
    """

    def __init__(self, n_bins: int):
        super().__init__()
        inner = torch.special.ndtri(torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1])
        edges = torch.cat([inner.new_tensor([-3.0]), inner, inner.new_tensor([3.0])]).float()
        self.register_buffer("low", edges[:-1], persistent=False)  # (K,)
        self.register_buffer("width", edges[1:] - edges[:-1], persistent=False)  # (K,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, F + F * K)."""
        filled = ((x[:, :, None] - self.low) / self.width).clamp(0, 1)  # (B, F, K)
        return torch.cat([x, filled.flatten(1)], dim=1)


class WeighedNorm(nn.BatchNorm1d):
    """Batch norm, then each column times a weight that is set once and not learned: (B, F) -> (B, F).

    With `n_bins` a feature is 1 + n_bins columns, as `PiecewiseLinear` lays them out. A feature of a small
    weight is learned slowly, and what it takes of weight decay to use it is large.
    """

    def __init__(self, n_features: int, n_bins: int = 0):
        super().__init__(n_features * (1 + n_bins))
        self.n_bins = n_bins
        self.register_buffer("column_weight", torch.ones(self.num_features))

    def weigh(self, weights: np.ndarray) -> None:
        """Set the weights of the features, (F,)."""
        weight = torch.as_tensor(weights, dtype=torch.float32)
        self.column_weight.copy_(torch.cat([weight, weight.repeat_interleave(self.n_bins)]))

    def forward(self, x: Tensor) -> Tensor:
        """(B, F * (1 + n_bins)) -> the same."""
        return super().forward(x) * self.column_weight


class _Encoder(nn.Module):
    """Bins, a batch norm, and the layers that a tabular branch consists of: (B, F) -> (B, D)."""

    def __init__(self, n_features: int, n_bins: int, weighed: bool, *layers: nn.Module):
        super().__init__()
        self.bins = PiecewiseLinear(n_bins) if n_bins else nn.Identity()
        norm = WeighedNorm(n_features, n_bins) if weighed else nn.BatchNorm1d(n_features * (1 + n_bins))
        self.net = nn.Sequential(norm, *layers)

    def weigh(self, weights: np.ndarray) -> None:
        """Set the weights of the features, (F,), of an encoder that was built `weighed`."""
        self.net[0].weigh(weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, D)."""
        return self.net(self.bins(x))


class TabularEncoder(_Encoder):
    """The tabular branch of both legacy models: (B, F) -> (B, D).

    NOTE[DIFF] with `n_bins` the features also pass through bins first, and `weighed` ones take weights. A
    network on plain scaled values is too smooth for tabular data: on twitter_bots the bins took LSTM2Risk
    from 0.880 to 0.911 AUC.
    """

    def __init__(self, n_features: int, d: int, drop: nn.Module, n_bins: int = 0, weighed: bool = False):
        first = [nn.Linear(n_features * (1 + n_bins), d), nn.ReLU(), drop]
        super().__init__(
            n_features, n_bins, weighed, *first, nn.Linear(d, d), nn.LayerNorm(d), nn.ReLU(), drop
        )


class TabAE(_Encoder):
    """The tabular branch of the published multimodal models, one layer: (B, F) -> (B, D).

    NOTE[DIFF] each feature is normalised over the rows. The published layer norm goes over the features of a
    row, so that a column's meaning depends on the others, and makes of a single column a constant.
    """

    def __init__(self, n_features: int, d: int, drop: nn.Module, n_bins: int = 0, weighed: bool = False):
        super().__init__(n_features, n_bins, weighed, nn.Linear(n_features * (1 + n_bins), d), nn.ReLU())


class FeatureTokens(nn.Module):
    """A token for each tabular feature: its value times a learned vector, plus another.

    As in FT-Transformer, Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", 2021.
    """

    def __init__(self, n_features: int, d: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_features, d) / d**0.5)
        self.bias = nn.Parameter(torch.randn(n_features, d) / d**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, F, D)."""
        return x[:, :, None] * self.weight + self.bias
