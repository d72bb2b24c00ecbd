"""The mask of cross-attention: which tokens of a prompt attend to which of its images.

Tokens from an image's own up to the next image's attend to it; images in a row are attended to together. Source:
transformers `models/mllama/processing_mllama.py` (`get_cross_attention_token_mask`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def image_spans(tokens: Sequence[int], image_token: int) -> list[tuple[int, int]]:
    """Of each image in order the places (from, up to) of the tokens that attend to it."""
    places = [place for place, token in enumerate(tokens) if token == image_token]
    spans: list[tuple[int, int]] = []
    end = len(tokens)
    following = end
    for place in reversed(places):
        end = end if following == place + 1 else following
        following = place
        spans.append((place, end))
    return spans[::-1]


def cross_attention_mask(tokens: Tensor, image_token: int, counts: Sequence[int], most: int, patches: int) -> Tensor:
    """Prompts [B, T] → [B, T, S] True where a token attends to a key; S are those of as many images as any row has.

    `counts` are the tiles of all images in order. An image has `most` · `patches` keys, of which those of tiles that it
    lacks are attended to by none.
    """
    spans = [image_spans(row, image_token) for row in tokens.tolist()]
    sizes = iter(counts)
    images = max(map(len, spans))
    result = torch.zeros(*tokens.shape, images, most, dtype=torch.bool)
    for row, own in enumerate(spans):
        for image, (start, end) in enumerate(own):
            result[row, start:end, image, : next(sizes)] = True
    return result.flatten(2).repeat_interleave(patches, dim=2)
