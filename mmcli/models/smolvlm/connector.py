"""From patches to soft tokens: neighbouring patches side by side, then one linear layer."""

from torch import Tensor, nn


def put_together(x: Tensor, scale: int) -> Tensor:
    """Squares of scale × scale patches as one vector each: [B, P, D] → [B, P / scale², scale² · D].

    The patches are those of a square grid, row by row, and so are the results; within one, its patches too. (Pixel
    shuffle, arXiv:1609.05158, backwards.)
    """
    count = round(x.shape[1] ** 0.5) // scale
    x = x.view(len(x), count, scale, count, scale, -1).transpose(2, 3)
    return x.reshape(len(x), count * count, -1)


class Connector(nn.Module):
    """Patches [B, P, tower's width] → soft tokens [B, P / scale², D]."""

    def __init__(self, patch_width: int, scale: int, width: int):
        super().__init__()
        self.scale = scale
        self.projection = nn.Linear(patch_width * scale**2, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(put_together(x, self.scale))
