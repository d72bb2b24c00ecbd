"""The decode step through the kernels against the plain one: on a CUDA device, or interpreted."""

from collections import Counter
from functools import partial

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.engine.kv_cache import KVCache
from mmcli.layers import kernels
from mmcli.layers.attention import prefix_positions
from mmcli.layers.decoder import LlamaConfig, LlamaDecoder
from mmcli.layers.fusing import fuse
from mmcli.layers.gemma import DecoderConfig, GemmaDecoder
from mmcli.layers.linear import stack
from mmcli.layers.weight_only import WeightOnlyLinear

needs_kernels()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
STEPS = 2


SIZES = {"vocabulary": 70, "width": 128, "depth": 3, "mlp_width": 160, "head_width": 64}


def gemma(heads, key_heads, **more):
    return GemmaDecoder(DecoderConfig(**SIZES, heads=heads, key_heads=key_heads, query_scale=0.125, **more))


def llama(heads, key_heads, **more):
    return LlamaDecoder(LlamaConfig(**SIZES, heads=heads, key_heads=key_heads, **more))


GEMMA2 = {"sandwich_norms": True, "attention_softcap": 20.0, "logit_softcap": 5.0}
MAKERS = {
    "Gemma 1": partial(gemma, 4, 1),
    "Gemma 2": partial(gemma, 4, 2, **GEMMA2, sliding_layers=(True, False, True)),
    "Llama": partial(llama, 4, 4, tied=True),
    "Mistral": partial(llama, 4, 2, sliding_layers=(True, True, True)),
    "Qwen2": partial(llama, 6, 2, qkv_bias=True),
    "MiniCPM": partial(llama, 4, 4, embedding_scale=3.0, residual_scale=0.4, logit_scale=0.5),
}


def decoder(name):
    """Small, with weights as large as make a difference."""
    torch.manual_seed(1)
    model = MAKERS[name]().to(DEVICE).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.2)
    fuse(model)
    for layer in model.layers if DEVICE.type == "cpu" else []:  # where nothing is put together otherwise
        layer.attention.qkv = stack(layer.attention.q, layer.attention.k, layer.attention.v)
        layer.mlp.gate_up = stack(layer.mlp.gate, layer.mlp.up)
    return model


@torch.inference_mode()
def logits(model, rows, dtype=torch.float32):
    """Those of a few steps in a cache with room, each row with as much padding as its number."""
    torch.manual_seed(2)
    c, length = model.config, 50
    cache = KVCache(c.depth, rows, length, c.key_heads, c.head_width, dtype, DEVICE)
    cache.store.copy_(torch.randn(cache.store.shape, device=DEVICE))
    cache.valid[:, :30] = torch.arange(30, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    cache.positions.copy_(cache.valid.sum(1))
    cache.fixed, found = True, []
    for step in range(STEPS):
        cache.cursor.fill_(30 + step)
        tokens = torch.randint(70, (rows, 1), device=DEVICE)
        positions = cache.positions[:, None].clone()
        cache.extend(torch.ones_like(tokens, dtype=torch.bool))
        hidden = model(model.embed(tokens), positions, cache.step_mask(), cache, cache.step_mask(8))
        found.append(model.logits(hidden[:, -1]))
    return torch.stack(found), cache.store


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """In float32, where both paths must agree, the kernels are not chosen otherwise."""
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))


@pytest.fixture(autouse=INTERPRETED)
def coarse(monkeypatch):
    """Fewer programs: the interpreter runs one after the other."""
    from mmcli.layers.kernels import matvec

    monkeypatch.setattr(matvec, "LONG_TILE", (2048, 1 << 14))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows", [1, 3] if INTERPRETED else [1, 2, 3, 17, 32])
def test_a_step_through_the_kernels_equals_the_plain_one(name, rows, monkeypatch):
    model = decoder(name)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = logits(model, rows)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.layers import decoder_step

    run, read = decoder_step.run_layers, []
    monkeypatch.setattr(decoder_step, "run_layers", lambda *given, **more: read.append(given) or run(*given, **more))
    fast, store = logits(model, rows)
    assert len(read) == STEPS
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["Gemma 1", "Gemma 2", "Qwen2"])
@pytest.mark.parametrize("rows", [3] if INTERPRETED else [2, 3, 17, 32])
def test_a_step_by_products_of_few_rows_equals_the_plain_one(name, rows, monkeypatch):
    """Programs share columns, so that norms add up parts; gates are applied by the product."""
    from mmcli.layers.kernels import few_rows

    model, taken = decoder(name), Counter()
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = logits(model, rows)
    monkeypatch.setenv(kernels.SWITCH, "1")
    monkeypatch.setattr(few_rows, "pays", lambda x, weight: 1 < len(x) <= few_rows.MOST_ROWS)
    monkeypatch.setattr(few_rows, "ROWS_OF_PARTS", 2)
    # 320 outputs of gates make five programs, 128 to 384 of others two to six, which share columns.
    monkeypatch.setattr(few_rows, "SHARED", few_rows.Cut(64, 32, 32, 4, 2, 6))
    monkeypatch.setattr(few_rows, "MANY_OUTPUTS", 320)
    monkeypatch.setattr(few_rows, "WIDE", few_rows.Cut(64, 64, 64, 4, 2, 1))
    for form in ("parts", "gated"):
        own = getattr(few_rows, form)
        monkeypatch.setattr(few_rows, form, partial(counted, own, taken, form))
    fast, store = logits(model, rows)
    assert taken["gated"] == 3 * STEPS and taken["parts of several"] >= 3 * STEPS
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(store, plain_store, rtol=1e-4, atol=1e-4)


def counted(form, taken, name, *given):
    """What a function gives, whose calls are counted."""
    y = form(*given)
    taken[name if y.ndim == 2 else f"{name} of several"] += 1
    return y


@pytest.mark.skipif(INTERPRETED, reason="bfloat16 is for GPUs")
@pytest.mark.parametrize("name", ["Gemma 1", "Gemma 2", "Llama", "Qwen2"])
@pytest.mark.parametrize("storage", ["int8", "int4"])
@pytest.mark.parametrize("rows, longest", [(1, 32), (1, 1), (3, 32), (17, 32)])
def test_a_step_with_weights_in_integers_is_as_exact_as_the_plain_one(rows, longest, storage, name, monkeypatch):
    """In bfloat16, measured by the same step in float32, where rounding adds nothing: but for chance, since a few
    states have most of all errors, of either path. Root mean squares of 32 random decoders were 0.45 to 1.88 of the
    plain step's, 0.81 to 0.94 by geometric mean. One row is added to within a product where that is no longer than
    one program reads, `longest`."""
    from mmcli.layers.kernels import matrix_row

    add, added = matrix_row.added, []
    monkeypatch.setattr(matrix_row, "added", lambda *given: added.append(given) or add(*given))
    monkeypatch.setattr(matrix_row, "LONGEST", longest)
    monkeypatch.setattr(kernels, "DTYPES", (torch.bfloat16,))
    model = decoder(name)
    for layer in model.layers:
        for part, names in ((layer.attention, ("qkv", "out")), (layer.mlp, ("gate_up", "down"))):
            for linear in names:
                setattr(part, linear, WeightOnlyLinear.of(getattr(part, linear), storage))
    exact = logits(model, rows)[0].float()
    scales = {part: part.scale for part in model.modules() if isinstance(part, WeightOnlyLinear)}
    model.bfloat16()
    for part, scale in scales.items():
        part.scale = scale
    fast = logits(model, rows, torch.bfloat16)[0].float()
    within = rows == 1 and longest > 1 and name != "Gemma 2"  # which norms before it adds
    assert len(added) == (STEPS * model.config.depth if within else 0)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain = logits(model, rows, torch.bfloat16)[0].float()
    assert not torch.equal(fast, plain)
    assert (fast - exact).square().mean() <= 2**2 * (plain - exact).square().mean()


def test_only_a_recorded_step_of_few_rows_is_chosen(monkeypatch):
    monkeypatch.setenv(kernels.SWITCH, "1")
    cache = KVCache(1, 1, 8, 1, 64, torch.float32, DEVICE)
    x = torch.zeros(1, 1, 64, device=DEVICE)
    assert not kernels.chosen(x, cache) and not kernels.chosen(x, None)
    cache.fixed = True
    assert kernels.chosen(x, cache)
    assert not kernels.chosen(x.half(), cache)
    assert not kernels.chosen(x.expand(1, 2, 64), cache) and not kernels.chosen(x.expand(33, 1, 64), cache)
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert not kernels.chosen(x, cache)


@torch.inference_mode()
def read(model, rows, length, last_only=False):
    """Hidden states of a prompt, each row with as much padding as its number, or of its last tokens; and the cache."""
    torch.manual_seed(3)
    c = model.config
    cache = KVCache(c.depth, rows, length + 4, c.key_heads, c.head_width, torch.float32, DEVICE)
    valid = torch.arange(length, device=DEVICE) >= torch.arange(rows, device=DEVICE)[:, None]
    tokens = torch.randint(70, (rows, length), device=DEVICE)
    cache.extend(valid)
    mask = cache.causal_mask(length)
    hidden = model(model.embed(tokens), prefix_positions(valid), mask, cache, last_only=last_only)
    assert hidden.shape[1] == (1 if last_only else length)
    return hidden[valid[:, -hidden.shape[1] :]], cache.store


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("rows, length", [(1, 2), (3, 17)])
def test_a_prompt_through_the_kernels_is_read_as_without(name, rows, length, monkeypatch):
    model = decoder(name)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain, plain_store = read(model, rows, length)
    monkeypatch.setenv(kernels.SWITCH, "1")
    from mmcli.layers import decoder_step

    run, calls = decoder_step.run_layers, []
    monkeypatch.setattr(decoder_step, "run_layers", lambda *given, **more: calls.append(given) or run(*given, **more))
    fast, store = read(model, rows, length)
    last, last_store = read(model, rows, length, last_only=True)
    monkeypatch.setenv(kernels.SWITCH, "0")
    plain_last, _ = read(model, rows, length, last_only=True)
    assert len(calls) == 2
    ends = torch.arange(1, rows + 1) * length - torch.arange(rows).cumsum(0) - 1  # of each row among what is real
    for got, wanted in ((fast, plain), (last, plain[ends]), (plain_last, plain[ends])):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    for got in (store, last_store):
        torch.testing.assert_close(got, plain_store, rtol=1e-4, atol=1e-4)
