"""Text encoders `(ids, mask) -> tokens`, pools `(tokens, mask) -> vector`, and the branch made of the two.

Shapes here and in fusion.py and model.py: B rows, K chunks of a text, T tokens, D width, H hidden size of one
LSTM direction, F tabular features, C classes. `mask` is bool, True on tokens. Texts are (B, T); those
of bert.py are chunked, (B, K, T).

Decisions:
- What a row's tokens become does not depend on padding or batch-mates: the backward LSTM starts at the
  row's last token, attention and pooling see no padding, an empty row pools to zero (defects 10, 11, 14).
- Attention heads are one matrix product, not a list of eight (defect 51). The fast kernels are in
  kernels.py.
- Parts take their dropout as a layer. It has no state, so one layer serves a whole model.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from n3r.kernels import BiLSTM, attention


class Modality(NamedTuple):
    """One of the things a row is known by: as one vector, and as a sequence for attention."""

    vector: Tensor  # (B, D)
    tokens: Tensor  # (B, S, D'): tokens of a text, or a token a tabular feature
    mask: Tensor  # (B, S)


class LSTMEncoder(nn.Module):
    """The text branch of the legacy LSTM2Risk: embedding and a stacked bidirectional LSTM."""

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        n_layers: int,
        drop: nn.Module,
        lstm: type[BiLSTM] = BiLSTM,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.lstm = lstm(embedding_size, hidden_size, n_layers, drop)
        self.d_out = 2 * hidden_size

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) and (B, T) -> (B, T, 2H)."""
        x = self.embedding(ids.T)  # (T, B, D): the fused kernel's own layout
        x = self.lstm(x, mask.sum(dim=1))  # (T, B, 2H)
        return x.transpose(0, 1)  # (B, T, 2H)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual connection."""

    def __init__(self, d: int, n_heads: int, drop: nn.Module):
        super().__init__()
        self.n_heads = n_heads
        self.drop = drop
        self.norm1 = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)  # rows: all heads' q, then k, then v
        self.proj = nn.Linear(d, d)
        self.norm2 = nn.LayerNorm(d)
        # Dropout before the ReLU is dropout after it, and what the ReLU keeps then serves the next layer too.
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), drop, nn.ReLU(), nn.Linear(4 * d, d))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and (B, 1, 1, T) -> (B, T, D)."""
        x = x + self.drop(self.proj(self._attend(self.norm1(x), mask)))
        return x + self.drop(self.ffn(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, h, T, D/h)
        return attention(qkv, mask, self.drop).transpose(1, 2).flatten(2)  # (B, T, D)


class TransformerEncoder(nn.Module):
    """The text branch of the legacy Transformer2Risk: token and position embeddings, then blocks.

    NOTE[DIFF] without its `tab_layer`, a layer of 25,856 weights that nothing reads (defect 18).
    """

    def __init__(
        self,
        vocab_size: int,
        d: int,
        n_blocks: int,
        n_heads: int,
        block_size: int,
        drop: nn.Module,
        block: type[TransformerBlock] = TransformerBlock,
    ):
        super().__init__()
        if d % n_heads:
            raise ValueError(f"embedding_size {d} is not a multiple of n_heads {n_heads}")
        self.embedding = nn.Embedding(vocab_size, d)
        self.position = nn.Embedding(block_size, d)
        self.blocks = nn.ModuleList(block(d, n_heads, drop) for _ in range(n_blocks))
        self.d_out = d

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) and (B, T) -> (B, T, D); ValueError when T is over the block size."""
        n_tokens, block_size = ids.shape[1], self.position.num_embeddings
        if n_tokens > block_size:
            raise ValueError(f"texts of {n_tokens} tokens; this model reads {block_size}: cut them")
        x = self.embedding(ids) + self.position.weight[:n_tokens]  # (B, T, D)
        # An empty row looks at its first pad, so that its softmax is not 0 / 0; the pool ignores it.
        first = torch.arange(n_tokens, device=ids.device) == 0
        seen = (mask | (first & ~mask.any(dim=1, keepdim=True)))[:, None, None, :]  # (B, 1, 1, T)
        for block in self.blocks:
            x = block(x, seen)
        return x


class CNNEncoder(nn.Module):
    """Stacked convolutions of several widths over the tokens, side by side.

    NOTE[DIFF] the published TextCNN pools between its layers and ends in a pool of one fixed length, which
    no shorter text survives (defect 21). Here each layer keeps one output a token, and only `MaxPool` pools.
    """

    def __init__(self, vocab_size: int, embedding_size: int, kernel_sizes: list[int], n_channels: list[int]):
        super().__init__()
        if any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes {kernel_sizes} must be odd, to have a token in the middle")
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        widths = list(zip([embedding_size, *n_channels], n_channels, strict=False))
        self.branches = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(d_in, d, size, padding="same") for d_in, d in widths)
            for size in kernel_sizes
        )
        self.d_out = n_channels[-1] * len(kernel_sizes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) and (B, T) -> (B, T, D)."""
        inside = mask[:, None, :]  # (B, 1, T)
        embedded = self.embedding(ids).transpose(1, 2)  # (B, D, T)
        out = []
        for convolutions in self.branches:
            x = embedded
            for convolution in convolutions:
                # Padding is made zero before each layer: what lies beyond a text's end is nothing.
                x = convolution(x.masked_fill(~inside, 0)).relu()
            out.append(x)
        return torch.cat(out, dim=1).transpose(1, 2)  # (B, T, D)


class AttentionPool(nn.Module):
    """A row's tokens averaged by learned weights, then normalised or projected to `d_out`."""

    def __init__(self, d: int, d_out: int | None = None):
        super().__init__()
        self.attention = nn.Linear(d, 1)
        if d_out is None:
            self.norm = nn.LayerNorm(d)
        else:
            self.proj = nn.Linear(d, d_out)
        self.d_out = d_out or d

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and (B, T) -> (B, d_out).

        NOTE[DIFF] the legacy Transformer2Risk pools over padding too, so that a row's score changes with
        the longest text of its batch (0.63 alone, 0.69 beside a long one); here padding weighs nothing.
        """
        score = self.attention(tokens).squeeze(2).float()  # (B, T)
        weight = score.masked_fill(~mask, torch.finfo(score.dtype).min).softmax(dim=1)
        weight = (weight * mask).to(tokens.dtype)
        # Padded positions hold undefined values and 0 x inf is no 0.
        tokens = tokens.masked_fill(~mask[:, :, None], 0)
        pooled = (weight[:, None, :] @ tokens).squeeze(1)  # (B, D)
        return self.proj(pooled) if hasattr(self, "proj") else self.norm(pooled)  # (B, d_out)


class EndsPool(nn.Module):
    """What a bidirectional LSTM knew at the ends: forward at a row's last token, backward at its first.

    NOTE[DIFF] the published TextLSTM reads the batch's last step, padding for most rows (defect 21).
    """

    def __init__(self, d: int):
        super().__init__()
        self.d_out = d

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 2H) and (B, T) -> (B, 2H); zeros for an empty row."""
        last = (mask.sum(dim=1) - 1).clamp(min=0)  # (B,)
        last = last[:, None, None].expand(-1, 1, self.d_out)  # (B, 1, 2H)
        ahead = tokens.gather(1, last)[:, 0, : self.d_out // 2]  # (B, H)
        ends = torch.cat([ahead, tokens[:, 0, self.d_out // 2 :]], dim=1)  # (B, 2H)
        return ends.masked_fill(~mask.any(dim=1, keepdim=True), 0)


class MaxPool(nn.Module):
    """The largest value of each channel over a row's tokens, then dropout and a projection."""

    def __init__(self, d: int, d_out: int, drop: nn.Module):
        super().__init__()
        self.drop = drop
        self.proj = nn.Linear(d, d_out)
        self.d_out = d_out

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and (B, T) -> (B, d_out)."""
        # Tokens come from a ReLU: 0 is their least value, and what an empty row pools to.
        x = tokens.masked_fill(~mask[:, :, None], 0).amax(dim=1)  # (B, D)
        return self.proj(self.drop(x))  # (B, d_out)


class TextBranch(nn.Module):
    """An encoder and a pool: a text's ids to its `Modality`."""

    def __init__(self, encoder: nn.Module, pool: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.pool = pool
        self.d_out, self.d_tokens = pool.d_out, encoder.d_out

    def start_from(self, embeddings: Tensor) -> None:
        """Take word embeddings (V, D), of as many tokens as the encoder knows; ValueError for other sizes."""
        weight = self.encoder.embedding.weight
        n_tokens, d = weight.shape
        if n_tokens > len(embeddings) or d != embeddings.shape[1]:
            raise ValueError(
                f"word embeddings of {len(embeddings)} tokens, {embeddings.shape[1]} wide, for a model of "
                f"{n_tokens} tokens, {d} wide: leave its vocab_size and embedding_size out"
            )
        with torch.no_grad():
            weight.copy_(embeddings[:n_tokens])

    def forward(self, ids: Tensor, mask: Tensor) -> Modality:
        """(B, T) or (B, K, T) ids and mask -> vector (B, d_out), tokens (B, T or K * T, d_tokens), mask."""
        tokens = self.encoder(ids, mask)
        return Modality(self.pool(tokens, mask), tokens.flatten(1, -2), mask.flatten(1))
