"""Linear layers in int8: close to float32, and every row for itself."""

import pytest
import torch

from mmcli.layers.int8 import (
    Int8Embedding,
    Int8Linear,
    PackedInt8Linear,
    in_int8,
    packing_works,
    quantize_rows,
    quantize_weight,
)
from mmcli.layers.int8_step import MANY, StepInt8Linear, in_uint8, step_packing_works, unit_rows, unit_rows_


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


packed_kinds = pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.skipif(not works(), reason="this PyTorch has no operators for it"))
        for kind, works in ((PackedInt8Linear, packing_works), (StepInt8Linear, step_packing_works))
    ],
)


@packed_kinds
@pytest.mark.parametrize("shape", [(1, 64), (8, 64), (2, 7, 64), (300, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_packed_weights_give_the_same_numbers(shape, bias, kind):
    exact = layer(64, 700, bias)
    x = torch.randn(shape)
    packed, plain = kind(exact.weight, exact.bias)(x), Int8Linear.of(exact)(x)
    assert packed.shape == plain.shape
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)


@packed_kinds
def test_a_row_of_packed_weights_does_not_depend_on_the_others(kind):
    fast = kind(layer(64, 96).weight, None)
    x = torch.randn(9, 64) * torch.logspace(-3, 3, 9)[:, None]
    assert all(torch.equal(fast(x)[row], fast(x[row : row + 1])[0]) for row in range(9))


def fails(self, x):
    raise RuntimeError("could not create a primitive descriptor for the matmul primitive")


def is_wrong(self, x):
    return torch.zeros(*x.shape[:-1], len(self.scale))


@pytest.mark.parametrize("forward", [fails, is_wrong])
@pytest.mark.parametrize(("kind", "works"), [(PackedInt8Linear, packing_works), (StepInt8Linear, step_packing_works)])
def test_operators_that_fail_or_compute_something_else_are_not_used(monkeypatch, forward, kind, works):
    monkeypatch.setattr(kind, "forward", forward)
    assert not works.__wrapped__()


@packed_kinds
def test_a_row_of_zeros_is_the_bias_and_short_types_stay(kind):
    exact = layer(64, 96)
    packed = kind(exact.weight, exact.bias)
    assert torch.equal(packed(torch.zeros(2, 64)), exact.bias.expand(2, -1))
    assert packed(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_large_weight_is_quantised_as_in_one_piece():
    weight = torch.randn(1300, 16)
    whole, scale = quantize_rows(weight)
    found, scales = quantize_weight(weight)
    assert torch.equal(found, whole) and torch.equal(scales, scale[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_gives_its_rows_rounded_in_its_own_type(dtype):
    exact = (torch.randn(50, 64) * torch.logspace(-3, 3, 50)[:, None]).to(dtype)
    numbers = torch.tensor([[3, 49], [0, 3]])
    found, expected = Int8Embedding(exact)(numbers), exact[numbers]
    assert found.shape == expected.shape and found.dtype == dtype
    assert (found - expected).abs().amax(-1).le(0.01 * expected.abs().amax(-1)).all()


def test_a_table_that_was_in_int8_loses_nothing():
    whole, scale = torch.randint(-127, 128, (9, 64)), torch.rand(9, 1).half().float()
    whole[:, 0] = 127
    numbers = torch.arange(9)
    torch.testing.assert_close(Int8Embedding(whole * scale)(numbers), whole * scale, rtol=1e-6, atol=0)


@pytest.mark.skipif(not (step_packing_works() and packing_works()), reason="this PyTorch has no operators for it")
def test_the_tokens_of_a_row_alone_decide_which_product_multiplies(monkeypatch):
    exact = layer(64, 96)
    fast, plain = StepInt8Linear(exact.weight, exact.bias), StepInt8Linear(exact.weight, exact.bias)
    fast.expect_many()
    assert fast.many is not None and StepInt8Linear.stacked([fast, fast]).many is not None
    assert StepInt8Linear.stacked([fast, plain]).many is None
    calls: list[int] = []
    many = fast.many
    monkeypatch.setattr(fast, "many", lambda rows: calls.append(len(rows)) or many(rows))
    x = torch.randn(3, MANY, 64) * torch.logspace(-3, 3, 3)[:, None, None]
    few = x[:, : MANY - 1]
    for given in (x, x[:1], few, x.flatten(0, 1)):
        torch.testing.assert_close(fast(given), plain(given), rtol=1e-5, atol=1e-5)
    assert calls == [3 * MANY, MANY]
    assert torch.equal(fast(x)[1:2], fast(x[1:2])) and torch.equal(fast(few)[1:2], fast(few[1:2]))
    exact_numbers = exact(x)
    assert (fast(x) - exact_numbers).abs().amax(-1).max() < 0.02 * exact_numbers.abs().max()


def test_rows_are_rounded_in_place_to_the_same_numbers():
    x = torch.randn(5, 33) * torch.logspace(-3, 3, 5)[:, None]
    x[3] = 0.0
    rows, largest = unit_rows(x)
    assert rows[0].abs().max() == 1.0 and not rows[3].any()
    whole = in_uint8(rows)
    assert whole.dtype == torch.uint8
    # From memory of its own: what it was rounded in is gone.
    assert torch.equal(whole, ((rows * 127).round() + 128).to(torch.uint8))
    over, of_over = unit_rows_(x)
    assert over is x and torch.equal(over, rows) and torch.equal(of_over, largest)
