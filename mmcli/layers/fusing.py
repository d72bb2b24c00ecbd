"""The last of three steps to a model that runs: load, quantise, fuse. Training and saving leave it out.

Fusing puts weights together that read the same numbers and settles what follows from weights that change no more. A
part that has something to fuse computes the same without it, to rounding.
"""

from torch import nn

from mmcli.layers.lora import LoraLinear


class Fusable(nn.Module):
    """A part that can rearrange its weights for speed."""

    def fuse(self) -> None:
        """Rearrange them, once and for good: checkpoints have no names for what comes of it."""
        raise NotImplementedError


def fuse(module: nn.Module) -> None:
    """Fuse every part of `module` that can be."""
    # Only those are listed: what a part takes out of itself must be free before the next one needs memory.
    for part in [part for part in module.modules() if isinstance(part, Fusable)]:
        if not any(isinstance(child, LoraLinear) for child in part.children()):  # which stays beside its layer
            part.fuse()
