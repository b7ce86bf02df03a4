"""Heads: from the fused vector of a row to logits, (B, D) -> (B, C), as each published class has it."""

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x plus a feed-forward of it, with or without a norm before: (B, D) -> (B, D)."""

    def __init__(self, d: int, expansion: int, norm: bool, drop: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.ffn = nn.Sequential(nn.Linear(d, expansion * d), nn.ReLU(), nn.Linear(expansion * d, d), drop)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return x + self.ffn(self.norm(x))


class Head(nn.Module):
    """Residual blocks and a last layer: (B, D) -> (B, C) logits."""

    def __init__(self, blocks: list[ResidualBlock], last: list[nn.Module], drop: nn.Module):
        super().__init__()
        layers = [part for block in blocks for part in (block, nn.ReLU(), drop)]
        self.net = nn.Sequential(*layers, *last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return self.net(x)


def lstm2risk_head(d: int, hidden_size: int | None, n_classes: int, drop: nn.Module) -> Head:
    """The legacy LSTM2Risk's: pre-norm blocks four times as wide inside, then a hidden layer."""
    blocks = [ResidualBlock(d, 4, norm=True, drop=nn.Identity()) for _ in range(3)]
    h = hidden_size or max(d // 4, 1)
    return Head(blocks, [nn.Linear(d, h), nn.ReLU(), drop, nn.Linear(h, n_classes)], drop)


def transformer2risk_head(d: int, hidden_size: int | None, n_classes: int, drop: nn.Module) -> Head:
    """The legacy Transformer2Risk's: blocks without norms, then the last layer."""
    blocks = [ResidualBlock(d, 1, norm=False, drop=drop) for _ in range(4)]
    return Head(blocks, [nn.Linear(d, n_classes)], drop)


def linear_head(d: int, hidden_size: int | None, n_classes: int, drop: nn.Module) -> nn.Module:
    """The last layer alone.

    NOTE[DIFF] the published `bert` is the library's classifier, from its pooled vector without a projection.
    """
    return nn.Sequential(nn.ReLU(), nn.Linear(d, n_classes))


def two_layer_head(d: int, hidden_size: int | None, n_classes: int, drop: nn.Module) -> nn.Module:
    """A hidden layer of half the width or 128, as the published trimodal classes have it.

    NOTE[DIFF] the published bimodal cross-attention has the same without the least width and the dropout.
    """
    h = max(128, d // 2)
    return nn.Sequential(nn.ReLU(), drop, nn.Linear(d, h), nn.ReLU(), drop, nn.Linear(h, n_classes))
