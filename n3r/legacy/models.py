"""The legacy's two networks, written anew with behaviour kept.

Decisions:
- state_dict keys and shapes are the published ones, so a `model_{epoch}.pt` of the legacy loads.
- Slowness and faults stay where a score or a timing depends on them; such a line says `Kept:` with the
  defect's number.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Batch = dict[str, Tensor]


@dataclass(kw_only=True)
class LegacyConfig:
    """Sizes that both models have."""

    hidden_size: int
    dropout_rate: float = 0.2
    n_tab_features: int = 100
    n_embed: int = 4000


@dataclass(kw_only=True)
class LegacyLSTMConfig(LegacyConfig):
    """Sizes of LegacyLSTM2Risk, with the published defaults."""

    embedding_size: int = 16
    hidden_size: int = 128
    n_lstm_layers: int = 4


@dataclass(kw_only=True)
class LegacyTransformerConfig(LegacyConfig):
    """Sizes of LegacyTransformer2Risk, with the published defaults."""

    embedding_size: int = 128
    hidden_size: int = 256
    n_blocks: int = 8
    n_heads: int = 8
    block_size: int = 100


def _relu(dropout: float) -> list[nn.Module]:
    return [nn.ReLU(), nn.Dropout(dropout)]


class _AttentionPool(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, 1)

    def forward(self, steps: Tensor, keep: Tensor | None = None) -> Tensor:
        score = self.attention(steps)  # (B, T, 1)
        if keep is not None:
            score = score.masked_fill(~keep.unsqueeze(-1), float("-inf"))
        return (score.softmax(dim=1) * steps).sum(dim=1)  # (B, D)


class _Residual(nn.ModuleDict):
    """x + layers(x), the layers under the one name that the published keys give them."""

    def forward(self, x: Tensor) -> Tensor:
        (layers,) = self.values()
        return x + layers(x)


class LegacyModel(nn.Module):
    """What both models share: a text and a tabular branch of width 2H, joined, then `net`."""

    def __init__(self, config: LegacyConfig, text: nn.Module, net: list[nn.Module]) -> None:
        super().__init__()
        n_tab, width, drop = config.n_tab_features, 2 * config.hidden_size, config.dropout_rate
        self.config, self.text_projection, self.net = config, text, nn.Sequential(*net)
        # Kept: in training, batch normalisation refuses a last batch of one row (defect 23).
        tab = [nn.BatchNorm1d(n_tab), nn.Linear(n_tab, width), *_relu(drop)]
        tab += [nn.Linear(width, width), nn.LayerNorm(width), *_relu(drop)]
        self.tab_projection = nn.Sequential(*tab)

    def forward(self, batch: Batch) -> Tensor:
        batch = {key: value.to(self.net[-2].weight.device) for key, value in batch.items()}
        both = [self.text_projection(batch), self.tab_projection(batch["tabular"])]  # (B, 2H) each
        return self.net(torch.cat(both, dim=-1))  # (B, 1)


class _LSTMText(nn.Module):
    def __init__(self, config: LegacyLSTMConfig) -> None:
        super().__init__()
        self.token_embedding_table = nn.Embedding(config.n_embed, config.embedding_size)
        sizes = config.embedding_size, config.hidden_size, config.n_lstm_layers
        between = config.dropout_rate if config.n_lstm_layers > 1 else 0.0  # one layer has no between
        self.lstm = nn.LSTM(*sizes, batch_first=True, bidirectional=True, dropout=between)
        self.lstm_pooling = _AttentionPool(2 * config.hidden_size)
        self.lstm_norm = nn.LayerNorm(2 * config.hidden_size)

    def forward(self, batch: Batch) -> Tensor:
        steps = self.token_embedding_table(batch["text"])  # (B, T, E)
        if "text_length" not in batch:
            return self.lstm_norm(self.lstm_pooling(self.lstm(steps)[0]))
        # Kept: raises on lengths out of descending order and on an empty text (defects 11, 14).
        packed = pack_padded_sequence(steps, batch["text_length"].cpu(), batch_first=True)
        steps, length = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        keep = (torch.arange(steps.shape[1]) < length[:, None]).to(steps.device)  # (B, T)
        return self.lstm_norm(self.lstm_pooling(steps, keep))  # (B, T, 2H) -> (B, 2H)


class LegacyLSTM2Risk(LegacyModel):
    """Packed bi-LSTM over the text beside a tabular branch: batch -> (B, 1) probability."""

    def __init__(self, config: LegacyLSTMConfig) -> None:
        hidden, width, drop = config.hidden_size, 4 * config.hidden_size, config.dropout_rate
        net: list[nn.Module] = []
        for _ in range(3):
            ffwd = nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
            net += [_Residual({"ffwd": nn.Sequential(nn.LayerNorm(width), *ffwd)}), *_relu(drop)]
        net += [nn.Linear(width, hidden), *_relu(drop), nn.Linear(hidden, 1), nn.Sigmoid()]
        super().__init__(config, _LSTMText(config), net)


class _Block(nn.Module):
    def __init__(self, width: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        qkv = [nn.Linear(width, 3 * (width // n_heads), bias=False) for _ in range(n_heads)]
        heads = nn.ModuleList(nn.ModuleDict({"qkv": linear}) for linear in qkv)
        self.sa = nn.ModuleDict({"heads": heads, "proj": nn.Linear(width, width)})
        net = [nn.Linear(width, 4 * width), *_relu(dropout), nn.Linear(4 * width, width), self.drop]
        self.ffwd = nn.ModuleDict({"net": nn.Sequential(*net)})
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        x = x + self._attend(self.ln1(x), keep)
        return x + self.ffwd["net"](self.ln2(x))  # (B, T, D)

    def _attend(self, x: Tensor, keep: Tensor) -> Tensor:
        mixed = []
        for head in self.sa["heads"]:  # Kept: a loop, 1.9 times as slow as fused heads (defect 51).
            query, key, value = head["qkv"](x).chunk(3, dim=-1)  # (B, T, D / n_heads) each
            score = query @ key.transpose(1, 2) * key.shape[-1] ** -0.5  # (B, T, T)
            # Kept: an empty text masks every key, and its score becomes NaN (defect 14).
            weight = score.masked_fill(~keep[:, None, :], float("-inf")).softmax(dim=-1)
            mixed.append(self.drop(weight) @ value)
        return self.drop(self.sa["proj"](torch.cat(mixed, dim=-1)))  # (B, T, D)


class _TransformerText(nn.Module):
    def __init__(self, config: LegacyTransformerConfig) -> None:
        super().__init__()
        width, block = config.embedding_size, (config.n_heads, config.dropout_rate)
        self.token_embedding_table = nn.Embedding(config.n_embed, width)
        self.position_embedding_table = nn.Embedding(config.block_size, width)
        self.blocks = nn.ModuleList(_Block(width, *block) for _ in range(config.n_blocks))
        # Kept: never called; 25,856 of the published parameters (defect 18).
        self.tab_layer = nn.Linear(config.n_tab_features, config.hidden_size)
        self.attention_pooling = _AttentionPool(width)
        self.proj = nn.Linear(width, 2 * config.hidden_size)

    def forward(self, batch: Batch) -> Tensor:
        text, keep = batch["text"], batch["attn_mask"]  # (B, T)
        position = torch.arange(text.shape[1], device=text.device)
        steps = self.token_embedding_table(text) + self.position_embedding_table(position)
        for block in self.blocks:
            steps = block(steps, keep)  # (B, T, D)
        # Kept: the pool gets no mask, so padding, and with it the batch, moves a score (defect 10).
        return self.proj(self.attention_pooling(steps))  # (B, 2H)


class LegacyTransformer2Risk(LegacyModel):
    """Transformer over the text beside a tabular branch: batch -> (B, 1) probability."""

    def __init__(self, config: LegacyTransformerConfig) -> None:
        width, drop = 4 * config.hidden_size, config.dropout_rate
        net: list[nn.Module] = []
        for _ in range(4):
            ffwd = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.Dropout(drop)
            net += [_Residual({"net": nn.Sequential(*ffwd)}), *_relu(drop)]
        net += [nn.Linear(width, 1), nn.Sigmoid()]
        super().__init__(config, _TransformerText(config), net)
