"""What the parts of the program hand to each other: plain frozen data that needs neither torch nor numpy."""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

RATE = 16_000  # samples a second of all audio that models read


@dataclass(frozen=True)
class Doc:
    """What a field of a record holds, and how it is written."""

    text: str
    of: frozenset[str] = frozenset({"image", "audio", "failed"})  # kinds of records that have it
    optional: bool = False  # left out where it is None, which else is written as null
    digits: int | None = None  # behind the point


MOST_SHOWN = 3  # items of a tuple, in `brief`
LONGEST_SHOWN = 80  # characters of a text


def brief(one: Any, without: Sequence[str] = ()) -> str:
    """A dataclass in a line for people who look at it: what is not as by default, the beginnings of what is long."""
    shown = []
    for field in fields(one):
        value = getattr(one, field.name)
        usual = field.default if field.default_factory is MISSING else field.default_factory()
        if field.name not in without and (usual is MISSING or value != usual):
            shown.append(f"{field.name}={_shown(value)}")
    return f"{type(one).__name__}({', '.join(shown)})"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        more = f", … {len(value) - MOST_SHOWN} more" if len(value) > MOST_SHOWN + 1 else ""
        kept = value[:MOST_SHOWN] if more else value
        return f"({', '.join(map(_shown, kept))}{more or ',' * (len(kept) == 1)})"
    if isinstance(value, str) and len(value) > LONGEST_SHOWN:
        return repr(f"{value[:LONGEST_SHOWN]}…")
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


@dataclass(frozen=True)
class Token:
    """One generated token and its log-probability under the model."""

    id: int
    logprob: float


@dataclass(frozen=True)
class Timings:
    """Seconds that an answer took together with others."""

    prefill: float = 0.0  # to read the images, the audio and the prompts
    decode: float = 0.0  # to write the tokens: of the whole batch, or of the row where each ends by itself
    batch: int = 1  # rows that were read together


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one row of a batch."""

    ids: tuple[int, ...]  # without the stop token
    logprobs: tuple[float, ...]  # of `ids`, and of the stop token behind them where there is one
    ended: bool  # with a stop token; False: cut off by the limit of tokens, or stopped by whoever reads it
    timings: Timings = Timings()
    stopped: bool = False  # by whoever reads it

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens with their log-probabilities, without the stop token."""
        return tuple(map(Token, self.ids, self.logprobs))

    @property
    def logprob(self) -> float:
        """The log-probability of the whole answer, the stop token included."""
        return sum(self.logprobs)

    @property
    def mean_logprob(self) -> float:
        """The log-probability a token, where the end counts as one (as in openai/whisper)."""
        return self.logprob / (len(self.ids) + 1)


@dataclass(frozen=True)
class Word:
    """One word with its punctuation; seconds inside the window or, in a record, in the recording."""

    start: Annotated[float, Doc("Seconds in the recording.", digits=3)]
    end: Annotated[float, Doc("Seconds in the recording.", digits=3)]
    text: Annotated[str, Doc("The word with its punctuation.")]
    probability: Annotated[float, Doc("How likely the model finds it: the mean over its tokens.", digits=4)]


@dataclass(frozen=True)
class Segment:
    """A stretch of text; seconds inside the window or, in a record, in the recording."""

    start: Annotated[float, Doc("Seconds in the recording.", digits=3)]
    end: Annotated[float, Doc("Seconds in the recording.", digits=3)]
    text: Annotated[str, Doc("What is said.")]
    words: Annotated[tuple[Word, ...] | None, Doc("Its words, where word times were asked for.", optional=True)] = None

    def __repr__(self) -> str:
        return brief(self)


@dataclass(frozen=True)
class WindowText:
    """What was said in one window of audio."""

    language: str | None  # None: the model does not say which it is
    segments: tuple[Segment, ...]  # none where nobody speaks
    token_ids: tuple[int, ...]  # as written, without the end
    logprob: float  # mean over the tokens, the end included
    compression_ratio: float
    temperature: float  # with which the text was written
    truncated: bool  # cut off by the number of tokens
    transcribed_until: float  # seconds; less than the window where the model says that more follows
    no_speech: float = 0.0  # probability that nobody speaks
    word_times: str | None = None  # where the words' times come from, in the family's own words

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments).strip()


@dataclass(frozen=True, eq=False)
class Audio:
    """Audio in a turn, under the name by which the user knows it."""

    name: str
    samples: "np.ndarray"  # float32 [samples] at 16 kHz, one channel


Part: TypeAlias = "str | Image.Image | Audio"


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation said: text, images (RGB) and audio, in order."""

    role: str  # "system", "user" or "model"
    parts: tuple[Part, ...]

    def images(self) -> "list[Image.Image]":
        """Its images, in order."""
        return [part for part in self.parts if not isinstance(part, str | Audio)]

    def audios(self) -> "list[np.ndarray]":
        """The samples of its audio, in order."""
        return [part.samples for part in self.parts if isinstance(part, Audio)]
