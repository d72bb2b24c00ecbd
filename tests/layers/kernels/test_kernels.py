"""Every kernel against its plain PyTorch path, on odd shapes: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

import pytest
import torch
from cuda_only import needs_kernels
from kernel_numbers import DEVICE, DOTTED, DTYPES, INTERPRETED, assert_close, numbers

from mmcli.layers.rope import rotary_angles

needs_kernels()


@pytest.fixture(autouse=INTERPRETED)
def coarse(monkeypatch):
    """Fewer programs: the interpreter runs one after the other."""
    from mmcli.layers.kernels import matvec

    monkeypatch.setattr(matvec, "TILE", (1024, 1 << 15))
    monkeypatch.setattr(matvec, "LONG_TILE", (2048, 1 << 16))
    monkeypatch.setattr(matvec, "SHORT_TILES", ((2048, (1024, 1 << 13)), (1 << 31, (256, 1 << 13))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("width", [64, 100, 2304])
@pytest.mark.parametrize("sandwich", [False, True])
def test_residual_norm(rows, width, sandwich, dtype):
    from mmcli.layers.kernels import residual_norm

    x, y = numbers(rows, width, dtype=dtype), numbers(rows, width, dtype=dtype)
    inner, outer = 1 + numbers(width) / 4 if sandwich else None, numbers(width, dtype=dtype)
    total, normed = residual_norm.residual_norm(x, y, inner, outer, 1e-6, 0.7)
    exact_total, _ = residual_norm.plain(x.float(), y.float(), inner, outer, 1e-6, 0.7)
    assert_close(total, exact_total, dtype)
    # The norm is that of the sum as it was rounded.
    assert_close(normed, residual_norm.plain(total.float(), 0 * y.float(), None, outer, 1e-6)[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, width, sandwich, parts", [(1, 100, False, 4), (3, 64, True, 2), (17, 2304, False, 8)])
def test_residual_norm_of_parts(rows, width, sandwich, parts, dtype):
    from mmcli.layers.kernels import residual_norm

    x, y = numbers(rows, width, dtype=dtype), numbers(parts, rows, width)
    inner, outer = 1 + numbers(width) / 4 if sandwich else None, numbers(width, dtype=dtype)
    total, normed = residual_norm.residual_norm(x, y, inner, outer, 1e-6, 0.7)
    whole = residual_norm.residual_norm(x, y.sum(dim=0), inner, outer, 1e-6, 0.7)
    assert_close(total, whole[0].float(), dtype)
    assert_close(normed, whole[1].float(), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("width", [64, 100, 1280])
def test_residual_layer_norm(rows, width, dtype):
    from mmcli.layers.kernels import residual_layer_norm

    x, y = 2 + numbers(rows, width, dtype=dtype), numbers(rows, width, dtype=dtype)
    weight, bias = numbers(width, dtype=dtype), numbers(width, dtype=dtype)
    total, normed = residual_layer_norm.residual_layer_norm(x, y, weight, bias, 1e-5)
    assert_close(total, x.float() + y.float(), dtype)
    # The norm is that of the sum as it was rounded.
    assert_close(
        normed, residual_layer_norm.plain(total.float(), 0 * y.float(), weight.float(), bias.float(), 1e-5)[1], dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, inner", [(1, 64), (3, 1500), (17, 130)])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_gated(rows, inner, activation, dtype):
    from mmcli.layers.kernels import gated

    x = 4 * numbers(rows, 2 * inner, dtype=dtype)
    exact = gated.plain(x.float(), activation)
    assert_close(gated.gated(x, activation), exact, dtype)
    more = gated.gated(x, activation, multiple=8)
    assert len(more) == 8 * -(-rows // 8) and not more[rows:].any()
    assert_close(more[:rows], exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs, inputs", [(3, 64), (70, 2304), (33, 1025), (256, 2048), (9, 16384)])
@pytest.mark.parametrize("activation", [None, "gelu_tanh"])
def test_matvec(outputs, inputs, activation, dtype):
    from mmcli.layers.kernels import matvec

    x = numbers(1, inputs, dtype=dtype)
    weight = (3 * numbers(outputs, inputs) / inputs**0.5).to(dtype)
    times = None if activation is None else numbers(1, outputs, dtype=dtype)
    exact = matvec.plain(x.float(), weight.float(), None if times is None else times.float(), None, activation)
    assert_close(matvec.matvec(x, weight, times, None, activation), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs, inputs", [(3, 64), (70, 1280), (2050, 1100), (4097, 1100), (33, 4096)])
@pytest.mark.parametrize("activation", [None, "gelu", "relu2"])
def test_matvec_with_a_bias_and_an_activation(outputs, inputs, activation, dtype):
    from mmcli.layers.kernels import matvec

    linear = torch.nn.Linear(inputs, outputs, device=DEVICE, dtype=dtype).requires_grad_(False)
    linear.bias.copy_(3 * numbers(outputs))
    x = numbers(1, inputs, dtype=dtype)
    exact = matvec.plain(x.float(), linear.weight.float(), None, linear.bias.float(), activation)
    assert_close(matvec.product(x, linear, activation), exact, dtype)
    assert_close(matvec.product(x.expand(2, -1), linear, activation)[1:], exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("outputs, inputs", [(3, 64), (70, 1280)])
@pytest.mark.parametrize("activation", [None, "gelu", "relu2"])
def test_product_by_whichever_is_faster(rows, outputs, inputs, activation, dtype):
    from mmcli.layers.kernels import matvec

    linear = torch.nn.Linear(inputs, outputs, device=DEVICE, dtype=dtype).requires_grad_(False)
    linear.bias.copy_(3 * numbers(outputs))
    x, times = numbers(rows, inputs, dtype=dtype), numbers(rows, outputs, dtype=dtype)
    exact = matvec.plain(x.float(), linear.weight.float(), None, linear.bias.float(), activation)
    assert_close(matvec.product(x, linear, activation), exact, dtype)
    multiplied = matvec.by_weight(x, linear.weight, linear.bias, activation, times)
    assert_close(multiplied, exact * times.float(), dtype)


CUTS = [(64, 64, 0, 4, 3, 1), (64, 64, 64, 4, 3, 6), (64, 128, 128, 4, 2, 1)]  # the columns are shared or not


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rows, outputs, inputs", [(1, 70, 1040), (3, 64, 64), (17, 130, 400), (32, 64, 2304)])
@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh", "relu2"])
def test_product_of_few_rows(rows, outputs, inputs, activation, cut, dtype):
    from mmcli.layers.kernels import few_rows, matvec

    x, weight = numbers(rows, inputs, dtype=dtype), (3 * numbers(outputs, inputs) / inputs**0.5).to(dtype)
    bias = None if activation is None else numbers(outputs, dtype=dtype)
    times = None if activation is None else numbers(rows, 2, outputs)[:, 1]
    got = few_rows.product(x, weight, bias, activation, times, cut=few_rows.Cut(*cut))
    exact = matvec.plain(x.float(), weight.float(), times, None if bias is None else bias.float(), activation)
    assert_close(got, exact, dtype)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("rows, outputs, inputs", [(1, 70, 208), (3, 64, 64), (17, 130, 400), (32, 64, 512)])
def test_parts_of_a_product_of_few_rows_are_its_sums(rows, outputs, inputs, cut, dtype):
    from mmcli.layers.kernels import few_rows, split_k

    x, weight = numbers(rows, inputs, dtype=dtype), (numbers(outputs, inputs) / inputs**0.5).to(dtype)
    parts = few_rows.parts(x, weight, few_rows.Cut(*cut))
    whole = few_rows.product(x, weight, cut=few_rows.Cut(*cut))
    assert parts.shape[-2:] == whole.shape and (parts.ndim == 3) == (cut[-1] > 1 and inputs > 64)
    assert torch.equal(split_k.added_up(parts, dtype) if parts.ndim == 3 else parts, whole)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("cut", [*CUTS, (128, 64, 128, 4, 3, 1)])
@pytest.mark.parametrize("rows, inner, inputs", [(1, 70, 208), (3, 33, 64), (17, 130, 400), (32, 64, 512)])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_gated_product_of_few_rows(rows, inner, inputs, activation, cut, dtype):
    from mmcli.layers.kernels import few_rows, gated

    x, weight = numbers(rows, inputs, dtype=dtype), (3 * numbers(2 * inner, inputs) / inputs**0.5).to(dtype)
    got = few_rows.gated(x, weight, activation, few_rows.Cut(*cut))
    gate_up = few_rows.product(x, weight, cut=few_rows.Cut(*cut))
    assert_close(got, gated.plain(gate_up.float(), activation), dtype)
    assert_close(gate_up, x.float() @ weight.float().T, dtype)


@pytest.mark.parametrize("dtype", DOTTED)
@pytest.mark.parametrize("rows, vocabulary, inputs", [(1, 70, 400), (3, 200, 64), (17, 130, 208)])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_float_logits_of_few_rows(rows, vocabulary, inputs, cap, dtype):
    from mmcli.layers.kernels import few_rows, logits

    cut = few_rows.Cut(64, 64, 0, 4, 3, 1)
    x, weight = numbers(rows, inputs, dtype=dtype), (3 * numbers(vocabulary, inputs) / inputs**0.5).to(dtype)
    got = few_rows.float_logits(x, weight, cap, cut)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, logits.plain(few_rows.product(x, weight, cut=cut), cap), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("shares, outputs", [(2, 64), (5, 1030)])
@pytest.mark.parametrize("activation", [None, "gelu_tanh"])
def test_sums_of_shared_columns(rows, shares, outputs, activation, dtype):
    from mmcli.layers.kernels import matvec, split_k

    x, weight = numbers(rows, shares * 32), numbers(outputs, shares * 32) / 10
    bias = None if activation is None else numbers(outputs, dtype=dtype)
    times = None if activation is None else numbers(rows, 2, outputs, dtype=dtype)[:, 1]
    parts = zip(x.chunk(shares, 1), weight.chunk(shares, 1), strict=True)
    got = split_k.added_up(torch.stack([one @ other.T for one, other in parts]), dtype, bias, activation, times)
    assert got.dtype == dtype
    exact = [None if part is None else part.float() for part in (times, bias)]
    assert_close(got, matvec.plain(x, weight, *exact, activation), dtype)


@pytest.mark.parametrize("cut", CUTS)
def test_a_row_does_not_depend_on_the_others(cut):
    from mmcli.layers.kernels import few_rows

    x, weight = numbers(17, 400, dtype=DOTTED[-1]), numbers(70, 400, dtype=DOTTED[-1])
    alone = few_rows.product(x, weight, cut=few_rows.Cut(*cut))[3]
    x[[*range(3), *range(4, 17)]] = torch.nan
    y = few_rows.product(x, weight, cut=few_rows.Cut(*cut))
    assert torch.equal(y[3], alone) and y[2].isnan().all()


@pytest.mark.parametrize("rows", [1, 3, 17])
@pytest.mark.parametrize("vocabulary", [1, 70, 4096, 9001])
def test_likeliest(rows, vocabulary):
    from mmcli.layers.kernels import choice

    logits = numbers(rows, vocabulary + 5)[:, :vocabulary]  # rows that do not follow each other
    logits[0, : vocabulary // 2] = -torch.inf
    logits[-1, [vocabulary // 3, -1]] = 9.0  # equally likely ones
    ids, both = choice.likeliest(logits)
    expected, exact = choice.plain(logits)
    assert ids.tolist() == expected.tolist()
    torch.testing.assert_close(both, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_likeliest_is_handed_over_to_the_next_step_and_to_the_host(rows):
    from mmcli.engine.hand_over import SLOTS, HandOver
    from mmcli.layers.kernels import choice

    tokens, cursor = torch.full((rows,), -1, device=DEVICE), torch.tensor([7], device=DEVICE)
    hand_over, found = HandOver.to(tokens, cursor), []
    for turn in range(SLOTS + 2):
        ids, both = choice.likeliest(numbers(rows, 5000), hand_over)
        assert hand_over.done and tokens.tolist() == ids.tolist() and cursor.item() == 8 + turn
        found.append(both.cpu())
    assert hand_over.turns.tolist() == [SLOTS + 2] * rows
    for turn in range(2, SLOTS + 2):
        assert torch.equal(hand_over.slots[turn % SLOTS], found[turn])


def test_likeliest_of_what_are_no_numbers_is_an_id_all_the_same():
    from mmcli.layers.kernels import choice

    ids, both = choice.likeliest(numbers(2, 5000) * torch.nan)
    assert all(0 <= id < 5000 for id in ids.tolist()) and both[1].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, width", [(1, 64), (3, 80), (17, 256)])
def test_angles(rows, width, dtype):
    from mmcli.layers.kernels import start

    positions = torch.arange(rows, device=DEVICE)[:, None] * 307 + 5
    periods = 10_000.0 ** (torch.arange(0, width, 2, device=DEVICE, dtype=torch.float32) / width)
    got = start.angles(positions, periods, dtype)
    for part, exact in zip(got, rotary_angles(positions, width, 10_000.0), strict=True):
        assert part.dtype == dtype
        torch.testing.assert_close(
            part.float(), exact.to(dtype).float(), rtol=0, atol=2.0**-8 if dtype != torch.float32 else 1e-5
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 1, 333), (17, 1, 1, 5000)])
def test_additive(shape, dtype):
    from mmcli.layers.kernels import start

    mask = numbers(*shape) > 0
    expected = torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)
    assert torch.equal(start.additive(mask, dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, width", [(1, 64), (3, 100), (17, 2304)])
def test_norm(rows, width, dtype):
    from mmcli.layers.kernels import residual_norm

    x, scale = numbers(rows, width, dtype=dtype), numbers(width, dtype=dtype)
    exact = torch.nn.functional.rms_norm(x.float(), (width,), scale.float(), 1e-6)
    assert_close(residual_norm.norm(x, scale, 1e-6), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, width", [(1, 64), (3, 640), (17, 100), (130, 32)])
@pytest.mark.parametrize("act, scaled, added", [(True, False, False), (False, True, True), (False, False, True)])
def test_channel_norm(rows, width, act, scaled, added, dtype):
    from mmcli.models.gemma3n.kernels import channel_norm

    x, residual = numbers(2, rows, width, dtype=dtype), numbers(2, rows, width, dtype=dtype) if added else None
    weight, scale = 1 + numbers(width) / 4, numbers(width) if scaled else None
    exact = channel_norm.plain(x.float(), weight, 1e-6, act, scale, None if residual is None else residual.float())
    assert_close(channel_norm.channel_norm(x, weight, 1e-6, act, scale, residual), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, length", [(1, 2), (3, 17)])
@pytest.mark.parametrize("heads, key_heads, width", [(8, 1, 256), (4, 2, 64), (6, 3, 80)])
@pytest.mark.parametrize("normed", ["", "rms", "layer"])
def test_placed(rows, length, heads, key_heads, width, normed, dtype):
    from mmcli.layers.kernels import placed
    from mmcli.layers.kernels.single_query import Norms

    qkv = numbers(rows * length, (heads + 2 * key_heads) * width, dtype=dtype)
    store = numbers(2, rows, key_heads, length + 9, width, dtype=dtype)
    positions = torch.arange(length, device=DEVICE) + torch.arange(rows, device=DEVICE)[:, None]
    angles = tuple(part.to(dtype) for part in rotary_angles(positions, width, 10_000.0))
    shifts = (numbers(width), numbers(width)) if normed == "layer" else ()
    norms = Norms(1 + numbers(width) / 4, 1 + numbers(width) / 4, 1e-6, *shifts) if normed else None
    exact, kept = store.float(), store.clone()
    expected = placed.plain(qkv.float(), *exact[..., 4:-5, :], tuple(part.float() for part in angles), norms)
    assert_close(placed.placed(qkv, *kept[..., 4:-5, :], angles, norms), expected, dtype)
    assert_close(kept, exact, dtype)
    assert torch.equal(kept[..., :4, :], store[..., :4, :]) and torch.equal(kept[..., -5:, :], store[..., -5:, :])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, vocabulary", [(1, 70), (3, 4096), (17, 9001)])
@pytest.mark.parametrize("cap", [None, 30.0])
def test_logits_in_float32(rows, vocabulary, cap, dtype):
    from mmcli.layers.kernels import logits

    y = 40 * numbers(rows, vocabulary, dtype=dtype)
    got, exact = logits.floats(y, cap), logits.plain(y, cap)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact, rtol=0, atol=0 if cap is None else 1e-5)
