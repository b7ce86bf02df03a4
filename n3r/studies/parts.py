"""The legacy's parts in the place of n3r's, for models that are to train as it did.

Faults and slow parts of the legacy are no options of the product; `parts_without` builds a model of them.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from n3r.kernels import BiLSTM
from n3r.model import Parts
from n3r.text import AttentionPool, TransformerBlock


class PoolOverPadding(AttentionPool):
    """The pool of the legacy's Transformer2Risk, in which padding weighs like text (defect 10)."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and (B, T) -> (B, d_out)."""
        return super().forward(tokens, torch.ones_like(mask))


class PackedLSTM(BiLSTM):
    """The legacy's kernel: packed rows, both directions in one call."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(T, B, D) and (B,) -> (T, B, 2H)."""
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), enforce_sorted=False)
        steps, sizes, *order = packed
        zero = x.new_zeros(2, x.shape[1], self.hidden_size)
        for layer in range(self.num_layers):
            if layer:
                steps = self.drop(steps)
            weights = [
                getattr(self, name)
                for name in self._all_weights[2 * layer] + self._all_weights[2 * layer + 1]
            ]
            steps = torch.lstm(steps, sizes, (zero, zero), weights, True, 1, 0.0, self.training, True)[0]
        return pad_packed_sequence(PackedSequence(steps, sizes, *order), total_length=x.shape[0])[0]


class LoopedBlock(TransformerBlock):
    """The legacy's attention: one head after the other, with a separate call for each step."""

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        mixed = []
        for head in self.qkv.weight.unflatten(0, (3, self.n_heads, -1)).transpose(0, 1):  # (3, D/h, D)
            q, k, v = F.linear(x, head.flatten(0, 1)).chunk(3, dim=2)  # (B, T, D/h) each
            score = (q @ k.transpose(1, 2) * k.shape[2] ** -0.5).masked_fill(~mask[:, 0], -torch.inf)
            mixed.append(self.drop(score.softmax(dim=2)) @ v)
        return torch.cat(mixed, dim=2)  # (B, T, D)


class OneLogit(nn.Module):
    """A head that ends in one logit z, the legacy's, given as (0, z): their softmax is its sigmoid.

    Two logits are the same function. But both rows start at random and learn, so that under Adam, whose steps
    are as long whatever the gradient, z starts wider and moves twice as far.
    """

    def __init__(self, head: nn.Module):
        super().__init__()
        *layers, last = head.net
        self.net = nn.Sequential(*layers, nn.Linear(last.in_features, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, 2)."""
        return F.pad(self.net(x), (1, 0))


PARTS: dict[str, dict[str, type[nn.Module]]] = {  # deviation that is off -> the parts in the place of n3r's
    "pool": {"pool": PoolOverPadding},
    "kernels": {"lstm": PackedLSTM, "block": LoopedBlock},
    "dropout": {"dropout": nn.Dropout},
    "logits": {"head": OneLogit},
}


def parts_without(off: Iterable[str]) -> Parts:
    """What models are built of when these deviations are off; state_dict keys stay the same."""
    return Parts(**{name: part for deviation in off for name, part in PARTS.get(deviation, {}).items()})
