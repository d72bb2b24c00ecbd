"""Quantised weights: how they are made and stored beside their scales, and what they mean.

    NAME int8 [R, ...]       NAME_scale [R]          integer × the scale of its row
    NAME uint8 [R, K / 2]    NAME_scale [R, K / 32]  (integer − 8) × the scale of its group of 32 columns

A byte of the second form holds two 4-bit integers, the one of the even column in its lower half.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from mmcli.hub.safetensors_files import SCALE, TensorInfo, damaged
from mmcli.hub.weight_files import header_of, weight_files

if TYPE_CHECKING:
    from torch import Tensor

GROUP = 32  # columns of a row that share a scale
ZERO = 8  # the 4-bit integer that means nothing
LARGEST = 127
TINY = 1e-30  # a scale of numbers that are all 0
SMALLEST, LARGEST_HALF = 2.0**-24, 65504.0  # positive numbers of float16
ROWS = 512  # of a weight that are quantised at a time: no second copy of a large one is made
CACHED = 1 << 18  # numbers of them on a CPU, whose cache holds what is made on the way
TRIED = (1.0, 0.93, 0.86)  # shares of the scale that leaves nothing out: large numbers cut off, small ones finer

Storage: TypeAlias = Literal["int8", "int4"]
STORAGES: tuple[Storage, ...] = ("int8", "int4")
BITS: dict[Storage, float] = {"int8": 8, "int4": 4 + 16 / GROUP}  # of a number, those of its scale with it
QUANTIZED = "mmcli_quantize"  # the key in config.json that names the integers in which a folder is to be used


def meant(header: dict[str, TensorInfo]) -> Iterator[tuple[str, TensorInfo]]:
    """(name, type and shape) of the tensors that a file's header means: the quantised ones multiplied out.

    Their scales are none of them. A scale that belongs to no quantised tensor is left as what it is. Raises ValueError
    where the scales of 4-bit integers do not fit them.
    """
    for name, info in header.items():
        owner = header.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
        scale = header.get(name + SCALE)
        if owner is not None and (owner.dtype == "U8" or (owner.dtype == "I8" and info.shape == owner.shape[:1])):
            continue
        if scale is not None and info.dtype == "U8":
            yield name, TensorInfo(scale.dtype, _unpacked_shape(name, info, scale))
        elif scale is not None and info.dtype == "I8":
            yield name, TensorInfo(scale.dtype, info.shape)
        else:
            yield name, info


def meant_in(path: Path, header: dict[str, TensorInfo]) -> list[tuple[str, TensorInfo]]:
    """`meant` of a file's header. Raises ModelError."""
    try:
        return list(meant(header))
    except ValueError as error:
        raise damaged(path, error) from error


def parameter_count(folder: Path) -> int:
    """Numbers in all weight files of `folder`, from the headers alone; scales are none, two 4-bit integers are two."""
    return sum(info.count for path in weight_files(folder) for _, info in meant_in(path, header_of(path)))


def _unpacked_shape(name: str, packed: TensorInfo, scale: TensorInfo) -> tuple[int, ...]:
    rows, halves = packed.shape if len(packed.shape) == 2 else (0, 1)
    if halves % (GROUP // 2):
        raise ValueError(f"{name} of the shape {list(packed.shape)} is no matrix in groups of {GROUP} 4-bit integers")
    expected = (rows, 2 * halves // GROUP)
    if scale.shape != expected or not scale.is_floating_point:
        raise ValueError(
            f"{name} is of 4-bit integers, but {name}{SCALE} is {scale.dtype} of the shape {list(scale.shape)}; "
            f"expected floating-point numbers of the shape {list(expected)}"
        )
    return (rows, 2 * halves)


def multiplied(stored: "Tensor", scale: "Tensor") -> "Tensor":
    """What a quantised tensor means, in float32."""
    if stored.is_signed():
        return stored * scale.float().view(-1, *[1] * (stored.ndim - 1))
    groups = unpack(stored).char().sub_(ZERO).unflatten(-1, (-1, GROUP))
    return (groups * scale.float().unsqueeze(-1)).flatten(-2)


def quantize(weight: "Tensor", storage: Storage) -> "tuple[Tensor, Tensor]":
    """A matrix [R, K] of floating-point numbers → its integers and scales, in the form of the table above.

    Every number becomes the integer next to it. Scales are float32 for rows and float16 for groups, where they are an
    eighth of all bytes; each group gets that of a few with the least squared error. K must be a multiple of 32 there.
    """
    import torch

    rows, columns = weight.shape
    if storage == "int8":
        stored = weight.new_empty(rows, columns, dtype=torch.int8)
        scale = weight.new_empty(rows, dtype=torch.float32)
    else:
        stored = weight.new_empty(rows, columns // 2, dtype=torch.uint8)
        scale = weight.new_empty(rows, columns // GROUP, dtype=torch.float16)
    count = rows_at_a_time(weight)
    for part, integers, scales in zip(weight.split(count), stored.split(count), scale.split(count), strict=True):
        found = _rows(part.float()) if storage == "int8" else _groups(part.float())
        integers.copy_(found[0])
        scales.copy_(found[1])
    return stored, scale


def rows_at_a_time(weight: "Tensor") -> int:
    """Rows of a matrix that are quantised together."""
    return ROWS if weight.device.type != "cpu" else max(1, min(ROWS, CACHED // max(1, weight.shape[1])))


def _rows(weight: "Tensor") -> "tuple[Tensor, Tensor]":
    scale = weight.abs().amax(dim=-1).clamp_(min=TINY).mul_(1 / LARGEST)
    return (weight / scale[:, None]).round_(), scale


def _groups(weight: "Tensor") -> "tuple[Tensor, Tensor]":
    groups = weight.unflatten(-1, (-1, GROUP))
    # The number furthest from 0 becomes −8, so that all sixteen integers are in use.
    place = groups.abs().argmax(dim=-1, keepdim=True)
    whole = groups.gather(-1, place) / -ZERO
    best = error = scale = None
    for share in TRIED:
        tried = (whole * share).half()
        tried = tried.where(tried.abs() >= SMALLEST, SMALLEST).clamp_(-LARGEST_HALF, LARGEST_HALF).float()
        integers = (groups / tried).round_().clamp_(-ZERO, ZERO - 1)
        missed = (integers * tried).sub_(groups).square_().sum(dim=-1, keepdim=True)
        if best is None or error is None or scale is None:
            best, error, scale = integers, missed, tried
            continue
        better = missed < error
        best, error, scale = integers.where(better, best), missed.where(better, error), tried.where(better, scale)
    assert best is not None and scale is not None
    return pack(best.flatten(-2).add_(ZERO)), scale.squeeze(-1).half()


def pack(integers: "Tensor") -> "Tensor":
    """Integers from 0 to 15 [..., K] with an even K, two a byte: uint8 [..., K / 2]."""
    low, high = integers.byte().unflatten(-1, (-1, 2)).unbind(-1)
    return low | high << 4


def unpack(packed: "Tensor") -> "Tensor":
    """The opposite of `pack`: uint8 [..., K / 2] → uint8 [..., K]."""
    integers = packed.new_empty(*packed.shape, 2)
    integers[..., 0] = packed & 15
    integers[..., 1] = packed >> 4
    return integers.flatten(-2)
