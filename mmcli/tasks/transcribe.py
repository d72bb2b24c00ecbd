"""Transcription: what is asked of a model, and the record of what it wrote."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import ModelError, UsageError
from mmcli.models.offered import any_of
from mmcli.output.writers.text import clock
from mmcli.speech.fallback import FASTEST, LOGPROB_LIMIT, DecodingOptions
from mmcli.tasks.task import text_of
from mmcli.types import Segment, WindowText, Word

if TYPE_CHECKING:
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.speech.windows import Window

REPEATED = 2.0  # a text of half a minute that zlib shrinks more repeats itself; others reach 1.8
SAME = 0.9  # of the letters of a text: what is shorter says less


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

    def options(self) -> DecodingOptions:
        """How windows are transcribed that end where speech ends, or in its midst."""
        return DecodingOptions(
            task=self.task,
            language=self.language,
            hint=None if self.hint is None else text_of(self.hint),
            beams=self.beams,
            temperatures=None if self.temperature is None else (self.temperature,),
            words=self.words,
            spoken_to_end=True,
            seed=self.seed or 0,
        )

    def require_audio(self, able: "Capabilities", model: str) -> None:
        """Raise ModelError if the model does not transcribe."""
        if not able.transcribes:
            raise ModelError(f"{model} takes no audio", f"Use {any_of('transcribes')}")

    def require(self, loaded: "Loaded", model: str) -> None:
        """Raise ModelError if the model takes no audio, UsageError if it does not give the times that are asked for."""
        from mmcli.speech.windows import WINDOW

        able = loaded.processor.capabilities
        self.require_audio(able, model)
        seconds = able.max_audio_seconds or 0.0
        if seconds < WINDOW:
            raise ModelError(
                f"{model} reads {seconds:g} s at once, but recordings are cut into windows of up to {WINDOW:g} s",
                "Use a checkpoint that reads as much, as all published ones do",
            )
        if self.words and not able.word_times:
            raise UsageError(
                f"{model} gives no times of words, so --words cannot be used",
                f"Leave that out, or use {any_of('word_times')}",
            )


@dataclass(frozen=True)
class Passage:
    """What a model transcribed in one window. It keeps the window's place and not its audio."""

    start: float  # seconds in the recording
    end: float
    text: WindowText
    dropped: str = ""  # why it is not believed; empty: it is

    @property
    def used(self) -> bool:
        """Whether anything of it is written down: dots and notes of music are no words."""
        return not self.dropped and any(char.isalnum() for char in spoken(self.text))

    def segments(self) -> list[Segment]:
        """Its segments, in seconds of the recording."""
        if not self.used:
            return []
        return [segment_record(self, segment) for segment in self.text.segments if segment.text.strip()]

    def raw(self) -> str:
        """The text with its own spaces."""
        return spoken(self.text) if self.used else ""


def passage(window: "Window", text: WindowText) -> Passage:
    """What a model transcribed in a window; what cannot have been said in that time is dropped."""
    dropped = ""
    if repeats(text) and text.truncated:
        dropped = "one that repeats itself endlessly"
    elif repeats(text) and len(spoken(text)) > FASTEST * (window.end - window.start):
        dropped = "one that repeats itself faster than anybody speaks"
    elif text.compression_ratio > REPEATED and text.logprob < LOGPROB_LIMIT:
        dropped = "an unlikely one that repeats itself"
    return Passage(window.start, window.end, text, dropped)


def repeats(text: WindowText) -> bool:
    """Whether the text of a window says the same again and again, or at once: most of it is a phrase said twice."""
    if text.compression_ratio > REPEATED:
        return True
    words = [letters for word in spoken(text).split() if (letters := _letters(word))]
    return any(_run(words, length) > max(length, len(words) / 2) for length in range(1, len(words) // 2 + 1))


def _run(words: list[str], length: int) -> int:
    """The longest run of words in which those that lie `length` apart are the same; 0 where there is none."""
    longest = run = 0
    for one, other in zip(words, words[length:], strict=False):
        run = run + 1 if one == other else 0
        longest = max(longest, run)
    return longest + length if longest >= length else 0


def better(whole: Passage, halves: list[Passage]) -> list[Passage]:
    """A window whose text repeats itself, or its halves, where these say something else.

    Where one has more text than the other, the halves are right: a model leaves repetitions out, or adds some, the less
    the shorter a window is. Of about the same text the likelier one is taken.
    """
    if not halves or (not whole.dropped and any(half.dropped for half in halves)):
        return [whole]
    lengths = len(_letters(whole.raw())), sum(len(_letters(half.raw())) for half in halves)
    alike = min(lengths) > SAME * max(lengths)
    return [whole] if alike and _logprob([whole]) >= _logprob(halves) else halves


def _logprob(passages: list[Passage]) -> float:
    """The mean over all tokens."""
    counts = [len(one.text.token_ids) + 1 for one in passages]
    return sum(count * one.text.logprob for count, one in zip(counts, passages, strict=True)) / sum(counts)


def spoken(text: WindowText) -> str:
    """All that was written for a window, with its own spaces."""
    return "".join(segment.text for segment in text.segments)


def _letters(text: str) -> str:
    return "".join(char for char in text.lower() if char.isalnum())


def segment_record(place: Passage, segment: Segment) -> Segment:
    """One segment in seconds of the recording."""

    def placed(seconds: float) -> float:
        return round(min(place.start + seconds, place.end), 3)

    words = segment.words and tuple(
        Word(placed(word.start), placed(word.end), word.text.strip(), word.probability) for word in segment.words
    )
    return Segment(placed(segment.start), placed(segment.end), segment.text.strip(), words)


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
    seconds: dict[str | None, float] = {}
    for one in passages:
        if one.raw():
            seconds[one.text.language] = seconds.get(one.text.language, 0.0) + one.end - one.start
    return max(seconds, key=seconds.__getitem__) if seconds else None


def unused(passages: Sequence[Passage]) -> float:
    """Seconds of what was taken for speech that nothing is written of."""
    return sum(one.end - one.start for one in passages if not one.used)


PLACES = 8  # in one note; a message is cut where it is too long


def notes_of(passages: Sequence[Passage]) -> list[str]:
    """What was transcribed and not believed, and where no words were made out."""
    notes = [f"the text for {span(one)} is left out: it is {one.dropped}" for one in passages if one.dropped]
    wordless = [one for one in passages if not one.dropped and not one.used]
    for first in range(0, len(wordless), PLACES):
        places = ", ".join(map(span, wordless[first : first + PLACES]))
        notes.append(f"no words were recognised from {places}")
    return notes


def span(place: Passage) -> str:
    """From when to when in whole seconds, none of it left out: 0:03 to 0:07."""
    return f"{clock(math.floor(place.start))} to {clock(math.ceil(place.end))}"
