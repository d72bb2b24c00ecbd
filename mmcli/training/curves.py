"""The curves of a run: as a picture, and as lines of characters."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SIZE, MARGIN = (900, 420), (70, 24, 20, 56)  # pixels; left, top, right, bottom
INK, GREY, BLUE, PALE, RED = (30, 30, 30), (225, 225, 225), (40, 90, 200), (180, 200, 240), (210, 70, 40)
WIDTH, HEIGHT = 72, 12  # characters of the chart in a terminal
BLANK, HELD = 0x2800, "●"
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a braille character, row by row

Point = tuple[float, float]


def points(lines: Sequence[dict[str, Any]], name: str) -> list[Point]:
    """Steps and values of what some lines of a log hold."""
    found = [(float(line["step"]), float(line[name])) for line in lines if isinstance(line.get(name), int | float)]
    return [one for one in found if math.isfinite(one[1])]


def smoothed(curve: Sequence[Point], share: float = 0.05) -> list[Point]:
    """An exponential moving average of the values, over about a share of them all."""
    keep = 1 - 1 / max(1.0, share * len(curve))
    value, found = 0.0, []
    for number, (step, own) in enumerate(curve):
        value = own if not number else keep * value + (1 - keep) * own
        found.append((step, value))
    return found


def draw(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the loss of the updates and of the held-out examples as a PNG. OSError."""
    loss, held = points(lines, "loss"), points(lines, "eval_loss")
    image = Image.new("RGB", SIZE, "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=13)
    left, top, right, bottom = MARGIN[0], MARGIN[1], SIZE[0] - MARGIN[2], SIZE[1] - MARGIN[3]
    x0, x1, y0, y1 = _bounds([*loss, *held])

    def place(point: Point) -> Point:
        x, y = (point[0] - x0) / (x1 - x0), (point[1] - y0) / (y1 - y0)
        return left + x * (right - left), bottom - y * (bottom - top)

    for number in range(5):
        value, y = y0 + (y1 - y0) * number / 4, bottom - (bottom - top) * number / 4
        pen.line([(left, y), (right, y)], fill=GREY)
        pen.text((left - 8, y), f"{value:.3g}", fill=INK, font=font, anchor="rm")
    for step in sorted({round(x0 + (x1 - x0) * number / 4) for number in range(5)}):
        pen.text((place((step, y0))[0], bottom + 8), str(step), fill=INK, font=font, anchor="ma")
    pen.text(((left + right) / 2, SIZE[1] - 4), "updates", fill=INK, font=font, anchor="md")
    for curve, colour, width in ((loss, PALE, 1), (smoothed(loss), BLUE, 2), (held, RED, 2)):
        if len(curve) > 1:
            pen.line([place(point) for point in curve], fill=colour, width=width)
    for point in held:
        x, y = place(point)
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill=RED)
    pen.text((right, top), "loss of the updates", fill=BLUE, font=font, anchor="ra")
    if held:
        pen.text((right, top + 18), "loss of the held-out examples", fill=RED, font=font, anchor="ra")
    image.save(path, format="PNG")


def chart(lines: Sequence[dict[str, Any]], width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The same for a terminal, in braille characters; no lines where there is nothing to draw."""
    loss = smoothed(points(lines, "loss"))
    held = points(lines, "eval_loss")
    if len(loss) + len(held) < 2:
        return []
    x0, x1, y0, y1 = _bounds([*loss, *held])
    cells = [[BLANK] * width for _ in range(height)]

    def place(point: Point) -> tuple[int, int]:
        x = round((point[0] - x0) / (x1 - x0) * (2 * width - 1))
        return x, round((y1 - point[1]) / (y1 - y0) * (4 * height - 1))

    for x, y in _line([place(point) for point in loss]):
        cells[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    rows = ["".join(map(chr, row)) for row in cells]
    for x, y in map(place, held):
        row = rows[y // 4]
        rows[y // 4] = row[: x // 2] + HELD + row[x // 2 + 1 :]
    marks = {0: f"{y1:.3g}", height - 1: f"{y0:.3g}"}
    shown = [f"{marks.get(number, ''):>8} {row}" for number, row in enumerate(rows)]
    below = f"loss by updates{f', {HELD} of the held-out examples' if held else ''}"
    return [*shown, f"{'':9}{x0:<{width // 2}.0f}{x1:>{width - width // 2}.0f}", f"{'':9}{below}"]


def _line(corners: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The dots of a line through some dots."""
    yield from corners
    for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(1, steps):
            yield round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps)


def _bounds(curve: Sequence[Point]) -> tuple[float, float, float, float]:
    """The smallest and the largest step and value, never the same."""
    steps, values = [step for step, _ in curve] or [0.0], [value for _, value in curve] or [0.0]
    x0, x1, y0, y1 = min(steps), max(steps), min(values), max(values)
    return x0, x1 if x1 > x0 else x0 + 1, y0, y1 if y1 > y0 else y0 + 1
