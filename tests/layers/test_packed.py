"""Float32 linear layers whose weights are in oneDNN's order: the numbers of nn.Linear, whatever shares the batch."""

import platform

import pytest
import torch
from torch import nn

from mmcli.layers.packed import PackedLinear, pack, packing_works
from mmcli.layers.table import Table

needs_packing = pytest.mark.skipif(not packing_works(), reason="this PyTorch cannot")


def test_it_works_where_it_is_meant_to():
    known = platform.machine() == "x86_64" and torch.backends.mkldnn.is_available()
    assert packing_works() or not known


@needs_packing
@pytest.mark.parametrize("rows", [(1,), (3, 1), (17,), (2, 60)])
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_it_computes_what_linear_does(rows, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(96, 130, bias=bias), torch.randn(*rows, 96)
    packed = PackedLinear(layer.weight, layer.bias)
    torch.testing.assert_close(packed(x), layer(x), rtol=1e-5, atol=1e-5)


@needs_packing
@pytest.mark.parametrize("inputs, outputs", [(384, 130), (1408, 384)])
@pytest.mark.parametrize("threads", [1, 2])
@torch.inference_mode()
def test_digits_of_a_row_depend_neither_on_the_batch_nor_on_threads(inputs, outputs, threads):
    torch.manual_seed(0)
    parts = nn.ModuleDict({"linear": nn.Linear(inputs, outputs), "table": Table(outputs, inputs)})
    parts["map"] = nn.Conv2d(inputs, 40, 1).to(memory_format=torch.channels_last)
    pack(parts)
    x, maps = torch.randn(16, inputs), torch.randn(1, inputs, 20, 20).to(memory_format=torch.channels_last)
    torch.set_num_threads(1)
    linear, logits, convolved = parts["linear"](x), parts["table"].logits(x), parts["map"](maps)
    torch.testing.assert_close(logits, x @ parts["table"].weight.T, rtol=1e-4, atol=1e-4)
    torch.set_num_threads(threads)
    try:
        for rows in (1, 2, 3, 5, 7, 16):
            assert torch.equal(parts["linear"](x[:rows]), linear[:rows])
            assert torch.equal(parts["table"].logits(x[:rows]), logits[:rows])
        assert torch.equal(parts["map"](maps), convolved)
    finally:
        torch.set_num_threads(1)


@needs_packing
def test_a_bias_may_be_a_column_of_something():
    torch.manual_seed(0)
    weight, x = torch.randn(8, 16), torch.randn(2, 16)
    torch.testing.assert_close(PackedLinear(weight, weight[:, 3])(x), x @ weight.T + weight[:, 3])


@needs_packing
def test_layers_in_other_types_and_of_other_kinds_stay():
    half, norm = nn.Linear(4, 4).bfloat16(), nn.LayerNorm(4)
    parts = nn.ModuleDict({"a": nn.Linear(4, 4), "below": nn.Sequential(nn.Linear(4, 4)), "low": half, "norm": norm})
    pack(parts)
    kinds = [type(part) for part in (parts["a"], parts["below"][0], parts["low"], parts["norm"])]
    assert kinds == [PackedLinear, PackedLinear, nn.Linear, nn.LayerNorm]
