"""bfloat16 layers for the few rows of a step on a CPU: the numbers of the layers in whose place they are."""

import platform

import pytest
import torch
from torch import nn

from mmcli.layers import step_linear
from mmcli.layers.packed import PackedLinear, PackedTable, packing_works
from mmcli.layers.step_linear import MOST_ROWS, Columns, StepLinear, StepTable, for_steps, sums_work
from mmcli.layers.table import Table

needs_sums = pytest.mark.skipif(not sums_work(), reason="this PyTorch cannot")


def test_it_works_where_it_is_meant_to():
    known = platform.machine() == "x86_64" and "fbgemm" in torch.backends.quantized.supported_engines
    assert sums_work() or not known


@needs_sums
@pytest.mark.parametrize("outputs", [8, 64, 130, 700])
@pytest.mark.parametrize("places", [1, 3 * 96, 1 << 18])
@torch.inference_mode()
def test_products_are_those_of_the_weight(monkeypatch, outputs, places):
    monkeypatch.setattr(step_linear, "PLACES", places)  # all by one call, some parts by each, and one by each
    step_linear._places.cache_clear()
    torch.manual_seed(0)
    weight, x = torch.randn(outputs, 96).bfloat16(), torch.randn(MOST_ROWS, 96).bfloat16()
    columns, expected = Columns(weight), x.double() @ weight.double().T
    for rows in range(1, MOST_ROWS + 1):
        y = columns.product(x[:rows])
        assert y.dtype == torch.bfloat16
        # Summed in float32 and rounded once.
        torch.testing.assert_close(y.double(), expected[:rows], rtol=2**-8, atol=1e-4)
    step_linear._places.cache_clear()


@needs_sums
@torch.inference_mode()
def test_digits_of_a_row_depend_neither_on_others_nor_on_threads():
    torch.manual_seed(0)
    plain = nn.Linear(256, 1000).bfloat16()
    layer, x = StepLinear(plain, plain), torch.randn(MOST_ROWS, 256).bfloat16()
    before = torch.get_num_threads()
    alone = [layer(row[None]) for row in x]
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(x), torch.cat(alone))
    finally:
        torch.set_num_threads(before)


def parts() -> nn.ModuleDict:
    torch.manual_seed(0)
    made = nn.ModuleDict({"linear": nn.Linear(64, 96), "table": Table(96, 64), "small": nn.Linear(64, 8)}).bfloat16()
    made["exact"] = nn.Linear(64, 96)
    made["read"] = Table(96, 64).bfloat16()
    made["read"].is_head = False
    return made


SIZE = 2 * (96 * 64) * 2  # bytes of the two large ones
FORMS = [
    pytest.param(2 * SIZE - 1, [nn.Linear, Table], id="no room"),
    pytest.param(
        2 * SIZE,
        [PackedLinear, PackedTable],
        id="room for one copy",
        marks=pytest.mark.skipif(not packing_works(torch.bfloat16), reason="this PyTorch cannot"),
    ),
    pytest.param(SIZE * 8 // 3, [StepLinear, StepTable], id="room for two", marks=needs_sums),
    pytest.param(8 * SIZE, [StepLinear, StepTable], id="much room", marks=needs_sums),
]


@pytest.mark.parametrize(("limit", "kinds"), FORMS)
@torch.inference_mode()
def test_large_layers_in_bfloat16_get_the_form_for_which_there_is_room(monkeypatch, limit, kinds):
    monkeypatch.setattr(step_linear, "LARGE", 96 * 64)
    monkeypatch.setattr(step_linear, "memory_limit", lambda: limit)
    plain, layers = parts(), parts()
    for_steps(layers)
    kinds = [*kinds, nn.Linear, nn.Linear, Table]
    assert [type(layers[name]) for name in ("linear", "table", "small", "exact", "read")] == kinds
    if StepLinear in kinds:
        packed = limit == 8 * SIZE and packing_works(torch.bfloat16)
        many = [type(layers[name].many) for name in ("linear", "table")]
        assert many == ([PackedLinear, PackedTable] if packed else [nn.Linear, Table])
    for rows in ((1, 1), (3, 1), (2, 40)):
        x = torch.randn(*rows, 64).bfloat16()
        assert layers["linear"](x).dtype == torch.bfloat16
        torch.testing.assert_close(layers["linear"](x), plain["linear"](x), rtol=0.01, atol=0.02)
        logits = layers["table"].logits(x, 90)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, plain["table"].logits(x, 90), rtol=0.01, atol=0.1)
    assert torch.equal(layers["table"](torch.tensor([5, 2])), plain["table"](torch.tensor([5, 2])))
