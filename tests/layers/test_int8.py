"""Linear layers in int8: close to float32, and every row for itself."""

import pytest
import torch

from mmcli.layers.int8 import Int8Linear, in_int8, quantize_rows


def layer(inputs: int, outputs: int, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(inputs + outputs)
    return torch.nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 64), (5, 64), (2, 7, 64), (300, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_close_to_the_layer_it_replaces(shape, bias):
    exact = layer(64, 96, bias)
    x = torch.randn(shape)
    found, expected = Int8Linear.of(exact)(x), exact(x)
    assert found.shape == expected.shape and found.dtype == x.dtype
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_row_does_not_depend_on_the_others():
    fast = Int8Linear.of(layer(64, 96))
    x = torch.randn(9, 64) * torch.logspace(-3, 3, 9)[:, None]
    assert all(torch.equal(fast(x)[row], fast(x[row : row + 1])[0]) for row in range(9))


def test_whole_numbers_survive_and_a_row_of_zeros_stays_zero():
    x = torch.tensor([[127.0, -127, 3], [0, 0, 0]])
    whole, scale = quantize_rows(x)
    assert torch.equal(whole * scale, x)


def test_it_keeps_a_short_type():
    assert Int8Linear.of(layer(64, 96))(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_all_layers_below_a_module_are_replaced():
    module = torch.nn.Sequential(layer(8, 8), torch.nn.Sequential(torch.nn.ReLU(), layer(8, 8)))
    in_int8(module)
    assert isinstance(module[0], Int8Linear) and isinstance(module[1][1], Int8Linear)
