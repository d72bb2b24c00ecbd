"""The SigLIP tower on images of any shape: patches of a grid of any size, with positions made to fit it."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcli.layers.siglip import Layer, SiglipConfig

Grid = tuple[int, int]  # rows and columns of patches

Positions = Literal["stretched", "sampled", "sampled in a row"]
"""How the table of positions, that of a square, serves other grids. Stretched: interpolated, as timm does it. Sampled:
every patch has the position of the table's cell that it lies in, each taken to span the image (NaViT's fractional
positions, arXiv:2307.06304, as in Idefics2). In a row: likewise, with all patches counted through as one row."""

PATCHES = 1 << 14  # read at once: beyond it nothing gets faster


def stretched_table(table: Tensor, grid: Grid) -> Tensor:
    """The positions of a square [side², D] interpolated to a grid [rows · columns, D], bicubically, in float32.

    Source: timm `layers/pos_embed.py` (resample_abs_pos_embed), which antialiases.
    """
    side = _side(table)
    if grid == (side, side):
        return table
    square = table.float().unflatten(0, (side, side)).permute(2, 0, 1)[None]
    field = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
    return field[0].flatten(1).T.to(table.dtype)


def sampled_rows(side: int, grid: Grid) -> Tensor:
    """The rows of a square's table that the patches of a grid have: [rows · columns].

    Source: transformers 4.40 `models/idefics2/modeling_idefics2.py`; the numbers are rounded to float32 as there, which
    decides between two cells where a patch begins at a border.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)

    def cells(count: int) -> Tensor:
        begins = torch.arange(0, 1 - 1e-6, float(1 / torch.tensor(count)))
        return torch.bucketize(begins, borders, right=True)

    rows, columns = map(cells, grid)
    return (rows[:, None] * side + columns).flatten()


def _side(table: Tensor) -> int:
    return round(len(table) ** 0.5)


class SiglipGridTower(nn.Module):
    """Images as patches, of any grids → one vector a patch, after the final norm.

    `config.image_size` is the side in pixels of the square that the table of positions belongs to.
    """

    def __init__(self, config: SiglipConfig, positions: Positions):
        super().__init__()
        self.config = config
        self.positions = positions
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.position = nn.Parameter(torch.zeros(config.patches, config.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, patches: Tensor, grid: Grid) -> Tensor:
        """Images of one grid [B, P, 3 · patch · patch], numbers in the order (channel, row, column) → [B, P, D]."""
        x = F.linear(patches, self.patch.weight.flatten(1), self.patch.bias) + self._placed(grid)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def _placed(self, grid: Grid) -> Tensor:
        """What tells the patches of a grid their places, [P, D]."""
        if self.positions == "stretched":
            return stretched_table(self.position, grid)
        rows, columns = grid
        known = grid if self.positions == "sampled" else (1, rows * columns)
        return self.position[sampled_rows(_side(self.position), known).to(self.position.device)]


def by_grid(read: Callable[[Tensor, Grid], Tensor], images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Read images [P, C], each of its own grid, in batches of one grid each → what came of each, in their order.

    So nothing is filled up and nothing masked: images that are cut have many slices of one grid.
    """
    found: dict[int, Tensor] = {}
    for grid in dict.fromkeys(grids):
        places = [place for place, own in enumerate(grids) if own == grid]
        at_once = max(1, PATCHES // (grid[0] * grid[1]))
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            found |= zip(part, read(torch.stack([images[place] for place in part]), grid), strict=True)
    return [found[place] for place in range(len(images))]
