"""How a row's text and tabular vectors become one: `(tokens, mask, text, tabular) -> (B, D)`."""

import torch
from torch import Tensor, nn


class Concat(nn.Module):
    """Text and tabular vectors side by side; the text alone when there are no tabular features."""

    def __init__(self, d_text: int, d_tabular: int):
        super().__init__()
        self.d_out = d_text + d_tabular

    def forward(self, tokens: Tensor, mask: Tensor, text: Tensor, tabular: Tensor | None) -> Tensor:
        """(B, T, D), (B, T), (B, d_text), (B, d_tabular) -> (B, d_text + d_tabular)."""
        return text if tabular is None else torch.cat([text, tabular], dim=1)
