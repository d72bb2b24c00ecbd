"""The resampler against a computation of its own in double precision, and its rules of batching."""

import math

import pytest
import torch
from torch import nn

from mmcli.layers.resampler import Resampler, ResamplerConfig, sincos_positions, stretched_positions

KINDS = {
    "OmniLMM and MiniCPM-V 1.0": {"query_grid": (2, 2), "stretched": True},
    "MiniCPM-V 2.0": {"query_grid": (2, 2)},
    "MiniCPM-V 2.6": {"query_grid": None},
}
GRIDS = [(3, 5), (2, 2), (4, 1)]


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def resampler(request) -> Resampler:
    torch.manual_seed(1)
    model = Resampler(ResamplerConfig(queries=4, width=16, heads=2, input_width=12, **request.param))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.eval().requires_grad_(False)


def patches(grids, width: int = 12, filler: float = 0.0) -> torch.Tensor:
    """Rows of patches as long as the largest grid's, with `filler` behind the smaller ones'."""
    generator = torch.Generator().manual_seed(2)
    longest = max(rows * columns for rows, columns in grids)
    x = torch.full((len(grids), longest, width), filler)
    for row, (rows, columns) in zip(x, grids, strict=True):
        row[: rows * columns] = torch.randn(rows * columns, width, generator=generator)
    return x


def place(row: int, column: int, width: int) -> list[float]:
    """The position of one place, number by number."""
    frequencies = [1 / 10_000 ** (i / (width // 4)) for i in range(width // 4)]
    return [f(at * w) for at in (column, row) for f in (math.sin, math.cos) for w in frequencies]


def by_hand(model: Resampler, x: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """One image in double precision, its attention by `nn.MultiheadAttention`."""
    config, (rows, columns) = model.config, grid
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def norm(y: torch.Tensor, name: str) -> torch.Tensor:
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return y * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    places = torch.tensor([place(i, j, config.width) for i in range(rows) for j in range(columns)], dtype=torch.double)
    if config.stretched:
        table = weights["position"].reshape(1, 2, 2, -1).permute(0, 3, 1, 2)
        places = nn.functional.interpolate(table, grid, mode="bicubic").reshape(config.width, -1).T
    x = norm(x.double() @ weights["input.weight"].T, "norm_input")
    query = norm(weights["query"], "norm_query")
    if config.query_grid:
        query = query + weights["position"]
    attention = nn.MultiheadAttention(config.width, config.heads, dtype=torch.double)
    names = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias", "out_proj.weight": "out.weight"}
    names["out_proj.bias"] = "out.bias"
    attention.load_state_dict({theirs: weights[ours] for theirs, ours in names.items()})
    y = attention(query, x + places, x)[0]
    return norm(y, "norm_out") @ weights["projection"]


@pytest.mark.parametrize("grid", GRIDS)
def test_it_equals_its_definition_in_double_precision(resampler, grid):
    x = patches([grid])
    expected = by_hand(resampler, x[0], grid).float()
    torch.testing.assert_close(resampler(x, [grid])[0], expected, rtol=1e-5, atol=1e-5)


def test_a_batch_equals_its_singles_whatever_fills_it_up(resampler):
    batch = resampler(patches(GRIDS, filler=9.0), GRIDS)
    for row, grid, x in zip(batch, GRIDS, patches(GRIDS), strict=True):
        single = resampler(x[None, : grid[0] * grid[1]], [grid])[0]
        torch.testing.assert_close(row, single, rtol=1e-5, atol=1e-5)


def test_grids_of_one_size_and_other_shapes_have_other_positions(resampler):
    x = patches([(2, 6)])
    wide, high = resampler(torch.cat((x, x)), [(2, 6), (6, 2)])
    assert not torch.allclose(wide, high, atol=1e-3)
    torch.testing.assert_close(high, resampler(x, [(6, 2)])[0], rtol=1e-5, atol=1e-5)


def test_positions_are_exact_on_large_grids():
    table = sincos_positions((70, 40), 64).reshape(70, 40, 64)
    for row, column in ((0, 0), (69, 39), (31, 7)):
        torch.testing.assert_close(table[row, column].tolist(), place(row, column, 64), rtol=1e-6, atol=1e-6)


def test_a_table_that_fits_is_not_interpolated():
    table = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(stretched_positions(table, (2, 3), (2, 3)), table)


def test_vectors_of_the_right_width_are_not_projected():
    config = ResamplerConfig(queries=4, width=16, heads=2, input_width=16, query_grid=None)
    assert not any(name.startswith("input.") for name in Resampler(config).state_dict())


def test_what_has_no_table_cannot_stretch_it():
    with pytest.raises(ValueError, match="no|none"):
        ResamplerConfig(queries=4, width=16, heads=2, input_width=16, query_grid=None, stretched=True)


def test_it_runs_in_bfloat16(resampler):
    x = patches(GRIDS)
    low = resampler.bfloat16()(x.bfloat16(), GRIDS)
    assert low.dtype == torch.bfloat16 and low.isfinite().all()
