"""The layers of a conformer (Gulati et al., Conformer, Interspeech 2020), on sequences [N, L, C], each without its residual."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Sequential):
    """[..., C] through `hidden` units to the same shape."""

    def __init__(self, channels: int, hidden: int, dropout: float):
        super().__init__(
            nn.LayerNorm(channels),
            nn.Linear(channels, hidden),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )


class Attention(nn.Module):
    """Multi-head self-attention between two norms; sequences do not see one another."""

    def __init__(self, channels: int, heads: int, head: int, second_norm: bool, dropout: float):
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5  # that of the full width, in a pruned model too
        inner = heads * head
        self.before, self.qkv, self.out = (
            nn.LayerNorm(channels),
            nn.Linear(channels, 3 * inner),
            nn.Linear(inner, channels),
        )
        self.after = nn.LayerNorm(channels) if second_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        if second_norm:
            nn.init.constant_(self.after.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        # [N, heads, L, C / heads] each
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.dropout(self.after(self.out(x.transpose(1, 2).flatten(2))))


class Convolution(nn.Module):
    """[N, L, C] to the same shape: gated units, a depthwise convolution along L of `kernel` positions."""

    def __init__(self, channels: int, units: int, kernel: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.layers = nn.Sequential(
            nn.Conv1d(channels, 2 * units, 1),
            nn.GLU(1),
            nn.Conv1d(units, units, kernel, padding=kernel // 2, groups=units),
            nn.BatchNorm1d(units),
            nn.SiLU(),
            nn.Conv1d(units, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.norm(x).transpose(1, 2)).transpose(1, 2)
