"""bfloat16 layers for the few rows of a step on a CPU: the numbers of the layers in whose place they are."""

import copy
import platform

import pytest
import torch
from torch import nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import step_linear
from mmcli.layers.fusing import fuse
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder
from mmcli.layers.linear import SideBySide
from mmcli.layers.packed import PackedLinear, PackedTable, packing_works
from mmcli.layers.step_linear import MOST_ROWS, MOST_THREADS, Columns, StepLinear, StepTable, for_steps, sums_work
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
    step_linear._bags.cache_clear()
    torch.manual_seed(0)
    weight, x = torch.randn(outputs, 96).bfloat16(), torch.randn(MOST_ROWS, 96).bfloat16()
    columns, expected = Columns(weight), x.double() @ weight.double().T
    for rows in range(1, MOST_ROWS + 1):
        y = columns.product(x[:rows])
        assert y.dtype == torch.bfloat16
        # Summed in float32 and rounded once.
        torch.testing.assert_close(y.double(), expected[:rows], rtol=2**-8, atol=1e-4)
    step_linear._bags.cache_clear()


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
    made["beside"] = SideBySide([nn.Linear(64, width, bias=width == 72).bfloat16() for width in (72, 8, 16)])
    made["read"] = Table(96, 64).bfloat16()
    made["read"].is_head = False
    return made


SIZE = 3 * (96 * 64) * 2  # bytes of the three large ones
needs_packing = pytest.mark.skipif(not packing_works(torch.bfloat16), reason="this PyTorch cannot")
FORMS = [
    pytest.param(2 * SIZE - 1, 1, [nn.Linear, Table], id="no room"),
    pytest.param(2 * SIZE, 1, [PackedLinear, PackedTable], id="room for one copy", marks=needs_packing),
    pytest.param(8 * SIZE, MOST_THREADS + 1, [PackedLinear, PackedTable], id="many threads", marks=needs_packing),
    pytest.param(SIZE * 8 // 3, MOST_THREADS, [StepLinear, StepTable], id="room for two", marks=needs_sums),
    pytest.param(8 * SIZE, 1, [StepLinear, StepTable], id="much room", marks=needs_sums),
]


@pytest.mark.parametrize(("limit", "threads", "kinds"), FORMS)
@torch.inference_mode()
def test_large_layers_in_bfloat16_get_the_form_for_which_there_is_room(monkeypatch, limit, threads, kinds):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(step_linear, "LARGE", 96 * 64)
    monkeypatch.setattr(step_linear, "memory_limit", lambda: limit)
    plain, layers = parts(), parts()
    for_steps(layers)
    kinds = [*kinds, nn.Linear, nn.Linear, Table, StepLinear if StepLinear in kinds else SideBySide]
    assert [type(layers[name]) for name in ("linear", "table", "small", "exact", "read", "beside")] == kinds
    if StepLinear not in kinds:
        assert {type(part) for part in layers["beside"]} == {kinds[0]}
    else:
        packed = limit == 8 * SIZE and packing_works(torch.bfloat16)
        many = [type(layers[name].many) for name in ("linear", "table", "beside")]
        assert many == [*([PackedLinear, PackedTable] if packed else [nn.Linear, Table]), SideBySide]
    for rows in ((1, 1), (3, 1), (2, 40)):
        x = torch.randn(*rows, 64).bfloat16()
        for name in ("linear", "beside"):
            assert layers[name](x).dtype == torch.bfloat16
            torch.testing.assert_close(layers[name](x), plain[name](x), rtol=0.01, atol=0.02)
        logits = layers["table"].logits(x, 90)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, plain["table"].logits(x, 90), rtol=0.01, atol=0.1)
    assert torch.equal(layers["table"](torch.tensor([5, 2])), plain["table"](torch.tensor([5, 2])))


@needs_sums
@pytest.mark.parametrize("room", [SIZE, None], ids=["none", "much"])
@torch.inference_mode()
def test_a_decoder_that_is_fused_and_made_for_steps_reads_and_steps_as_before(monkeypatch, room):
    monkeypatch.setattr(step_linear, "LARGE", 1)
    monkeypatch.setattr(step_linear, "memory_limit", lambda: room)
    torch.manual_seed(0)
    config = DecoderConfig(96, 64, 2, 128, heads=4, key_heads=2, head_width=16, query_scale=0.25)
    exact = GemmaDecoder(config)
    fast = copy.deepcopy(exact).bfloat16()
    fuse(fast)
    for_steps(fast)
    layer = fast.layers[0]
    kind = SideBySide if room else StepLinear
    assert isinstance(layer.attention.qkv, kind) and isinstance(layer.mlp.gate_up, kind)
    answers = []
    for decoder in (exact, fast):
        dtype, cache = (
            decoder.norm.weight.dtype,
            KVCache(2, 1, 9, 2, 16, decoder.norm.weight.dtype, torch.device("cpu")),
        )
        prompt = torch.arange(8)[None]
        cache.extend(torch.ones(1, 8, dtype=torch.bool))
        read = decoder(decoder.embed(prompt), prompt, torch.ones(1, 1, 8, 8, dtype=torch.bool), cache)
        cache.extend(torch.ones(1, 1, dtype=torch.bool))
        x = decoder.embed(torch.tensor([[5]]))
        step = decoder(x.to(dtype), torch.tensor([[8]]), cache.step_mask(), cache)
        answers.append(decoder.logits(torch.cat((read, step), dim=1)).float())
    error = (answers[1] - answers[0]).norm(dim=-1) / answers[0].norm(dim=-1)
    assert error.max() < 0.03, error  # bfloat16 keeps 8 bits, and a dozen roundings stand behind each other
