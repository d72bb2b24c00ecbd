"""How many images or windows of audio go through a model together by default."""

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded

ON_GPU = 16
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


def is_large(loaded: "Loaded", large: int) -> bool:
    """Whether a model has more than `large` parameters, so many that a CPU is busy with few rows."""
    weights = chain(loaded.model.parameters(), loaded.model.buffers())  # packed ones are buffers
    return sum(weight.numel() for weight in weights) > large
