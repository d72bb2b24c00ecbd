"""A decode step and a prompt through fused kernels: layers that attend to images, among those of Llama."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.single_query import Norms, single_query


@dataclass(frozen=True)
class CrossParts:
    """A layer with cross-attention, as `decoder_step.Parts`."""

    layer: Any  # `decoder.CrossLayer`
    keys: Tensor  # of the images, [B, K, S, H]
    values: Tensor
    context: Any  # `decoder.CrossContext`
    tokens: int = 1  # of each row
    after_attention: Tensor | None = None
    after_mlp: Tensor | None = None

    @property
    def mlp(self) -> GatedMLP:
        mlp: GatedMLP = self.layer.mlp
        return mlp

    @property
    def before_attention(self) -> Tensor:
        weight: Tensor = self.layer.norm_attention.weight
        return weight

    @property
    def before_mlp(self) -> Tensor:
        weight: Tensor = self.layer.norm_mlp.weight
        return weight

    @property
    def gates(self) -> tuple[float, float]:
        first, second = self.layer.gates
        return first, second

    @property
    def rows(self) -> Tensor:
        attends: Tensor = self.context.attends
        return attends[:, 0]

    @property
    def is_fused(self) -> bool:
        """Whether the kernels can read it: weights put together, a row of images for each of text, in one layout."""
        own = self.layer.gates is not None and self.mlp.gate_up is not None
        layouts = (part.stride(3) == 1 and part.stride(2) == part.shape[3] for part in (self.keys, self.values))
        return own and len(self.keys) == len(self.context.attends) and all(layouts)

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache, last_only: bool) -> Tensor:
        cross, mask = self.layer.cross, self.context.mask
        norms = Norms(cross.norm_q.weight, None, cross.norm_q.eps or 0.0)
        q = product(x, cross.q)
        y = single_query(q, self.keys, self.values, None, mask, None, cross.scale, norms=norms, fresh=False)
        return product(y, cross.out)


class CrossPromptParts(CrossParts):
    """The same of a prompt's tokens; all of them go on."""

    @property
    def rows(self) -> Tensor:
        attends: Tensor = self.context.attends
        return attends.expand(-1, self.tokens, -1).flatten(0, 1)

    @property
    def is_fused(self) -> bool:
        """Whether its weights are put together, with a row of images for each of text."""
        own = self.layer.gates is not None and self.mlp.gate_up is not None
        return own and len(self.keys) == len(self.context.attends)

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache, last_only: bool) -> Tensor:
        x = x.unflatten(0, (-1, self.tokens))
        attended: Tensor = self.layer.cross(x, self.keys, self.values, self.context.mask)
        return attended.flatten(0, 1)
