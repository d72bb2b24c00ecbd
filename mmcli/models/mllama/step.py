"""The decode step through fused kernels: layers that attend to images, among those of Llama."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.layers.decoder import Layer
from mmcli.layers.decoder_step import LayerParts
from mmcli.layers.gated_mlp import GatedMLP
from mmcli.layers.kernels.matvec import product
from mmcli.layers.kernels.single_query import Norms, single_query
from mmcli.models.mllama.decoder import CrossContext, CrossLayer


@dataclass(frozen=True)
class CrossParts:
    """A layer with cross-attention, as `decoder_step.Parts`: keys and values [B, K, S, H] stand in its context."""

    layer: CrossLayer
    keys: Tensor
    values: Tensor
    context: CrossContext
    after_attention: Tensor | None = None
    after_mlp: Tensor | None = None

    @property
    def mlp(self) -> GatedMLP:
        return self.layer.mlp

    @property
    def before_attention(self) -> Tensor:
        return self.layer.norm_attention.weight

    @property
    def before_mlp(self) -> Tensor:
        return self.layer.norm_mlp.weight

    @property
    def gates(self) -> tuple[float, float]:
        assert self.layer.gates is not None
        return self.layer.gates

    @property
    def rows(self) -> Tensor:
        return self.context.attends[:, 0]

    @property
    def is_fused(self) -> bool:
        """Whether the kernels can read it: weights put together, a row of images for each of text, in one layout."""
        own = self.layer.gates is not None and self.mlp.gate_up is not None
        layouts = (part.stride(3) == 1 and part.stride(2) == part.shape[3] for part in (self.keys, self.values))
        return own and len(self.keys) == len(self.context.attends) and all(layouts)

    def attend(self, x: Tensor, angles: tuple[Tensor, Tensor], cache: KVCache) -> Tensor:
        cross, keys = self.layer.cross, self.keys
        norms = Norms(cross.norm_q.weight, None, cross.norm_q.eps or 0.0)
        unturned = torch.ones_like(angles[0]), torch.zeros_like(angles[1])
        last = torch.full((1,), keys.shape[2] - 1, device=x.device)
        y = single_query(
            product(x, cross.q),
            keys,
            self.values,
            unturned,
            self.context.mask,
            last,
            cross.scale,
            norms=norms,
            fresh=False,
        )
        return product(y, cross.out)


def layer_parts(
    layers: Iterable[nn.Module], mask: Tensor, context: CrossContext | None
) -> list[LayerParts | CrossParts]:
    """All layers for `run_layers`; without a `context` those for images are passed over."""
    keys_values = iter(()) if context is None else iter(context.images.layers)
    parts: list[LayerParts | CrossParts] = []
    for layer in layers:
        if isinstance(layer, Layer):
            parts.append(LayerParts(*layer.parts(mask)))
        elif context is not None:
            assert isinstance(layer, CrossLayer)
            parts.append(CrossParts(layer, *next(keys_values), context))
    return parts
