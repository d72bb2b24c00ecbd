"""What a model is taught with: one example, whatever file format it came from."""

from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in shares of the image's sides, as everywhere else


@dataclass(frozen=True)
class Polygons:
    """A mask as outlines: each x0, y0, x1, y1, … in shares of the image's sides; inside is what any holds."""

    outlines: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class RunLengths:
    """A mask as COCO's run lengths: counts (compressed text or numbers, column by column) and the size they are for."""

    counts: str | tuple[int, ...]
    height: int
    width: int


@dataclass(frozen=True)
class LabelledObject:
    """One object that people marked: its label, its box, and its outline where there is one."""

    label: str
    box: Box
    mask: Polygons | RunLengths | None = None


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answer to it. Without a prompt it is the one by which a model knows the example's task."""

    prompt: str | None
    answer: str


@dataclass(frozen=True)
class Example:
    """What is to be learned of some images or one recording.

    Texts (captions, transcripts, suffixes, conversations) are exchanges, of which the answers are learned. Objects are
    written in the language of the model that learns them, since each has its own: of a picture that shows none of a
    label in `exhaustive`, it is learned that there is none.
    """

    task: str  # "caption", "detect", "segment", "chat" or "transcribe"
    where: str  # "FILE:LINE" or a file, for messages
    images: tuple[Path, ...] = ()
    audio: tuple[Path, ...] = ()
    exchanges: tuple[Exchange, ...] = ()  # several: the turns of a conversation, in order
    questions: bool = False  # prompts are questions as `mmcli chat` takes them, and no words of the model's own
    system: str | None = None  # of a conversation, what comes before its first turn
    objects: tuple[LabelledObject, ...] = ()
    exhaustive: frozenset[str] = frozenset()  # labels of which every object in the image is marked
    language: str | None = None  # of what is said, as a code, where the row names one
    size: tuple[int, int] | None = None  # width and height of the image, where the file says for which boxes are
