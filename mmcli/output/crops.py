"""Objects as images of their own: the part of the image in the box, or the object alone where it has a mask."""

import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from mmcli import rle
from mmcli.decode.locations import pixel_box
from mmcli.output.schema import Record

LONGEST = 60  # bytes of a label in a file's name


def crops(
    image: Image.Image, record: Record, *, cut_out: bool = False, first: int = 1
) -> Iterator[tuple[str, Image.Image]]:
    """The name and the image of each object: `1-cat`, `2-dog`, numbered from `first` in the order of the record.

    `image` is the record's, in full size. With `cut_out` what is not the object is transparent, and objects without a
    mask are left out, as are those whose mask is empty.
    """
    for number, found in enumerate(record.objects, first):
        box = pixel_box(found.box, *image.size)
        part = image.crop(box)
        if cut_out:
            if found.mask is None:
                continue
            x0, y0, x1, y1 = box
            inside = rle.decode(found.mask)[y0:y1, x0:x1]
            if not inside.any():
                continue
            part = part.convert("RGB")
            part.putalpha(Image.fromarray(inside.astype(np.uint8) * 255))
        yield f"{number}-{file_label(found.label)}", part


def file_label(label: str) -> str:
    """A label as a part of a file's name on any system: letters and digits of any script, dashes for all else."""
    text = re.sub(r"[^\w]+", "-", label.encode("utf-8", "replace").decode()).strip("-_").lower()
    return text.encode()[:LONGEST].decode("utf-8", "ignore").rstrip("-_") or "object"
