"""What a machine has to run models with."""

from dataclasses import dataclass, replace

import torch

from mmcli.engine.cpu import allowed_cores
from mmcli.engine.device import bfloat16_pays
from mmcli.engine.memory import memory_limit


@dataclass(frozen=True)
class Machine:
    """Memory and devices; None where it is not known, or where there is none."""

    cores: int
    memory: int | None  # bytes that a process may have
    bfloat16: bool = False  # whether the processor is fast at it
    gpu: str | None = None
    gpu_memory: int | None = None  # bytes


def this_machine(memory: int | None = None) -> Machine:
    """The machine that this runs on, with its first GPU; `memory` pretends that it has so many bytes."""
    machine = Machine(allowed_cores(), memory or memory_limit(), bfloat16_pays())
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return replace(machine, gpu=properties.name, gpu_memory=properties.total_memory)
    if torch.backends.mps.is_available():
        return replace(machine, gpu="Metal", gpu_memory=torch.mps.recommended_max_memory())
    return machine
