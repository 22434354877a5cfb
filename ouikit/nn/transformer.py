"""A small Transformer encoder that reads an image row by row; its gates are the ReLUs of the FFNs."""

import torch
from torch import Tensor, nn

ROWS = 8


def row_transformer(classes: int, in_channels: int) -> nn.Module:
    """Two pre-norm blocks on 8 tokens, one per row of pixels; 2 gates, whose patterns are [B, 8, 128].

    32 features, 4 heads, FFN of 128 units, learned positions, no dropout; a last norm, the mean over the
    tokens, a linear classifier. Images of another size are averaged to 8 × 8 first. Sizes: inferred for
    arXiv 2602.08333.
    """
    return RowTransformer(classes, in_channels, width=32, heads=4, hidden=128, depth=2)


class RowTransformer(nn.Module):
    """Images float32 [B, in_channels, H, W] → logits [B, classes].

    Args:
        classes, in_channels: of the images.
        width: features of a token, a multiple of `heads`.
        heads: of each attention.
        hidden: ReLU units of each FFN.
        depth: number of blocks.
    """

    def __init__(
        self, classes: int, in_channels: int, *, width: int, heads: int, hidden: int, depth: int
    ) -> None:
        super().__init__()
        self.shrink = nn.AdaptiveAvgPool2d(ROWS)
        self.embed = nn.Linear(in_channels * ROWS, width)
        self.positions = nn.Parameter(0.02 * torch.randn(ROWS, width))
        self.blocks = nn.Sequential(*[Block(width, heads, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = self.shrink(images).transpose(1, 2).flatten(2)  # [B, row, channel · column]
        tokens: Tensor = self.blocks(self.embed(rows) + self.positions)
        logits: Tensor = self.classify(self.norm(tokens).mean(1))
        return logits


class Block(nn.Module):
    """Self-attention and a ReLU FFN, each normalised before and added to its input: [B, T, width] → same."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.before_attention(tokens)
        tokens = tokens + self.attention(x, x, x, need_weights=False)[0]
        mixed: Tensor = tokens + self.ffn(tokens)
        return mixed
