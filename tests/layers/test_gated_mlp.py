"""The gated feed-forward: its forms compute the same."""

import pytest
import torch
import torch.nn.functional as F

from mmcli.layers.gated_mlp import ACTIVATIONS, GatedMLP, gelu_tanh_
from mmcli.layers.int8 import in_int8
from mmcli.layers.int8_step import MANY, StepInt8Linear, StepInt8Table, step_packing_works

needs_int8 = pytest.mark.skipif(not step_packing_works(), reason="this CPU has no fast int8")


def test_a_sigmoid_makes_the_same_gelu():
    x = torch.linspace(-12, 12, 4001)
    torch.testing.assert_close(gelu_tanh_(x.clone()), F.gelu(x, approximate="tanh"), rtol=1e-5, atol=1e-6)


@needs_int8
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 300)])
@torch.inference_mode()
def test_in_int8_both_gates_share_what_is_rounded(activation, shape):
    torch.manual_seed(0)
    mlp, x = GatedMLP(32, 48, activation), 2 * torch.randn(*shape, 32)
    before = x.clone()
    in_int8(mlp, StepInt8Linear)
    expected = mlp.down(ACTIVATIONS[activation](mlp.gate(x)) * mlp.up(x))
    y = mlp(x)
    assert (y - expected).norm() < 0.01 * expected.norm()  # another order of rounding
    assert torch.equal(x, before) and torch.equal(mlp(x[:1]), y[:1])


@needs_int8
@torch.inference_mode()
def test_in_int8_pieces_of_a_long_prefix_are_the_whole(monkeypatch):
    torch.manual_seed(0)
    mlp, x = GatedMLP(32, 48, "gelu"), torch.randn(2, 2 * MANY, 32)
    in_int8(mlp, StepInt8Linear)
    for part in (mlp.gate, mlp.up, mlp.down):
        part.expect_many()
    whole = mlp(x)
    monkeypatch.setattr("mmcli.layers.gated_mlp.PIECE_IN_INT8", MANY)
    assert torch.equal(mlp(x), whole)


@needs_int8
@torch.inference_mode()
def test_a_table_in_int8_is_its_own_head():
    torch.manual_seed(0)
    whole, scale = torch.randint(-127, 128, (40, 16), dtype=torch.int8), torch.rand(40) / 127
    table, hidden = StepInt8Table(whole, scale), torch.randn(2, 16)
    weight = whole * scale[:, None]
    assert torch.equal(table(torch.tensor([[3, 39]])), weight[[3, 39]][None])
    logits = table.logits(hidden)
    assert logits.dtype == torch.float32 and (logits - hidden @ weight.T).abs().max() < 0.05
