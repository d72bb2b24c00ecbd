"""A resampler: learned queries read a tower's patches by one cross-attention and become soft tokens.

Read from OpenBMB/MiniCPM-V `omnilmm/model/resampler.py` (OmniLMM and MiniCPM-V 1.0) and from vLLM
`model_executor/models/minicpmv.py` (MiniCPM-V 2.0 and later); the idea is Qwen-VL's (arXiv:2308.12966).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WAVELENGTHS = 10_000.0  # ratio of the longest to the shortest, as in the Transformer

Grid = tuple[int, int]  # rows and columns of patches


@dataclass(frozen=True)
class ResamplerConfig:
    """Sizes, and which of three ways of marking positions a checkpoint was trained with."""

    queries: int  # soft tokens of one image
    width: int  # D: of queries and soft tokens
    heads: int
    input_width: int  # of the tower's vectors
    query_grid: Grid | None
    """The queries lie on this grid and have a stored table of positions. None: they have no positions."""
    stretched: bool = False
    """The patches' positions are the queries' table, stretched over the patch grid; else those of the grid itself."""
    norm_epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.stretched and self.query_grid is None:
            raise ValueError("without a table of positions there is none to stretch")


def sincos_positions(grid: Grid, width: int, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of a grid's places, row by row: float32 [rows · columns, width].

    The first half of each vector tells the column and the second the row: sines of it, then cosines, at `width` / 4
    frequencies. `width` is a multiple of 4.
    """
    rows, columns = grid
    exponent = torch.arange(width // 4, device=device, dtype=torch.float64) / (width // 4)
    frequency = WAVELENGTHS**-exponent

    def along(length: int) -> Tensor:  # [length, width / 2]
        angles = torch.arange(length, device=device, dtype=torch.float64)[:, None] * frequency
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

    across = along(columns).expand(rows, -1, -1)
    down = along(rows)[:, None].expand(-1, columns, -1)
    return torch.cat((across, down), dim=-1).flatten(0, 1).float()


def stretched_positions(table: Tensor, source: Grid, grid: Grid) -> Tensor:
    """A table of `source`'s places [rows · columns, D] interpolated to another grid, bicubically, in float32."""
    if source == grid:
        return table.float()
    field = table.float().unflatten(0, source).permute(2, 0, 1)[None]
    return F.interpolate(field, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T


class Resampler(nn.Module):
    """Patches [B, P, C] → soft tokens [B, Q, D]."""

    def __init__(self, config: ResamplerConfig):
        super().__init__()
        self.config = config
        width = config.width

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=config.norm_epsilon)

        self.query = nn.Parameter(torch.zeros(config.queries, width))
        if config.query_grid is not None:
            self.position = nn.Parameter(torch.zeros(config.queries, width))
        same = config.input_width == width
        self.input = nn.Identity() if same else nn.Linear(config.input_width, width, bias=False)
        self.norm_query, self.norm_input, self.norm_out = norm(), norm(), norm()
        self.qkv = nn.Linear(width, 3 * width)  # of queries, keys and values, as checkpoints store them: in one
        self.out = nn.Linear(width, width)
        self.projection = nn.Parameter(torch.zeros(width, width))  # [from, to]

    def forward(self, x: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Row b of `x` holds the patches of a grid of `grids[b]`, row by row, and behind them whatever fills it up."""
        keys, valid = self._positions(x, grids)
        x = self.norm_input(self.input(x))
        query = self.norm_query(self.query)
        if self.config.query_grid is not None:
            query = query + self.position.to(query.dtype)
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        parts = (query[None], x + keys, x)
        q, k, v = (self._split(F.linear(*part)) for part in zip(parts, weights, biases, strict=True))
        q = q.expand(len(x), -1, -1, -1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=valid).transpose(1, 2).flatten(2)
        return self.norm_out(self.out(y)) @ self.projection

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.config.heads, -1)).transpose(1, 2)

    def _positions(self, x: Tensor, grids: Sequence[Grid]) -> tuple[Tensor, Tensor | None]:
        """The patches' positions [1 or B, P, D], and which patches may be read [B, 1, 1, P] (None: all)."""
        tables = {grid: self._grid_positions(grid, x.device) for grid in dict.fromkeys(grids)}
        if len(tables) == 1 and len(tables[grids[0]]) == x.shape[1]:
            return tables[grids[0]].to(x.dtype)[None], None
        positions = torch.stack([F.pad(tables[grid], (0, 0, 0, x.shape[1] - len(tables[grid]))) for grid in grids])
        lengths = torch.tensor([rows * columns for rows, columns in grids], device=x.device)
        valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        return positions.to(x.dtype), valid[:, None, None]

    def _grid_positions(self, grid: Grid, device: torch.device) -> Tensor:
        source = self.config.query_grid
        if source is None or not self.config.stretched:
            return sincos_positions(grid, self.config.width, device)
        return stretched_positions(self.position, source, grid)


# Names of a published resampler's tensors → ours, both behind a prefix.
RESAMPLER_TENSORS = {
    "query": "query",
    "pos_embed": "position",
    "kv_proj.weight": "input.weight",
    "ln_q.{}": "norm_query.{}",
    "ln_kv.{}": "norm_input.{}",
    "ln_post.{}": "norm_out.{}",
    "attn.in_proj_weight": "qkv.weight",
    "attn.in_proj_bias": "qkv.bias",
    "attn.out_proj.{}": "out.{}",
    "proj": "projection",
}
