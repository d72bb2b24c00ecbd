"""Objects in the language of location tokens and mask codes: the answer that a model is taught to give."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from mmcli.decode.locations import decode_box, encode_box, not_empty
from mmcli.decode.segments import format_objects
from mmcli.example import Box, LabelledObject, Polygons, RunLengths
from mmcli.models.drawn_masks import cut

if TYPE_CHECKING:
    from mmcli.layers.mask_vqvae import MaskVQVAE


def object_text(objects: Sequence[LabelledObject], vqvae: "MaskVQVAE | None" = None) -> str:
    """The answer that names these objects, in their order; "" for none.

    With a mask codebook those that have a mask get its codes. Raises ModelError where it holds the decoder only.
    """
    places = [not_empty(encode_box(one.box, 1, 1)) for one in objects]
    masked = [i for i, one in enumerate(objects) if one.mask is not None] if vqvae is not None else []
    codes: dict[int, tuple[int, ...]] = {}
    if vqvae is not None and masked:
        # Codes are read inside of the box as it is written, so that is where the mask is cut.
        pairs = [(objects[i].mask, decode_box(places[i], 1, 1)) for i in masked]
        codes = dict(zip(masked, _codes(pairs, vqvae), strict=True))  # type: ignore[arg-type]
    return format_objects((place, codes.get(i), objects[i].label) for i, place in enumerate(places))


def codes_of(mask: Polygons | RunLengths, box: Box, vqvae: "MaskVQVAE") -> tuple[int, ...]:
    """The sixteen codes of a mask inside a box (in shares of the sides). Raises ModelError without an encoder."""
    return _codes([(mask, box)], vqvae)[0]


def _codes(pairs: "Sequence[tuple[Polygons | RunLengths, Box]]", vqvae: "MaskVQVAE") -> list[tuple[int, ...]]:
    masks = torch.from_numpy(np.stack([cut(mask, box) for mask, box in pairs]))
    device = next(vqvae.parameters()).device
    return [tuple(row) for row in vqvae.encode(masks.to(device)).tolist()]
