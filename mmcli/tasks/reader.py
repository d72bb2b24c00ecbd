"""Reading text where no model is named: RapidOCR with the weights of PP-OCR that its wheel holds, of the extra `read`.

https://github.com/RapidAI/RapidOCR (Apache-2.0) finds lines of text, turns those that stand on their head, and reads
Latin and Chinese letters. It is given its own files by name, so that it never looks for others on the network.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mmcli.errors import ModelError
from mmcli.output.record import run_key
from mmcli.output.schema import Object, Quad, Record, Settings
from mmcli.tasks.reading_library import INSTALL, LIBRARY

if TYPE_CHECKING:
    from PIL import Image

    from mmcli.media.image import LoadedImage
    from mmcli.tasks.read import ReadRequest

SIDE = 2000  # pixels to which it would scale larger images itself, roughly
THINNEST = 4  # times as long as it is wide, what it is given
PARTS = {"Det": "det", "Cls": "cls", "Rec": "rec"}  # its name for each network → a part of its file's name


@dataclass(frozen=True)
class Piece:
    """A line of text where it stands, in pixels of the image that was read."""

    text: str
    quad: Quad  # its corners x0, y0, … x3, y3, from the upper left one of the text clockwise
    confidence: float  # the mean probability of its letters, as the network sees it

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The box that holds it: x0, y0, x1, y1."""
        across, down = self.quad[::2], self.quad[1::2]
        return min(across), min(down), max(across), max(down)

    def scaled(self, x: float, y: float) -> "Piece":
        """The same in an image that is so many times as wide and as high."""
        return Piece(
            self.text, cast(Quad, tuple(v * s for v, s in zip(self.quad, (x, y) * 4, strict=True))), self.confidence
        )


class Reader:
    """The library, loaded when it first reads. Raises ModelError where it lacks its weights."""

    @property
    def version(self) -> str:
        from importlib.metadata import version

        return version(LIBRARY)

    @cached_property
    def _engine(self) -> Any:
        from mmcli.engine.cpu import allowed_cores

        spec = find_spec(LIBRARY)
        assert spec is not None and spec.origin is not None, "whoever reads has checked that it is installed"
        folder = Path(spec.origin).parent / "models"
        parameters: dict[str, Any] = {"Global.log_level": "critical"}
        parameters["EngineConfig.onnxruntime.intra_op_num_threads"] = allowed_cores()
        for part, name in PARTS.items():
            files = sorted(folder.glob(f"*_{name}_*.onnx"))
            if not files:
                what = f"This {LIBRARY} ({self.version}) brings no weights ({folder}/*_{name}_*.onnx)"
                raise ModelError(what, f"Install the version that mmcli knows: {INSTALL}")
            parameters[f"{part}.model_path"] = str(files[0])
        from rapidocr import RapidOCR

        return RapidOCR(params=parameters)

    def read(self, image: "Image.Image") -> list[Piece]:
        """The lines of text in an RGB image, in the order of reading."""
        import numpy as np

        found = self._engine(np.asarray(image)[:, :, ::-1])  # it wants blue first
        if found.boxes is None or found.txts is None:
            return []
        corners = [cast(Quad, tuple(float(value) for point in box for value in point)) for box in found.boxes]
        return [Piece(*one) for one in zip(found.txts, corners, map(float, found.scores), strict=True)]


def joined(pieces: Sequence[Piece]) -> str:
    """The text of all pieces: a line for each, but for those that stand side by side."""
    lines: list[list[Piece]] = []
    for piece in pieces:
        if lines and _beside(lines[-1][-1], piece):
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return "\n".join(" ".join(piece.text for piece in sorted(line, key=lambda one: one.box[0])) for line in lines)


def _beside(one: Piece, other: Piece) -> bool:
    """Whether the middle of each lies between the upper and the lower edge of the other."""

    def within(inner: Piece, outer: Piece) -> bool:
        return outer.box[1] < (inner.box[1] + inner.box[3]) / 2 < outer.box[3]

    return within(one, other) and within(other, one)


def read_record(
    request: "ReadRequest", reader: Reader, name: str, decoded: "LoadedImage", seconds: float, identity: str | None
) -> Record:
    """What stands in one image called `name`, which took `seconds` to read from its file; `identity` tells it apart.

    A score is the logarithm of the mean probability of a line's letters.
    """
    import time

    started = time.perf_counter()
    image = _fitting(decoded.image)
    x, y = decoded.width / image.width, decoded.height / image.height
    pieces = [piece.scaled(x, y) for piece in reader.read(_filled_up(image))]
    settings = Settings()
    return Record(
        task=request.task,
        source=name,
        model=LIBRARY,
        key=run_key(
            task=request.asked,
            model=LIBRARY,
            weights=f"{LIBRARY} {reader.version}",
            prompt=None,
            settings=settings,
            source=identity,
        ),
        settings=settings,
        width=decoded.width,
        height=decoded.height,
        text=joined(pieces),
        objects=tuple(_object(piece) for piece in pieces) if request.boxes else (),
        notes=decoded.notes,
        timings={"load": seconds, "decode": time.perf_counter() - started},
    )


def _fitting(image: "Image.Image") -> "Image.Image":
    """The image, scaled down smoothly until no side is longer than SIDE."""
    if max(image.size) <= SIDE:
        return image
    from PIL.Image import Resampling

    scale = SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Resampling.LANCZOS)


def _filled_up(image: "Image.Image") -> "Image.Image":
    """A thin image with white on its right or below it, up to a shape that the library reads in bounded memory.

    It enlarges the shorter side to 736 pixels, whatever becomes of the longer one.
    """
    from PIL import Image

    least = max(32, max(image.size) // THINNEST)
    width, height = (max(side, least) for side in image.size)
    if (width, height) == image.size:
        return image
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(image, (0, 0))
    return canvas


def _object(piece: Piece) -> Object:
    score = round(math.log(piece.confidence), 4) + 0.0 if piece.confidence > 0 else None  # 0 without a minus
    raw = tuple(round(value) for value in piece.quad)
    return Object(label=piece.text, box=piece.box, raw_box=raw, score=score, quad=piece.quad)
