"""How images enter MiniCPM-V: a SigLIP tower reads each slice in its shape, a resampler makes a few vectors of it."""

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from mmcli.layers.resampler import Grid, Resampler, ResamplerConfig
from mmcli.layers.siglip import SiglipConfig, SiglipTower

Places = Literal["stretched", "sampled", "in a row"]
"""How a tower's table of positions, that of a square, serves slices of other shapes. "stretched": interpolated (1.0,
2.0). "sampled": a patch has the position of the cell of the square that it begins in, which spans the slice (2.6). "in
a row": likewise, but all patches are counted through as one row of the square (2.5; its published code, where it reads
slices in batches, also shows each what fills it up: here, and where it reads them one by one, nothing does)."""

PATCHES = 1 << 14  # read at once: beyond it nothing gets faster


def stretched_table(table: Tensor, grid: Grid) -> Tensor:
    """The positions of a square [side², D] interpolated to a grid [rows · columns, D], in float32.

    As timm does it (`layers/pos_embed.py`, resample_abs_pos_embed): bicubically, and antialiased where it shrinks. The
    sums are written out since PyTorch's kernel for them goes wrong where a grid is one column wide (seen in 2.14),
    unless memory is laid out as timm has it.
    """
    side = _side(table)
    if grid == (side, side):
        return table
    down, across = (_cubic_weights_on(side, count, table.device) for count in grid)
    square = table.float().unflatten(0, (side, side))
    return torch.einsum("rs,std,ct->rcd", down, square, across).flatten(0, 1).to(table.dtype)


def _cubic_weights(source: int, target: int) -> Tensor:
    """What each of `source` samples counts for each of `target` in their place: float32 [target, source].

    The kernel is Keys' (a = −1/2), widened where samples get fewer.
    """
    scale = source / target
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    far = (torch.arange(source, dtype=torch.float64) + 0.5 - centres[:, None]).abs() / max(scale, 1.0)
    near = (1.5 * far - 2.5) * far**2 + 1
    weights = torch.where(far < 1, near, (2 - far) ** 2 * (1 - far) / 2).where(far < 2, 0.0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()


@cache
def _cubic_weights_on(source: int, target: int, device: torch.device) -> Tensor:
    """`_cubic_weights`, there already where the reading of a prompt is recorded."""
    with torch.inference_mode(False):  # learning may go through them, too
        return _cubic_weights(source, target).to(device)


def sampled_cells(grid: Grid, side: int) -> Tensor:
    """The cell of a square of side² that each patch of a grid begins in, row by row: [rows · columns].

    Where a patch begins at a border, rounding decides; so its place is summed up in float32 as by the published code
    (`modeling_navit_siglip.py` of MiniCPM-V 2.6), which is not how transformers' towers of this kind do it.
    """
    borders = torch.arange(1 / side, 1.0, 1 / side)

    def cells(count: int) -> Tensor:
        begins = torch.arange(0, 1 - 1e-6, float(1 / torch.tensor(count)))
        return torch.bucketize(begins, borders, right=True)

    rows, columns = map(cells, grid)
    return (rows[:, None] * side + columns).flatten()


@cache
def _cells(grid: Grid, side: int, device: torch.device) -> Tensor:
    """`sampled_cells`, likewise."""
    with torch.inference_mode(False):
        return sampled_cells(grid, side).to(device)


def _side(table: Tensor) -> int:
    return round(len(table) ** 0.5)


class Vision(nn.Module):
    """Slices [3, height, width], each of its own shape, in [-1, 1] → their soft tokens in order [slices · Q, D]."""

    def __init__(self, tower: SiglipConfig, places: Places, resampler: ResamplerConfig):
        super().__init__()
        self.places = places
        self.patch = tower.patch_size
        self.tower = SiglipTower(tower)
        if places == "stretched":  # timm keeps a batch of one table
            self.tower.position = nn.Parameter(self.tower.position[None])
        self.resampler = Resampler(resampler)

    def forward(self, slices: tuple[Tensor, ...]) -> Tensor:
        """Slices of one shape are read together: nothing is filled up, and an image has many slices of one shape."""
        found: dict[int, Tensor] = {}
        shapes = [tuple(one.shape[1:]) for one in slices]
        for shape in dict.fromkeys(shapes):
            alike = [place for place, own in enumerate(shapes) if own == shape]
            grid = shape[0] // self.patch, shape[1] // self.patch
            at_once = max(1, PATCHES // (grid[0] * grid[1]))
            for start in range(0, len(alike), at_once):
                part = alike[start : start + at_once]
                soft = self.read(torch.stack([slices[place] for place in part]), grid)
                found |= zip(part, soft, strict=True)
        return torch.cat([found[place] for place in range(len(slices))])

    def read(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Slices of one shape [B, 3, height, width] → soft tokens [B, Q, D]."""
        vectors = self.tower.read(pixels, self.placed(grid))
        return self.resampler(vectors, [grid] * len(vectors))

    def placed(self, grid: Grid) -> Tensor:
        """The positions of a grid's patches, [P, D]."""
        table = self.tower.position.flatten(0, -2)
        if self.places == "stretched":
            return stretched_table(table, grid)
        known = grid if self.places == "sampled" else (1, grid[0] * grid[1])
        return table[_cells(known, _side(table), table.device)]
