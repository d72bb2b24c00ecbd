"""How many images or windows of audio go through a model together by default."""

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded

ON_GPU = 16
PLACES_ON_GPU = 32  # of rows that join: the fused kernels take no more
ON_CPU = 8
OF_LARGE_ON_CPU = 2  # the key-value cache of one row may have some hundred megabytes there

# Parameters above which a model is large: those of images work on more tokens at once.
LARGE_FOR_IMAGES = 500_000_000
LARGE_FOR_AUDIO = 200_000_000


def default_batch_size(loaded: "Loaded", large: int) -> int:
    """How many rows keep the model's device busy; on a CPU fewer of a model with more than `large` parameters."""
    if loaded.device.type != "cpu":
        return ON_GPU
    return OF_LARGE_ON_CPU if is_large(loaded, large) else ON_CPU


def default_places(loaded: "Loaded", size: int) -> int:
    """How many rows of images that join are written at the same time, where `size` are read together.

    A GPU writes more, if its memory has room for their keys and values (`engine/scheduler.py`): a step costs about the
    same. Where images keep their aspect their prompts differ in length, and only as many are written as are read.
    """
    return PLACES_ON_GPU if loaded.device.type == "cuda" and loaded.processor.square else size


def is_large(loaded: "Loaded", large: int) -> bool:
    """Whether a model has more than `large` parameters, so many that a CPU is busy with few rows."""
    weights = chain(loaded.model.parameters(), loaded.model.buffers())  # packed ones are buffers
    return sum(weight.numel() for weight in weights) > large
