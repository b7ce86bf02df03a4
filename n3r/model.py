"""The risk model: text encoder, pool, tabular encoder, fusion and head, and the registry of its classes.

Decisions:
- A model class is a row of `MODEL_CLASSES`: which parts, and the published dimensions as defaults.
- Models return logits, one a class; probability is taken once, in `predict` and in export.
- `nn.Module` code knows nothing of training.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from n3r.fusion import Concat
from n3r.text import AttentionPool, LSTMEncoder, TransformerEncoder

Batch = dict[str, Tensor]


class ModelConfig(BaseModel):
    """Dimensions of a model; `model_select` fills in those of the class."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_class: str
    vocab_size: int = Field(ge=1)
    n_tab_features: int = Field(ge=0)
    n_classes: int = Field(2, ge=2)
    embedding_size: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    dropout_rate: float = Field(0.2, ge=0, lt=1)
    n_tab_bins: int = Field(0, ge=0)  # bins that each tabular feature is also seen through; 0 as published
    n_lstm_layers: int | None = Field(None, ge=1)  # LSTM encoders
    n_blocks: int | None = Field(None, ge=1)  # Transformer encoders, like the two below
    n_heads: int | None = Field(None, ge=1)
    block_size: int | None = Field(None, ge=1)  # tokens a row is cut to


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


class TabularEncoder(nn.Module):
    """The tabular branch of both legacy models: (B, F) -> (B, D).

    NOTE[DIFF] with `n_bins` the features also pass through bins first. A network on plain scaled values
    is too smooth for tabular data: on twitter_bots the bins took LSTM2Risk from 0.880 to 0.911 AUC.
    """

    def __init__(self, n_features: int, d: int, dropout: float, n_bins: int = 0):
        super().__init__()
        self.bins = PiecewiseLinear(n_bins) if n_bins else nn.Identity()
        n_features *= 1 + n_bins
        self.net = nn.Sequential(
            nn.BatchNorm1d(n_features),
            nn.Linear(n_features, d),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(d, d),
            nn.LayerNorm(d),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) -> (B, D)."""
        return self.net(self.bins(x))


class ResidualBlock(nn.Module):
    """x plus a feed-forward of it, with or without a norm before: (B, D) -> (B, D)."""

    def __init__(self, d: int, expansion: int, norm: bool, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.ffn = nn.Sequential(
            nn.Linear(d, expansion * d),
            nn.ReLU(),
            nn.Linear(expansion * d, d),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return x + self.ffn(self.norm(x))


class Head(nn.Module):
    """Residual blocks and a last layer: (B, D) -> (B, C) logits."""

    def __init__(self, blocks: list[ResidualBlock], last: list[nn.Module], dropout: float):
        super().__init__()
        layers = [part for block in blocks for part in (block, nn.ReLU(), nn.Dropout(dropout))]
        self.net = nn.Sequential(*layers, *last)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        return self.net(x)


class RiskModel(nn.Module):
    """Any model class, built from its registry row and a config; returns logits (B, C)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        parts = registered(config.model_class)
        self.config = config
        self.encoder, self.pool = parts.text(config)
        self.tabular = None
        if config.n_tab_features:
            d = self.pool.d_out
            self.tabular = TabularEncoder(config.n_tab_features, d, config.dropout_rate, config.n_tab_bins)
        self.fusion = parts.fusion(self.pool.d_out, self.pool.d_out if self.tabular else 0)
        self.head = parts.head(self.fusion.d_out, config)

    def forward(self, batch: Batch) -> Tensor:
        """Batch of `text` (B, T), `attn_mask` (B, T) and `tabular` (B, F) -> logits (B, C)."""
        tokens, mask = self.encoder(batch["text"], batch["attn_mask"])
        text = self.pool(tokens, mask)
        tabular = self.tabular(batch["tabular"]) if self.tabular else None
        return self.head(self.fusion(tokens, mask, text, tabular))


def _lstm_text(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    encoder = LSTMEncoder(
        config.vocab_size,
        config.embedding_size,
        config.hidden_size,
        config.n_lstm_layers,
        config.dropout_rate,
    )
    return encoder, AttentionPool(encoder.d_out)


def _transformer_text(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    encoder = TransformerEncoder(
        config.vocab_size,
        config.embedding_size,
        config.n_blocks,
        config.n_heads,
        config.block_size,
        config.dropout_rate,
    )
    return encoder, AttentionPool(encoder.d_out, 2 * config.hidden_size)


def _lstm_head(d: int, config: ModelConfig) -> Head:
    blocks = [ResidualBlock(d, 4, norm=True, dropout=0.0) for _ in range(3)]
    h, p = config.hidden_size, config.dropout_rate
    last = [nn.Linear(d, h), nn.ReLU(), nn.Dropout(p), nn.Linear(h, config.n_classes)]
    return Head(blocks, last, p)


def _transformer_head(d: int, config: ModelConfig) -> Head:
    p = config.dropout_rate
    blocks = [ResidualBlock(d, 1, norm=False, dropout=p) for _ in range(4)]
    return Head(blocks, [nn.Linear(d, config.n_classes)], p)


class ModelClass(NamedTuple):
    """A row of the registry."""

    text: Callable[[ModelConfig], tuple[nn.Module, nn.Module]]  # encoder and pool
    fusion: Callable[[int, int], nn.Module]
    head: Callable[[int, ModelConfig], nn.Module]
    defaults: dict[str, int]


MODEL_CLASSES = {
    "lstm2risk": ModelClass(
        text=_lstm_text,
        fusion=Concat,
        head=_lstm_head,
        defaults={"embedding_size": 16, "hidden_size": 128, "n_lstm_layers": 4},
    ),
    "transformer2risk": ModelClass(
        text=_transformer_text,
        fusion=Concat,
        head=_transformer_head,
        defaults={
            "embedding_size": 128,
            "hidden_size": 256,
            "n_blocks": 8,
            "n_heads": 8,
            "block_size": 100,
        },
    ),
}


def registered(model_class: str) -> ModelClass:
    """The registry row of a model class; an unknown name is a ValueError that lists all."""
    if model_class not in MODEL_CLASSES:
        raise ValueError(f"no model class {model_class!r}; there are {', '.join(MODEL_CLASSES)}")
    return MODEL_CLASSES[model_class]


def model_select(model_class: str, **dimensions: int | float | None) -> RiskModel:
    """A new model of a class, with its published dimensions where none are given.

    `vocab_size` and `n_tab_features` must be given. An unknown or ill-typed dimension is a ValueError.
    """
    defaults = registered(model_class).defaults
    foreign = [
        name
        for name in ("n_lstm_layers", "n_blocks", "n_heads", "block_size")
        if dimensions.get(name) is not None and name not in defaults
    ]
    if foreign:
        raise ValueError(f"{model_class} has no {', '.join(foreign)}")
    return RiskModel(ModelConfig(model_class=model_class, **{**defaults, **dimensions}))


LSTM2Risk = partial(model_select, "lstm2risk")
Transformer2Risk = partial(model_select, "transformer2risk")
