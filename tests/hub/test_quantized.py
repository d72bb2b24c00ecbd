"""Weights of 4-bit integers with a scale for every group of 32: what a file holds of them, and what they mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from mmcli.errors import ModelError
from mmcli.hub.quantized import GROUP, ZERO, pack, parameter_count, unpack
from mmcli.hub.weights import Rule, load_strict


def packed(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix that 4-bit integers hold exactly: what is stored of it."""
    scale = torch.full((len(matrix), matrix.shape[1] // GROUP), 0.5, dtype=torch.float16)
    return pack(matrix * 2 + ZERO), scale


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(2 * GROUP, 3, bias=False)


def load_wide(folder, stored: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    save_file({"proj.weight": stored, "proj.weight_scale": scale}, folder / "model.safetensors")
    with torch.device("meta"):
        module = Wide()
    load_strict(module, folder, [Rule("proj.weight", "proj.weight")], torch.device("cpu"), torch.float32)
    return module.proj.weight


def test_4_bit_groups_are_multiplied_by_their_scales(tmp_path):
    matrix = torch.randint(-8, 8, (3, 2 * GROUP)) * 0.5
    stored, scale = packed(matrix)
    scale[:, 1] *= -3  # a scale of its own for every group of every row, negative ones too
    scale[2] *= 2
    factors = torch.tensor([[1.0, -3.0], [1.0, -3.0], [2.0, -6.0]]).repeat_interleave(GROUP, dim=1)
    assert torch.equal(load_wide(tmp_path, stored, scale), matrix * factors)
    assert parameter_count(tmp_path) == matrix.numel()


@given(st.integers(1, 3), st.integers(1, 5), st.randoms(use_true_random=False))
def test_two_integers_of_4_bits_fit_into_a_byte_and_come_out_again(rows, pairs, random):
    integers = torch.tensor([[random.randrange(16) for _ in range(2 * pairs)] for _ in range(rows)])
    stored = pack(integers)
    assert stored.dtype == torch.uint8 and stored.shape == (rows, pairs)
    assert torch.equal(unpack(stored), integers.to(torch.uint8))
    assert stored[0, 0] == integers[0, 0] + 16 * integers[0, 1]  # the order that the file promises


@pytest.mark.parametrize(
    "stored, scale, message",
    [
        ((3, GROUP), torch.zeros(3, 3), r"proj.weight_scale is F32 of the shape \[3, 3\]; expected .* \[3, 2\]"),
        ((3, GROUP), torch.zeros(3), r"proj.weight_scale is F32 of the shape \[3\]"),
        ((3, GROUP), torch.zeros(3, 2, dtype=torch.int64), "expected floating-point numbers"),
        ((3, GROUP - 1), torch.zeros(3, 2), r"of the shape \[3, 31\] is no matrix in groups of 32"),
        ((3 * GROUP,), torch.zeros(3, 2), "is no matrix in groups of 32"),
        ((3, GROUP // 2), torch.zeros(3, 1), r"has the shape \[3, 32\], but proj.weight needs \[3, 64\]"),
    ],
)  # fmt: skip
def test_4_bit_integers_that_do_not_fit_are_refused(tmp_path, stored, scale, message):
    with pytest.raises(ModelError, match=message):
        load_wide(tmp_path, torch.zeros(stored, dtype=torch.uint8), scale)
