"""How the modalities of a row, its texts and its features, become one vector, and that its logits.

A fusion is `list[Modality] -> (B, D)`, a head `(B, D) -> (B, C)`, each as a published class has it.

Every fusion takes two or more modalities of any widths. With one alone there is nothing to fuse: `Concat`
hands its vector on, so that no parameters go unused (defects 18, 22). `defaults` are the fields of a model's
config that a fusion reads, with their published values.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n3r.text import Modality


class Widths(NamedTuple):
    """Widths of a modality's vector and of its tokens."""

    vector: int
    tokens: int


class Concat(nn.Module):
    """The vectors side by side."""

    needs_tokens = False
    defaults: ClassVar[dict[str, int | None]] = {}

    def __init__(self, widths: Sequence[Widths], d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        self.d_out = sum(width.vector for width in widths)

    def forward(self, modalities: Sequence[Modality]) -> Tensor:
        """Vectors (B, D_i) -> (B, sum of D_i)."""
        return torch.cat([modality.vector for modality in modalities], dim=1)


class Gate(nn.Module):
    """A weighted mean of the projected vectors; each of its D elements has weights of its own.

    NOTE[DIFF] the weights are one softmax over the modalities. The published two-way gate is that of two
    modalities; the published three-way one divides three sigmoids by their sum and keeps a second gate
    network for rows without features, which never learns (defect 18).
    """

    needs_tokens = False
    defaults: ClassVar[dict[str, int | None]] = {"fusion_dim": None}

    def __init__(self, widths: Sequence[Widths], d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        n = len(widths)
        self.d_out = d
        self.proj = nn.ModuleList(nn.Linear(width.vector, d) for width in widths)
        self.gate = nn.Sequential(nn.Linear(n * d, n * d), nn.LayerNorm(n * d))

    def forward(self, modalities: Sequence[Modality]) -> Tensor:
        """Vectors (B, D_i) -> (B, D)."""
        x = [proj(modality.vector) for proj, modality in zip(self.proj, modalities, strict=True)]
        weight = self.gate(torch.cat(x, dim=1)).unflatten(1, (len(x), -1)).softmax(dim=1)  # (B, n, D)
        return (weight * torch.stack(x, dim=1)).sum(dim=1)  # (B, D)


class Mixture(nn.Module):
    """Mixture of experts, one a modality, weighed by a router that sees all of them.

    NOTE[DIFF] every expert is a layer. The published one is none where widths are equal, and its router
    sees what the experts gave.
    """

    needs_tokens = False
    defaults: ClassVar[dict[str, int | None]] = {"fusion_dim": None}

    def __init__(self, widths: Sequence[Widths], d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        self.d_out = d
        self.experts = nn.ModuleList(nn.Linear(width.vector, d) for width in widths)
        self.router = nn.Linear(sum(width.vector for width in widths), len(widths))

    def forward(self, modalities: Sequence[Modality]) -> Tensor:
        """Vectors (B, D_i) -> (B, D)."""
        vectors = [modality.vector for modality in modalities]
        weight = self.router(torch.cat(vectors, dim=1)).softmax(dim=1)  # (B, n)
        out = [expert(vector) for expert, vector in zip(self.experts, vectors, strict=True)]
        return (weight[:, :, None] * torch.stack(out, dim=1)).sum(dim=1)  # (B, D)


class CrossAttention(nn.Module):
    """Each modality's vector looks at the tokens of all others, then passes a feed-forward; side by side.

    NOTE[DIFF] the published fusion attends from one vector to one vector: a softmax over a single key is 1,
    and query and key weights never learn (defect 17). Here the keys are the others' vectors and tokens.
    """

    needs_tokens = True
    defaults: ClassVar[dict[str, int | None]] = {"fusion_dim": None, "fusion_heads": 4}

    def __init__(self, widths: Sequence[Widths], d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        self.d_out = len(widths) * d
        self.vectors = nn.ModuleList(nn.Linear(width.vector, d) for width in widths)
        self.tokens = nn.ModuleList(nn.Linear(width.tokens, d) for width in widths)
        self.looks = nn.ModuleList(_Look(d, n_heads, drop) for _ in widths)

    def forward(self, modalities: Sequence[Modality]) -> Tensor:
        """Vectors (B, D_i), tokens (B, S_i, D'_i) -> (B, n * D)."""
        vectors = [proj(m.vector)[:, None] for proj, m in zip(self.vectors, modalities, strict=True)]
        sequences, masks = [], []
        for vector, proj, m in zip(vectors, self.tokens, modalities, strict=True):
            # Undefined values at padded positions would survive a weight of 0: NaN x 0 is NaN.
            tokens = proj(m.tokens.masked_fill(~m.mask[:, :, None], 0))  # (B, S, D)
            sequences.append(torch.cat([vector, tokens], dim=1))  # (B, 1 + S, D)
            masks.append(F.pad(m.mask, (1, 0), value=True))  # the vector is always there to be looked at
        out = []
        for i, (vector, look) in enumerate(zip(vectors, self.looks, strict=True)):
            others = torch.cat(sequences[:i] + sequences[i + 1 :], dim=1)
            mask = torch.cat(masks[:i] + masks[i + 1 :], dim=1)
            out.append(look(vector, others, mask)[:, 0])
        return torch.cat(out, dim=1)  # (B, n * D)


class _Look(nn.Module):
    """Attention from one sequence to another, then a feed-forward, each with a residual and a norm."""

    def __init__(self, d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        if d % n_heads:
            raise ValueError(f"fusion_dim {d} is not a multiple of fusion_heads {n_heads}")
        self.n_heads = n_heads
        self.query = nn.Linear(d, d)
        # No bias on the keys: it shifts all scores of a query alike, which a softmax does not see.
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d)
        self.proj = nn.Linear(d, d)
        self.drop = drop
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.ReLU(), drop, nn.Linear(4 * d, d))

    def forward(self, x: Tensor, others: Tensor, mask: Tensor) -> Tensor:
        """(B, Q, D), (B, S, D), (B, S) -> (B, Q, D)."""
        q, k, v = (self._heads(t) for t in (self.query(x), self.key(others), self.value(others)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])  # (B, h, Q, D/h)
        x = self.norm1(x + self.drop(self.proj(out.transpose(1, 2).flatten(2))))
        return self.norm2(x + self.drop(self.ffn(x)))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, S, D) -> (B, h, S, D/h)."""
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)


FUSIONS = {"concat": Concat, "gate": Gate, "mixture": Mixture, "cross_attention": CrossAttention}


def build_fusion(name: str, widths: Sequence[Widths], d: int, n_heads: int, drop: nn.Module) -> nn.Module:
    """The fusion of a name, or `Concat` where there is one modality alone."""
    return (FUSIONS[name] if len(widths) > 1 else Concat)(widths, d, n_heads, drop)


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
    """A hidden layer, by default of half the width or 128, as the published trimodal classes have it.

    NOTE[DIFF] the published bimodal cross-attention has the same without the least width and the dropout.
    """
    h = hidden_size or max(128, d // 2)
    return nn.Sequential(nn.ReLU(), drop, nn.Linear(d, h), nn.ReLU(), drop, nn.Linear(h, n_classes))


HIDDEN = {lstm2risk_head: "hidden_size", two_layer_head: "fusion_hidden_dim"}  # head -> its width's dimension
