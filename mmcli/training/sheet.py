"""Samples of training data on one sheet: each picture with what the model will be taught drawn in, read from tokens."""

import re
from collections.abc import Sequence

from PIL import Image, ImageDraw

from mmcli.errors import InputError
from mmcli.escape import escape_line, shorten
from mmcli.example import Example
from mmcli.media.image import load_image
from mmcli.media.sources import one_named
from mmcli.models.loaded import Loaded
from mmcli.output.overlay import draw
from mmcli.output.schema import Record
from mmcli.output.tags import Colour, lettering
from mmcli.training.targets import Target, once, placed, targets

COLUMNS = 2
WIDTH, HEIGHT = 640, 480  # pixels of a picture at most
TEXT, GAP, LINES = 18, 14, 6  # pixels of letters and between tiles; lines below a picture
LONGEST = 200  # characters of a line, before it is cut to its width
PAPER, INK, FAINT = (255, 255, 255), (20, 20, 24), (110, 110, 118)


def sheet(loaded: Loaded, examples: Sequence[Example]) -> Image.Image:
    """A sheet of examples that the model can learn, two in a row."""
    tiles = [_tile(loaded, example) for example in examples]
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    size = COLUMNS * (WIDTH + GAP) + GAP, sum(heights) + GAP * (len(rows) + 1)
    page = Image.new("RGB", size, PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for number, tile in enumerate(row):
            page.paste(tile, (GAP + number * (WIDTH + GAP), top))
        top += height + GAP
    return page


def _tile(loaded: Loaded, example: Example) -> Image.Image:
    own = targets(loaded, example)
    picture = _picture(loaded, example, own)
    lines = [(example.where, FAINT), *(line for one in own for line in _lines(one))]
    dropped = len(lines) - LINES
    if dropped > 0:
        lines = [*lines[: LINES - 1], (f"… and {dropped + 1} more lines", FAINT)]
    height = picture.height if picture else 0
    tile = Image.new("RGB", (WIDTH, height + (TEXT + 6) * len(lines) + 6), PAPER)
    if picture:
        tile.paste(picture, ((WIDTH - picture.width) // 2, 0))
    pen = ImageDraw.Draw(tile)
    for number, (text, colour) in enumerate(lines):
        shown, font = lettering(shorten(escape_line(text), LONGEST), TEXT, WIDTH)
        pen.text((0, height + 6 + number * (TEXT + 6)), shown, font=font, fill=colour)
    return tile


def _lines(target: Target) -> list[tuple[str, Colour]]:
    """The prompt and the answer below it, in which the codes of a mask are one sign."""
    answer = re.sub(r"(?:<seg\d+>)+", "<seg…>", target.answer.strip())
    return [(target.prompt or "(no prompt)", FAINT), (answer or "(nothing)", INK)]


def _picture(loaded: Loaded, example: Example, own: Sequence[Target]) -> Image.Image | None:
    """The first image of an example, as large as a tile, with the objects of its answers."""
    if not example.images:
        return None
    try:
        image = load_image(one_named(str(example.images[0])), side=WIDTH).image
    except InputError:  # it was there when it was checked
        return None
    factor = min(WIDTH / image.width, HEIGHT / image.height)
    width, height = (max(round(side * factor), 1) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    found = once([one for target in own for one in placed(loaded, target, width, height)])
    return draw(image, Record(task=example.task, source="", model="", width=width, height=height, objects=tuple(found)))
