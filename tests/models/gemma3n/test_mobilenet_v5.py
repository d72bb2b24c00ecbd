"""What can be said of the MobileNetV5 tower without weights; tests/parity holds its numbers to timm's."""

import pytest
import torch

from mmcli.models.gemma3n.mobilenet_v5 import ChannelNorm, Conv, MobileNetV5


@pytest.fixture(scope="module")
def empty() -> MobileNetV5:
    with torch.device("meta"):
        return MobileNetV5()


def test_the_published_size(empty):
    assert sum(parameter.numel() for parameter in empty.parameters()) == 294_126_912


@pytest.mark.parametrize("side", [256, 768])
def test_shapes_of_the_maps(empty, side):
    shapes, hooks = [], []
    for part in (empty.stem, *empty.stages):  # maps in here have their channels last
        hooks.append(part.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:]))))
    grid = empty(torch.empty(1, 3, side, side, device="meta"))
    for hook in hooks:
        hook.remove()
    channels = (64, 128, 256, 640, 1280)
    assert shapes == [(side >> i, side >> i, width) for i, width in enumerate(channels, 1)]
    assert grid.shape == (1, 2048, 16, 16)


def test_the_grid_becomes_soft_tokens_without_a_copy(empty):
    grid = empty(torch.empty(2, 3, 256, 256, device="meta"))
    assert grid.flatten(2).mT.is_contiguous()


@pytest.mark.parametrize("rows, columns", [(100, 96), (96, 100), (16, 16)])
def test_sides_that_do_not_divide_are_refused(empty, rows, columns):
    with pytest.raises(ValueError, match=f"{rows} × {columns} pixels: not multiples of 32"):
        empty(torch.empty(1, 3, rows, columns, device="meta"))


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [1.0, 1e-3])  # the second is where the epsilon is half of what is divided by
def test_the_norm_equals_its_definition_by_every_way(dtype, tolerance, size):
    generator = torch.Generator().manual_seed(0)
    x = (size * torch.randn(2, 3, 4, 40, generator=generator)).to(dtype)
    norm = ChannelNorm(40).to(dtype).requires_grad_(False)
    norm.weight.copy_(1 + 0.3 * torch.randn(40, generator=generator))
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(x).double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "kernel, first, last",
    [
        (3, [0, 1, 2], [6, 7]),  # one pixel of padding: behind
        (5, [0, 1, 2, 3], [5, 6, 7]),  # three: one before, two behind
    ],
)
def test_the_odd_pixel_of_padding_goes_behind(kernel, first, last):
    conv = Conv(1, 1, kernel, stride=2).requires_grad_(False)
    conv.weight.fill_(1)
    x = torch.zeros(8, 8)
    x[0] = 2.0 ** torch.arange(8)  # which columns a pixel of the first row has seen stands in its bits
    along_columns, along_rows = (conv(plane[None, :, :, None])[0, :, :, 0] for plane in (x, x.T))
    assert along_columns[0, 0] == sum(2.0**i for i in first) and along_columns[0, -1] == sum(2.0**i for i in last)
    assert torch.equal(along_rows, along_columns.T)
