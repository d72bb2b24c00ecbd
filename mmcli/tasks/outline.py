"""Masks for objects whose boxes are there already, whoever found them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmcli.boxes import inside
from mmcli.output.schema import Object
from mmcli.tasks.answer import in_words
from mmcli.tasks.task import Request

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.models.finding import Found
    from mmcli.models.loaded import Loaded

_SIGNS = re.compile(r"[<>;\s\x00-\x1f]+")  # what would be read as tokens, or as the end of a label
LONGEST = 100  # characters of a label in a prompt

Given = Sequence[Object]  # what was found in one image
Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Size = tuple[int, int]  # its width and height


def words_of(label: str) -> str:
    """A label as it can stand in a prompt."""
    return _SIGNS.sub(" ", label.encode("utf-8", "replace").decode())[:LONGEST].strip()


def outline(
    loaded: "Loaded",
    images: "Sequence[Image.Image]",
    sizes: Sequence[Size],
    given: Sequence[Given],
    request: Request,
) -> "Sequence[Found]":
    """What the model writes about the objects of each image, as far as they lie in it.

    `images` may be smaller than their `sizes`, in which the boxes are. Raises ModelError where memory runs out.
    """
    from mmcli.engine.sampling import Sampling

    assert loaded.family is not None and loaded.family.outline is not None  # as `SegmentRequest.require` made sure
    boxes = [
        [(words_of(one.label), _shares(box, size)) for one, box in in_image(own, size)]
        for own, size in zip(given, sizes, strict=True)
    ]
    sampling = Sampling(request.temperature, request.top_k, request.top_p, request.seed)
    try:
        return loaded.family.outline(loaded, images, boxes, sampling=sampling, divisor=request.loc_divisor)
    except RuntimeError as error:
        raise in_words(error, len(images), "picture") from error


def in_image(given: Given, size: Size) -> "list[tuple[Object, Box]]":
    """The objects that lie in an image, at least in part, with that part of their boxes."""
    boxes = ((one, inside(one.box, *size)) for one in given)
    return [(one, box) for one, box in boxes if box is not None]


def _shares(box: "Box", size: Size) -> "Box":
    x0, y0, x1, y1 = box
    return x0 / size[0], y0 / size[1], x1 / size[0], y1 / size[1]
