"""What a step does before its first product, as one kernel: it claims its place in the cache, and adds a token's vector
and its position's."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.attention import additive
from mmcli.layers.kernels.functions import layer_normed


def start(tokens: Tensor, cache: KVCache, table: Tensor, position: Tensor, norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    """What `plain` computes."""
    rows, width, length = len(tokens), table.shape[1], cache.capacity
    x, normed = torch.empty(2, rows, width, dtype=table.dtype, device=table.device)
    bias = torch.empty(rows, 1, 1, length, dtype=table.dtype, device=table.device)
    block = triton.next_power_of_2(width)
    # It lets no kernel begin early, so that whoever follows may read what it wrote before it waits (`launch.py`).
    _start[(rows,)](
        tokens, cache.positions, cache.valid.view(torch.uint8), cache.cursor, table, position, norm.weight, norm.bias,
        x, normed, bias, cache.valid.stride(0), length, width, torch.finfo(table.dtype).min, norm.eps,
        PLACES=triton.next_power_of_2(length), BLOCK=block, num_warps=min(16, max(1, block // 256)),
    )  # fmt: skip
    return x, normed, bias


def plain(tokens: Tensor, cache: KVCache, table: Tensor, position: Tensor, norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [R], a fixed cache, tables of tokens [V, D] and of positions, and the first norm → vectors [R, D], these
    normed, and the cache's mask [R, 1, 1, S] as numbers to add."""
    x = table[tokens] + position[cache.positions]
    cache.extend(torch.ones_like(tokens[:, None], dtype=torch.bool))
    return x, norm(x), additive(cache.step_mask(), x.dtype)


@triton.jit
def _start(
    tokens_ptr, positions_ptr, valid_ptr, cursor_ptr, table_ptr, position_ptr, weight_ptr, shift_ptr,
    x_ptr, normed_ptr, bias_ptr, valid_row, length, width, low, epsilon, PLACES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    there = column < width
    token, position, cursor = tl.load(tokens_ptr + row), tl.load(positions_ptr + row), tl.load(cursor_ptr)
    of_token = tl.load(table_ptr + token * width + column, mask=there, other=0.0).to(tl.float32)
    of_position = tl.load(position_ptr + position * width + column, mask=there, other=0.0).to(tl.float32)
    x = (of_token + of_position).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row * width + column, x, mask=there)
    weight = tl.load(weight_ptr + column, mask=there, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + column, mask=there, other=0.0).to(tl.float32)
    normed = layer_normed(x.to(tl.float32), there, width, epsilon) * weight + shift
    tl.store(normed_ptr + row * width + column, normed.to(normed_ptr.dtype.element_ty), mask=there)
    tl.store(positions_ptr + row, position + 1)
    place = tl.arange(0, PLACES)
    valid_ptr += row * valid_row
    seen = (tl.load(valid_ptr + place, mask=place < length, other=0) != 0) | (place == cursor)
    tl.store(
        bias_ptr + row * length + place, tl.where(seen, 0.0, low).to(bias_ptr.dtype.element_ty), mask=place < length
    )
    tl.store(valid_ptr + cursor, 1)
