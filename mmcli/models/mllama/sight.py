"""Which tokens of a prompt see which of its images.

An image is seen from its own token up to the next image's; images in a row are seen together. Source: transformers
`models/mllama/processing_mllama.py` (`get_cross_attention_token_mask`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def seen(tokens: Sequence[int], image_token: int) -> list[tuple[int, int]]:
    """Of each image in order the places (from, up to) of the tokens that see it."""
    places = [place for place, token in enumerate(tokens) if token == image_token]
    spans: list[tuple[int, int]] = []
    end = len(tokens)
    following = end
    for place in reversed(places):
        end = end if following == place + 1 else following
        following = place
        spans.append((place, end))
    return spans[::-1]


def what_is_seen(tokens: Tensor, image_token: int, counts: Sequence[int], most: int, patches: int) -> Tensor:
    """Prompts [B, T] → [B, T, S] True where a token sees a key; S are those of as many images as any row has.

    `counts` are the tiles of all images in order. An image has `most` · `patches` keys, of which those of tiles that it
    lacks are seen by nobody.
    """
    spans = [seen(row, image_token) for row in tokens.tolist()]
    sizes = iter(counts)
    images = max(map(len, spans))
    result = torch.zeros(*tokens.shape, images, most, dtype=torch.bool)
    for row, own in enumerate(spans):
        for image, (start, end) in enumerate(own):
            result[row, start:end, image, : next(sizes)] = True
    return result.flatten(2).repeat_interleave(patches, dim=2)
