"""Transcription: what is asked of a model that hears, and the record of what it heard."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmcli.errors import ModelError, UsageError
from mmcli.output.text import clock
from mmcli.tasks.task import text_of

if TYPE_CHECKING:
    from mmcli.batch.speech import Window
    from mmcli.hub.load import Loaded

Record = dict[str, Any]

REPEATED = 3  # times that a single token makes up a whole text: it was not said
COMPRESSION_LIMIT = 2.4  # a text that zlib shrinks more repeats itself


@dataclass(frozen=True, kw_only=True)
class TranscribeRequest:
    """Everything that decides a transcript, apart from the recordings and the model."""

    task: str = "transcribe"  # or "translate" (into English)
    language: str | None = None  # None: the model finds out
    hint: str | None = None
    beams: int = 1
    temperature: float | None = None  # None: 0, and warmer where the text fails the model's tests
    words: bool = False
    seed: int | None = None
    token_ids: bool = False

    def settings(self) -> dict[str, Any]:
        """The settings of a family's `transcribe`."""
        names = ("task", "language", "hint", "beams", "words")
        settings = {name: getattr(self, name) for name in names}
        settings["hint"] = None if self.hint is None else text_of(self.hint)
        if self.temperature is not None:
            settings["temperatures"] = (self.temperature,)
        return settings | ({} if self.seed is None else {"seed": self.seed})

    def require(self, loaded: "Loaded", model: str) -> None:
        """Raise ModelError if the model has no ears, UsageError if it cannot tell the times that are asked for."""
        if loaded.family is None or loaded.family.transcribe is None:
            raise ModelError(
                f"{model} cannot hear",
                "Use whisper-tiny.en, which is bundled, or another checkpoint of Whisper or Gemma 3n",
            )
        if self.words and loaded.family.timestamps == "window":
            raise UsageError(
                f"{model} writes down what is said and not when: it has no --words",
                "Leave that out, or use a Whisper checkpoint",
            )


@dataclass(frozen=True)
class Passage:
    """What a model heard in one window. It keeps the window's place and not its sound."""

    start: float  # seconds in the recording
    end: float
    text: Any  # a family's WindowText
    dropped: str = ""  # why it is not believed; empty: it is

    def segments(self) -> list[Record]:
        """Its segments, in seconds of the recording."""
        if self.dropped:
            return []
        return [segment_record(self, segment) for segment in self.text.segments if segment.text.strip()]

    def raw(self) -> str:
        """The text with its own spaces."""
        return "" if self.dropped else "".join(segment.text for segment in self.text.segments)


def passage(window: "Window", text: Any, loaded: "Loaded") -> Passage:
    """Judge the text of a window: one that only repeats itself, warmer attempts included, was not said."""
    ids = [id for id in text.token_ids if loaded.processor.is_text(id)]
    if not text.segments:
        return Passage(window.start, window.end, text)
    if len(ids) >= REPEATED and len(set(ids)) == 1:
        return Passage(window.start, window.end, text, f"one token {len(ids)} times")
    if text.compression_ratio > COMPRESSION_LIMIT:
        return Passage(window.start, window.end, text, "a text that repeats itself")
    return Passage(window.start, window.end, text)


def segment_record(place: Passage, segment: Any) -> Record:
    """One segment; the key `words` is there only with word times."""

    def placed(seconds: float) -> float:
        return round(min(place.start + seconds, place.end), 3)

    entry: Record = {"start": placed(segment.start), "end": placed(segment.end), "text": segment.text.strip()}
    if segment.words is not None:
        entry["words"] = [
            {
                "start": placed(word.start),
                "end": placed(word.end),
                "text": word.text.strip(),
                "probability": round(word.probability, 4),
            }
            for word in segment.words
        ]
    return entry


def joined(texts: Iterable[str]) -> str:
    """Texts of windows as one: they bring their spaces, and where one does not, Latin and the like get one."""
    whole = ""
    for text in texts:
        if whole and text and not whole[-1].isspace() and text[0].isalnum() and text[0] < "\u2e80":
            whole += " "
        whole += text
    return whole.strip()


def main_language(passages: Sequence[Passage]) -> str | None:
    """The language that most seconds are in; None where nothing was said."""
    seconds: dict[str, float] = {}
    for one in passages:
        if one.raw():
            seconds[one.text.language] = seconds.get(one.text.language, 0.0) + one.end - one.start
    return max(seconds, key=seconds.get) if seconds else None


def notes_of(passages: Sequence[Passage]) -> list[str]:
    """What was heard and not believed, and where."""
    return [
        f"what was heard from {clock(one.start)} to {clock(one.end)} is left out: it is {one.dropped}"
        for one in passages
        if one.dropped
    ]
