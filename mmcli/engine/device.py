"""Where a model runs and in which data type."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from mmcli.errors import UsageError

SWITCH = "MMCLI_CPU_NATIVE"  # environment variable: 0 = a CPU computes in float32 alone, which all kinds have

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Below this many bytes of float32 weights a shorter type saves nothing worth its rounding.
SMALL_MODEL = 1 << 30


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" (CUDA, else Metal, else CPU), "cpu", "cuda", "cuda:N" or "mps" → a device that is there.

    Raises UsageError for an unknown name and for a device this machine or this build of PyTorch lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdigit())):
        raise UsageError(f"There is no device {name!r}", "Choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("PyTorch sees no CUDA device here", "Choose --device cpu, or install a CUDA build of PyTorch")
    if number and int(number) >= torch.cuda.device_count():
        raise UsageError(f"There is no {name}; PyTorch sees {torch.cuda.device_count()} CUDA device(s)")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("Metal (mps) is not available here", "Choose --device cpu")
    return torch.device(name)


def prepare_device(device: torch.device) -> None:
    """Make a CUDA device the current one, and let convolutions in float32 be computed in it, for the whole process.

    Kernels of our own run on the current device only. cuDNN rounds what convolutions multiply to 10 bits (TF32) unless
    it is told not to, and how it does so depends on how many images there are: thresholds then decide otherwise in a
    batch than alone.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        if device.index is not None:
            torch.cuda.set_device(device)


def free_memory(device: torch.device) -> int:
    """Free bytes on a CUDA device, without those that PyTorch holds in reserve."""
    return torch.cuda.mem_get_info(device)[0]


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. To a CUDA device it is on its way: the host does not wait until that has done what it was
    given before."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def sent_together(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Tensors on a device, `sent` there and changed to a type then: to a CUDA device several of one shape go as one, of
    which each is a part there."""
    shapes = {(tensor.shape, tensor.dtype, tensor.device.type) for tensor in tensors}
    if device.type != "cuda" or len(tensors) == 1 or len(shapes) != 1 or tensors[0].device.type != "cpu":
        return tuple(sent(tensor, device).to(dtype) for tensor in tensors)
    whole = torch.empty(len(tensors), *tensors[0].shape, dtype=tensors[0].dtype, pin_memory=True)
    torch.stack(tuple(tensors), out=whole)
    return whole.to(device, non_blocking=True).to(dtype).unbind()


def choose_dtype(name: str, device: torch.device, parameters: int | None = None) -> torch.dtype:
    """ "auto", "float32", "bfloat16" or "float16" → a type.

    "auto" is bfloat16 where the device computes in it natively and float32 elsewhere (Metal included, whose
    bfloat16 depends on the system's version); a model known to be small (`parameters`) stays in float32.
    Raises UsageError for another name.
    """
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise UsageError(f"There is no data type {name!r}", f"Choose auto, {', '.join(DTYPES)}")
    if parameters is not None and 4 * parameters < SMALL_MODEL:
        return torch.float32
    return torch.bfloat16 if _native_bfloat16(device) else torch.float32


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bfloat16_pays()


def int8_pays() -> bool:
    """Whether this CPU multiplies 8-bit integers natively (VNNI); elsewhere float32 is as fast."""
    return _has("_is_vnni_supported", "_is_avx512_vnni_supported")


def bfloat16_pays() -> bool:
    """Whether this CPU multiplies bfloat16 natively."""
    return _has("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def has_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16 (AMX), which PyTorch's fused attention uses."""
    return _has("_is_amx_tile_supported")


def _has(*probes: str) -> bool:
    """Whether one of PyTorch's probes says so; which there are depends on its version."""
    return os.environ.get(SWITCH) != "0" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
