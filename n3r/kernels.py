"""What makes the networks fast on a CPU: dropout masks, the LSTM, attention in training, kept memory.

Shapes are those of text.py, N is B * n_heads.

Decisions:
- The bidirectional LSTM runs each direction through torch's fused kernel on padded batches. Packed
  sequences compute the same but fall back to a loop on a CPU: benchmarks/train.py has the ratio.
- Dropout masks are cut from random 64-bit integers, eight per draw: drawing one Bernoulli number per
  element, on one thread, took 11 % of LSTM2Risk's training step. They are kept as bytes, where autograd
  would keep numbers.
- In training on a CPU attention has its own gradient, which processes the rows in parts that fit the cache.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # else the CPU has no LSTM in it
PART = 2**20  # attention weights that are computed at a time
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers them
MiB = 1024**2
KEPT = {M_MMAP_THRESHOLD: 1024 * MiB, M_TRIM_THRESHOLD: 2047 * MiB}
USUAL = {M_MMAP_THRESHOLD: 32 * MiB, M_TRIM_THRESHOLD: 64 * MiB}  # what glibc settles on by itself


class Dropout(nn.Module):
    """Dropout at a rate rounded to 1/256, so that a mask element costs one random byte.

    NOTE[DIFF] the legacy draws a Bernoulli number an element, at the exact rate.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.p = rate
        self.cut = min(round(256 * rate), 255)  # of 256 byte values, those that drop

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape; kept elements are scaled to keep the mean."""
        if not self.training or not self.cut:
            return x
        if x.is_cuda:  # where drawing is parallel
            return F.dropout(x, self.cut / 256)
        return _Dropped.apply(x, _kept(x.shape, self.cut), 256 / (256 - self.cut))


def _kept(shape: torch.Size, cut: int) -> Tensor:
    """int8, 0 in `cut` of 256 places and 1 in the others, drawn from torch's random state."""
    noise = torch.empty(-(-shape.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    # Compared in place: a comparison that writes Booleans takes twenty times as long.
    return noise.view(torch.int8)[: shape.numel()].view(shape).ge_(cut - 128)


class _Dropped(torch.autograd.Function):
    """`x * keep * scale`, which keeps a byte an element for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return keep.to(x.dtype).mul_(scale).mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        [keep] = ctx.saved_tensors
        return keep.to(d_out.dtype).mul_(ctx.scale).mul_(d_out), None, None


class BiLSTM(nn.LSTM):
    """Bidirectional LSTM over padded rows, equal to `nn.LSTM` over packed ones.

    NOTE[DIFF] the legacy packs rows, and its Transformer loops over the heads: the same numbers, slower.
    """

    def __init__(self, d_in: int, hidden_size: int, n_layers: int, drop: nn.Module):
        dropout = drop.p if n_layers > 1 else 0.0
        super().__init__(d_in, hidden_size, n_layers, dropout=dropout, bidirectional=True)
        self.drop = drop

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(T, B, D) and (B,) -> (T, B, 2H); values at padded positions are undefined."""
        if x.is_cuda:  # cuDNN's packed kernel is the fast one there
            packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
            return pad_packed_sequence(super().forward(packed)[0], total_length=x.shape[0])[0]
        order = _reversal(lengths, x.shape[0])  # (T * B,); a trace would freeze len(x)
        for layer in range(self.num_layers):
            if layer:
                x = self.drop(x)
            ahead = self._run(x, f"l{layer}")
            behind = self._run(_reordered(x, order), f"l{layer}_reverse")
            x = torch.cat([ahead, _reordered(behind, order)], dim=2)  # (T, B, 2H)
        return x

    def _run(self, x: Tensor, name: str) -> Tensor:
        """One layer in one direction: (T, B, D) -> (T, B, H)."""
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self, f"{part}_{name}") for part in parts]
        if torch.is_autocast_enabled("cpu") and not BFLOAT16:
            with torch.autocast("cpu", enabled=False):
                return self._layer(x.float(), weights)
        return self._layer(x, weights)

    def _layer(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        zero = x.new_zeros(1, x.shape[1], self.hidden_size)
        return torch.lstm(x, (zero, zero), weights, True, 1, 0.0, self.training, False, False)[0]


def _reversal(lengths: Tensor, n_tokens: int) -> Tensor:
    """(T * B,) places that read each row's tokens backwards and leave its padding in place."""
    step = torch.arange(n_tokens, device=lengths.device)[:, None]  # (T, 1)
    place = torch.where(step < lengths, lengths - 1 - step, step)  # (T, B)
    n_rows = lengths.shape[0]
    return (place * n_rows + torch.arange(n_rows, device=lengths.device)).flatten()


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    """(T, B, D) with its T * B vectors in another order, which undoes itself."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Reordered.apply(x, order)
    return x.flatten(0, 1)[order].view(x.shape)


class _Reordered(torch.autograd.Function):
    """The way back is the same reading; autograd would sum a gradient for each vector's place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.flatten(0, 1)[order].view_as(x)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None]:
        [order] = ctx.saved_tensors
        return d_out.flatten(0, 1)[order].view_as(d_out), None


def attention(qkv: Tensor, mask: Tensor, drop: nn.Module) -> Tensor:
    """`dropout(softmax(q k^T / sqrt(d))) v`: (3, B, h, T, d) and (B, 1, 1, T) -> (B, h, T, d)."""
    if drop.training and not qkv.is_cuda and isinstance(drop, Dropout):  # torch's own draws on one thread
        _, n_rows, n_heads, *_ = qkv.shape
        bias = torch.zeros_like(mask, dtype=qkv.dtype).masked_fill(~mask, -torch.inf)
        bias = bias.expand(-1, n_heads, -1, -1).flatten(0, 1)  # (N, 1, T)
        return _Attention.apply(qkv.flatten(1, 2), bias, drop.cut).unflatten(0, (n_rows, -1))
    p = drop.p if drop.training else 0.0
    return F.scaled_dot_product_attention(*qkv, attn_mask=mask, dropout_p=p)


class _Attention(torch.autograd.Function):
    """`dropout(softmax(q k^T / sqrt(d) + bias)) v` for N rows' heads, softmax in float32 or finer.

    For the way back it keeps the weights (N, T, T) and the mask as bytes; autograd would keep the dropped
    weights as well, and the mask as numbers.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, bias: Tensor, cut: int) -> Tensor:
        """(3, N, T, d), (N, 1, T) and the share of 256 that is dropped -> (N, T, d)."""
        _, n, n_tokens, d = qkv.shape
        weights = qkv.new_empty(n, n_tokens, n_tokens)
        keep = torch.empty_like(weights, dtype=torch.int8)
        out = torch.empty_like(qkv[0])
        ctx.cut, ctx.parts = cut, list(_parts(n, n_tokens))
        with torch.autocast("cpu", enabled=False):
            for part in ctx.parts:
                q, k, v = qkv[:, part]
                scores = torch.baddbmm(bias[part], q, k.mT, alpha=d**-0.5)
                weights[part] = scores.softmax(-1, torch.promote_types(scores.dtype, torch.float32))
                keep[part] = _kept(scores.shape, cut)
                dropped = torch.mul(weights[part], keep[part].to(qkv.dtype), out=scores)
                torch.bmm(dropped, v, out=out[part])
        ctx.save_for_backward(qkv, weights, keep)
        return out.mul_(256 / (256 - cut))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, None, None]:
        qkv, weights, keep = ctx.saved_tensors
        d_out = d_out * (256 / (256 - ctx.cut))
        d_qkv = torch.empty_like(qkv)
        with torch.autocast("cpu", enabled=False):
            for part in ctx.parts:
                q, k, v = qkv[:, part]
                d_q, d_k, d_v = d_qkv[:, part]
                p, kept = weights[part], keep[part].to(qkv.dtype)
                d_p = torch.bmm(d_out[part], v.mT).mul_(kept)
                d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)
                torch.bmm(d_scores, k, out=d_q)
                torch.bmm(d_scores.mT, q, out=d_k)
                torch.bmm(kept.mul_(p).mT, d_out[part], out=d_v)
        d_qkv[:2] *= qkv.shape[-1] ** -0.5
        return d_qkv, None, None


def _parts(n: int, n_tokens: int) -> Iterator[slice]:
    """Slices of n rows of T x T weights, each of some `PART` weights."""
    size = max(1, PART // n_tokens**2)
    return (slice(start, start + size) for start in range(0, n, size))


@contextmanager
def keep_memory() -> Iterator[None]:
    """Inside it, freed memory stays with the process; at the end it returns to the system.

    glibc returns each large tensor to the system when it is freed, and the next one is then filled with
    zeros page by page: a third of a training step. Other C libraries are left as they are.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        yield
        return
    _set_thresholds(library, KEPT)
    try:
        yield
    finally:
        _set_thresholds(library, USUAL)
        library.malloc_trim(0)


def _set_thresholds(library: ctypes.CDLL, thresholds: dict[int, int]) -> None:
    for name, value in thresholds.items():
        library.mallopt(name, value)
