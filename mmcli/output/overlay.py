"""An image with what was found drawn in: masks, boxes and labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmcli import rle
from mmcli.boxes import area
from mmcli.output.schema import Object, Record
from mmcli.output.tags import Tag, place

# Vivid colours, neighbours far apart, that keep apart from most photographs and from each other.
PALETTE = (
    (255, 56, 92), (0, 166, 255), (255, 179, 0), (124, 77, 255), (0, 200, 83), (255, 109, 0), (0, 191, 165),
    (224, 64, 251), (174, 214, 0), (41, 98, 255), (255, 128, 171), (0, 229, 255), (213, 0, 50), (255, 234, 60),
    (149, 117, 205), (46, 125, 50),
)  # fmt: skip
DARK = (16, 16, 20)

Colour = tuple[int, int, int]
PixelBox = tuple[int, int, int, int]


@dataclass(frozen=True)
class Style:
    """Sizes in pixels that suit an image, from the square root of its area."""

    line: int  # width of a box's line
    halo: int  # width of the dark rim on both sides of it
    font: int

    @classmethod
    def of(cls, size: tuple[int, int], objects: int) -> "Style":
        scale = (size[0] * size[1]) ** 0.5
        line = max(2, round(scale / 280))
        crowd = min(1.0, (12 / max(objects, 1)) ** 0.3)  # many objects are small ones, and their tags cover more
        return cls(line=line, halo=max(1, round(line / 3)), font=max(11, round(crowd * scale / 42)))


def draw(image: Image.Image, record: Record) -> Image.Image:
    """The image of a record, full size, with its objects drawn in: on itself if it is RGB, for it may be large.

    A label has the same colour in every image, unless two labels of one image would share it.
    """
    canvas = image if image.mode == "RGB" else image.convert("RGB")
    objects = sorted(record.objects, key=lambda found: -area(found.box))  # the large ones below
    colours = label_colours([found.label for found in objects])
    style = Style.of(canvas.size, len(objects))
    for found in objects:
        if found.mask is not None:
            _draw_mask(canvas, rle.decode(found.mask), colours[found.label], style)
    boxes = [_line_box(found.box, canvas.size, style) for found in objects]
    # Where a mask shows the object its box is only a hint, in a thinner line.
    widths = [max(1, style.line // 2) if found.mask is not None else style.line for found in objects]
    _draw_boxes(canvas, objects, boxes, [colours[found.label] for found in objects], widths, style.halo)
    tags = [Tag(found.label, colours[found.label], style.font, canvas.width) for found in objects]
    named = [(tag, box) for tag, box in zip(tags, boxes, strict=True) if tag.label]
    for (tag, _), corner in zip(named, place(named, canvas.size, style.line), strict=True):
        canvas.paste(tag.image.convert("RGB"), corner, tag.image.getchannel("A"))
    return canvas


def label_colours(labels: Sequence[str]) -> dict[str, Colour]:
    """A colour for each label, from its name; of labels that meet, the later in the alphabet moves on."""
    taken: dict[int, str] = {}
    for label in sorted(set(labels)):
        index = crc32(label.encode("utf-8", "replace")) % len(PALETTE)
        while index in taken and len(taken) < len(PALETTE):
            index = (index + 1) % len(PALETTE)
        taken.setdefault(index, label)
        if taken[index] != label:  # more labels than colours
            taken[len(PALETTE) + len(taken)] = label
    return {label: PALETTE[index % len(PALETTE)] for index, label in taken.items()}


def _line_box(box: Sequence[float], size: tuple[int, int], style: Style) -> PixelBox:
    """The middle of a box's line, moved in just so far that line and rim stay inside the image."""
    margin = style.line // 2 + style.halo

    def inside(value: float, side: int) -> int:
        return min(max(round(value), margin), max(side - 1 - margin, margin))

    x0, y0, x1, y1 = box
    return inside(x0, size[0]), inside(y0, size[1]), inside(x1, size[0]), inside(y1, size[1])


def _draw_boxes(
    canvas: Image.Image,
    objects: Sequence[Object],
    boxes: list[PixelBox],
    colours: list[Colour],
    widths: list[int],
    halo: int,
) -> None:
    """All lines, each over a half transparent dark rim that parts it from a background of its own colour.

    They go around the box, or from corner to corner of a quad.
    """
    pen = ImageDraw.Draw(canvas, "RGBA")
    for found, (x0, y0, x1, y1), colour, line in zip(objects, boxes, colours, widths, strict=True):
        if found.quad is not None:
            for width, fill in ((line + 2 * halo, (*DARK, 120)), (line, (*colour, 255))):
                pen.line([*found.quad, *found.quad[:4]], fill=fill, width=width, joint="curve")
            continue
        for reach, width, fill in (
            (line // 2 + halo, line + 2 * halo, (*DARK, 120)),
            (line // 2, line, (*colour, 255)),
        ):
            corners = (x0 - reach, y0 - reach, x1 + reach, y1 + reach)
            pen.rounded_rectangle(corners, radius=reach + line, outline=fill, width=width)


# How far a pixel lies outside (+) or inside (−) of an edge, in blur radii, by the blurred mask's value there.
_DISTANCE = -np.array([NormalDist().inv_cdf(min(max(value / 255, 1e-4), 1 - 1e-4)) for value in range(256)])


def _draw_mask(canvas: Image.Image, mask: np.ndarray, colour: Colour, style: Style) -> None:
    """A see-through fill with a solid outline; blurring the mask gives each pixel its distance from a smooth edge."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    radius = float(style.line)
    margin = round(3 * radius) + 1
    x0, y0 = max(columns[0] - margin, 0), max(rows[0] - margin, 0)
    x1, y1 = min(columns[-1] + margin + 1, canvas.width), min(rows[-1] + margin + 1, canvas.height)
    part = np.zeros((y1 - y0, x1 - x0), np.uint8)
    np.copyto(part, 255, where=mask[y0:y1, x0:x1])
    del mask  # of a large image no more is kept than one at a time needs
    blurred = Image.fromarray(part).filter(ImageFilter.GaussianBlur(radius))
    del part
    distance = _DISTANCE * radius

    def within(reach: float) -> np.ndarray:
        """Coverage of the band around the edge, its own edges one pixel soft."""
        return np.clip(reach + 0.5 - np.abs(distance), 0, 1)

    fill = 0.38 * np.clip(0.5 - distance, 0, 1)
    line = within(0.4 * style.line)
    rim = 0.45 * within(0.4 * style.line + style.halo)
    for paint, strength in (colour, fill), (DARK, rim), (colour, line):
        alpha = blurred.point([round(255 * value) for value in strength])
        canvas.paste(paint, (int(x0), int(y0)), alpha)
