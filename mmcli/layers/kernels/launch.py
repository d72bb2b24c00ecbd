"""How kernels of a step follow each other: each may begin while the one before it ends.

On Hopper and later a kernel can be started before its predecessor is done, loads what that does not write (weights),
and then waits for the rest (NVIDIA, CUDA programming guide, "Programmatic Dependent Launch"). It hides the microsecond
that a start takes, which is as long as a small kernel runs. Every kernel here lets the next one start at once, and
reads nothing that a kernel wrote, and writes nothing, before it has waited.
"""

import os
from functools import cache
from typing import Any

import torch

SWITCH = "MMCLI_OVERLAP"  # environment variable: 0 = a kernel begins when the one before it is done


def overlap(device: torch.device) -> dict[str, Any]:
    """Settings for the start of a kernel on this device."""
    return (
        _overlapping(device.index) if device.type == "cuda" and os.environ.get(SWITCH, "1") == "1" else {"PDL": False}
    )


@cache
def _overlapping(index: int | None) -> dict[str, Any]:
    new_enough = torch.cuda.get_device_capability(index) >= (9, 0)
    return {"PDL": True, "launch_pdl": True} if new_enough else {"PDL": False}


@cache
def is_hopper(index: int | None) -> bool:
    """Whether that CUDA device (None: the current one) is of NVIDIA's Hopper generation."""
    return torch.cuda.get_device_capability(index)[0] == 9


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, which it does on the CPU too (for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"
