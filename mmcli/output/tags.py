"""Labels as filled tags, and where they go in an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from mmcli.boxes import area

Colour = tuple[int, int, int]
PixelBox = tuple[int, int, int, int]

RIM = (16, 16, 20)  # parts tags of one colour from each other
_FINE = 3  # tags are drawn this much larger and reduced, for smooth corners

# Fonts that other scripts need, tried in this order where the system has them; the built-in one knows Latin only.
_OTHER_FONTS = (
    "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc", "NotoSans-Bold.ttf", "DejaVuSans-Bold.ttf", "DejaVuSans.ttf",
    "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "YuGothB.ttc", "malgun.ttf", "arial.ttf",
)  # fmt: skip


@dataclass(frozen=True)
class Tag:
    """A label in a filled, rounded tag; `image` is RGBA. A label too long for the image is cut with an ellipsis."""

    label: str
    colour: Colour
    font: int
    longest: int

    @cached_property
    def image(self) -> Image.Image:
        size = self.font * _FINE
        text, font = lettering(" ".join(self.label.split()), size, self.longest * _FINE - size)
        left, _, right, _ = font.getbbox(text)
        ascent, descent = font.getmetrics()
        across, above = round(0.42 * size), round(0.16 * size)
        width, height = round(right - left) + 2 * across, ascent + descent + 2 * above
        tag = Image.new("RGBA", (width, height), (*RIM, 0))
        pen = ImageDraw.Draw(tag)
        rim, radius = max(_FINE, round(0.05 * size)), round(0.3 * size)
        pen.rounded_rectangle((0, 0, width - 1, height - 1), radius, fill=(*RIM, 110))
        inner = (rim, rim, width - 1 - rim, height - 1 - rim)
        pen.rounded_rectangle(inner, radius - rim, fill=(*self.colour, 255))
        pen.text((across - left, above), text, font=font, fill=(*ink_on(self.colour), 255))
        return tag.resize((-(-width // _FINE), -(-height // _FINE)), Image.Resampling.BOX)

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


def lettering(text: str, size: int, room: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text fit for one line of so many pixels, cut with an ellipsis if need be, and a font that has its letters."""
    text = _plain(text)
    font = _font(size, text)
    if font.getlength(text) <= room:
        return text, font
    while len(text) > 1 and font.getlength(text + "…") > room:
        text = text[:-1]
    return text.rstrip() + "…", font


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever has the higher contrast on `colour` (WCAG 2.2, relative luminance)."""

    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = map(linear, colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def place(tags: Sequence[tuple[Tag, PixelBox]], size: tuple[int, int], line: int) -> list[tuple[int, int]]:
    """The upper left corner of each tag: inside the image, at its box, and where it hides least.

    Hiding another tag is worst; next comes hiding what a box holds, the more of it the worse.
    """
    taken: list[PixelBox] = []
    corners = []
    boxes = [box for _, box in tags]
    for tag, box in tags:

        def cost(spot: tuple[int, int], tag: Tag = tag) -> float:
            here = _rectangle(spot, tag.size)
            hidden = sum(_overlap(here, other) / max(area(other), 1) for other in boxes)
            cost = 10 * sum(_overlap(here, other) for other in taken) / area(here) + hidden
            return round(cost, 2)  # a pixel more or less is no reason to leave the better place

        best = min((_moved_in(spot, tag.size, size) for spot in _spots(box, tag.size, line)), key=cost)
        taken.append(_rectangle(best, tag.size))
        corners.append(best)
    return corners


def _spots(box: PixelBox, tag: tuple[int, int], line: int) -> list[tuple[int, int]]:
    """Corners for a tag at a box, the best first: above, inside at the top, below, inside at the bottom, beside."""
    (x0, y0, x1, y1), (width, height), edge = box, tag, line // 2
    lefts = x0 - edge, x1 + edge + 1 - width
    tops = y0 - edge - height, y0 + edge + 1, y1 + edge + 1, y1 - edge - height
    inner = range(y0 + edge + 1 + height, y1 - edge - 2 * height, height)
    return [(left, top) for top in tops for left in lefts] + [(lefts[0], top) for top in inner]


def _moved_in(spot: tuple[int, int], tag: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    x, y = (max(min(place, side - length), 0) for place, length, side in zip(spot, tag, size, strict=True))
    return x, y


def _rectangle(corner: tuple[int, int], size: tuple[int, int]) -> PixelBox:
    return corner[0], corner[1], corner[0] + size[0], corner[1] + size[1]


def _overlap(one: PixelBox, other: PixelBox) -> int:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


@lru_cache(maxsize=64)
def _font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or the first of the system's that has every character of `text`."""
    own = cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))  # FreeType is in every wheel of Pillow
    if _covers(own, text):
        return own
    for name in _OTHER_FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        if _covers(font, text):
            return font
    return own


def _covers(font: ImageFont.FreeTypeFont, text: str) -> bool:
    """Whether no character of `text` is drawn as the font's sign for a missing one."""
    missing = bytes(font.getmask("\U0010fffe"))
    return all(character.isspace() or bytes(font.getmask(character)) != missing for character in set(text))
