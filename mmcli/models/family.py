"""What a model family offers, and what a processor does: the seam between families and everything else."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from mmcli.errors import ModelError
from mmcli.media.limits import WHOLE
from mmcli.models.finding import Find, Outline
from mmcli.models.stages import Stage, parts
from mmcli.types import WindowText

if TYPE_CHECKING:  # so that naming a family's type costs no import of torch
    import numpy as np
    from PIL import Image

    from mmcli.decode.objects import ObjectGrammar
    from mmcli.engine.inputs import Inputs
    from mmcli.engine.model import GenerativeModel
    from mmcli.hub.tokenizer import Tokenizer
    from mmcli.hub.weights import Rule
    from mmcli.models.teaching import Teaching
    from mmcli.speech.fallback import DecodingOptions
    from mmcli.types import Turn

DEEPEST = 8  # dotted parts of the longest name of a parameter


@dataclass(frozen=True)
class Capabilities:
    """What a model can do. Checks, messages, help texts, `inspect` and `models info` go by this and ask nothing else.

    A family declares it of a checkpoint's configuration, and the processor narrows it down by the checkpoint's files.
    """

    answers: bool = True  # writes an answer to a prompt; False: it does nothing but transcribe
    images: bool = False  # reads images
    images_needed: int = 0  # images that every prompt must be about, at least
    max_images: int | None = None  # … and at most; None: as many as the model has room for
    usual_images: int | None = None  # … in a prompt, as it was trained; more are read too; None: any number
    rereads_for_images: bool = False
    """A new image changes how what stands before it is read: a conversation is then read from its beginning."""
    min_read_side: int = WHOLE
    """Pixels: larger images may be decoded at a fraction of their size as long as no side falls below this. That is
    quick, but scaled once more they become other numbers than the whole image would, by up to 8 levels of 255: it is
    for models that were measured so. It is one number for all that a checkpoint does: what it sees must not depend on
    when, or for what, an image was read."""
    beams: int = 1  # answers that are followed side by side whatever is asked, where nobody says how many
    caption_beams: int = 1  # … for a caption by the model's own prompt
    details: tuple[str, ...] = ()  # lengths of captions that there are prompts for, of low, medium and high
    questions: bool = True  # answers questions in anybody's words; False: it knows prompts of its own alone
    reads_text: bool = False  # was taught to read what is written in images
    reads_regions: bool = False  # … and tells of each piece of text where it stands
    objects: bool = False  # locates objects: answers hold location tokens
    finds_all: bool = False  # … and whatever there is, where nothing is named
    masks: bool = False  # outlines them: … and mask tokens
    outlines_boxes: bool = False  # … what is in boxes that are given, too
    probabilities: bool = False  # objects come with a calibrated probability of being right
    audio: bool = False  # reads audio among the parts of a prompt
    max_audio_seconds: float | None = None  # of one piece of audio, in a prompt or to be transcribed; None: no audio
    turns: bool = False  # knows conversations: an answer depends on the turns before it
    timestamps: Literal["window", "segment", "word"] | None = None
    """The finest times that it tells when it transcribes: of words, of segments, or none of its own, so that all that
    is known is the window of audio it was given. None: it does not transcribe."""
    translates: bool = False  # transcribes into English what is said in another language
    languages: tuple[str, ...] = ()  # codes of those that it transcribes; (): it names none

    @property
    def transcribes(self) -> bool:
        """Whether it writes down what is said."""
        return self.timestamps is not None

    @property
    def word_times(self) -> bool:
        """Whether it tells when each word was said."""
        return self.timestamps == "word"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The commands that it can be used with."""
        able = {"caption": self.images, "detect": self.objects, "segment": self.masks, "read": self.reads_text}
        able |= {"chat": self.answers and self.questions, "transcribe": self.transcribes}
        return tuple(task for task, can in able.items() if can)


class Processor(Protocol):
    """Turns images and prompts into a model's inputs, and its token ids back into text.

    Families derive theirs from it: what one does not set stays as it is here, and what its capabilities do not name is
    not asked of it.
    """

    capabilities: Capabilities
    stop_ids: frozenset[int]
    image_size: int = 0  # pixels; side of the square that images are resized to; 0: they keep their aspect
    square: tuple[int, int] | None = None
    """Side in pixels, and Pillow's filter, of the square that every image is resized to before anything else is done:
    whoever has done that already changes nothing."""
    soft_tokens: int = 0  # that an image becomes
    grammar: "ObjectGrammar | None" = None  # of answers that place objects; None: it places none
    tokenizer: "Tokenizer"
    pad: int = 0  # the token in front of shorter rows
    control_ids: AbstractSet[int] = frozenset()  # tokens that are no text: padding, what stands for an image, …

    @classmethod
    def open(cls, folder: Path, config: Any, raw: dict[str, Any]) -> Self:
        """That of a checkpoint: its folder, its configuration, its config.json. Raises ModelError."""
        return cls()

    def inputs(self, images: "Sequence[Sequence[Image.Image]]", prompts: Sequence[str]) -> "Inputs":
        """Row i has the RGB images of `images[i]` (maybe none) and the text `prompts[i]`.

        ValueError for more or fewer lists of images than prompts, ModelError where the model answers no prompts.
        """
        import torch

        from mmcli.engine.inputs import Inputs, pad_left

        if not self.capabilities.answers:
            raise ModelError("The model answers no prompts", "Use it with mmcli transcribe")
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} lists of images for {len(prompts)} prompts")
        tokens, valid = pad_left([self.row(*one) for one in zip(prompts, images, strict=True)], self.pad)
        return Inputs(tokens, valid, tuple(torch.from_numpy(self.pixels_of(one)) for own in images for one in own))

    def row(self, prompt: str, images: "Sequence[Image.Image]") -> list[int]:
        """The token ids of a prompt, with those that keep the places of its images."""
        raise NotImplementedError(f"{type(self).__name__} has neither inputs nor row")

    def pixels_of(self, image: "Image.Image") -> "np.ndarray":
        """What the model reads of an RGB image of any size, as one of `Inputs.images`."""
        raise NotImplementedError(f"{type(self).__name__} has neither inputs nor pixels_of")

    def grammar_for(self, prompt: str) -> "ObjectGrammar | None":
        """The grammar of the answer to a prompt, where a family writes places in several ways."""
        return self.grammar

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; location and segment tokens keep their names, control tokens vanish."""
        return self.tokenizer.decode([id for id in ids if self.is_text(id)])

    def task_prompt(self, task: str, words: str) -> str:
        """The prompt by which this family knows a task: caption, detect, segment, read or chat.

        Behind a colon stands a manner that its capabilities name: "caption:low" and the like for its `details`,
        "detect:all" where it `finds_all`, "read:boxes" where it `reads_regions`. One that was taught no prompts of its
        own is asked in these words.
        """
        if not self.capabilities.answers:
            raise ModelError("The model answers no prompts", "Use it with mmcli transcribe")
        return f"{task} {words}".rstrip()

    def is_text(self, id: int) -> bool:
        """Whether a token is part of the text, and no control token."""
        return id not in self.stop_ids and id not in self.control_ids

    # -- conversations -------------------------------------------------------------------------------------------
    #
    # The text of a conversation grows at its end, so that a model which has read the first turns need only be given
    # the rest: `text_inputs(apply_chat_template(turns)[len(before):], …)` with the images and audio of that rest.

    def apply_chat_template(self, turns: "Sequence[Turn]") -> str:
        """The whole text of a conversation up to where the model writes, each image and audio as its placeholder.

        It is for `text_inputs` only: where what was typed spells a control token, it is marked as mere letters.
        Raises ModelError where the checkpoint's template fails or refuses the turns.
        """
        raise ModelError("The model knows no conversations", "Ask one question at a time")

    def text_inputs(
        self, text: str, images: "Sequence[Image.Image]" = (), audios: "Sequence[np.ndarray]" = ()
    ) -> "Inputs":
        """One row: `text` is what `apply_chat_template` gave or the rest of it; its placeholders take the images and
        audio in order.

        Nothing is added: the token that begins a text is in that text already. Audio is float32 mono at 16 kHz.
        Raises UsageError for audio longer than `max_audio_seconds`, ModelError where placeholders and parts do not
        match.
        """
        raise ModelError("The model knows no conversations", "Ask one question at a time")


@dataclass(frozen=True)
class ClosedVocabulary:
    """What a family was taught, where that is little enough to be listed."""

    labels: tuple[str, ...]  # what `detect` and `segment` find
    questions: tuple[str, ...]  # one of each kind of question that `chat` answers
    languages: tuple[str, ...]  # of prompts and answers
    labels_per_prompt: int  # a longer list is asked in several prompts, side by side
    known: Callable[[str], str | None]  # the one of `labels` that a user's word names


class Transcribe(Protocol):
    """How a family writes down what is said."""

    def __call__(
        self, loaded: Any, windows: "Sequence[np.ndarray]", options: "DecodingOptions"
    ) -> "Sequence[WindowText]":
        """Mono float32 windows at 16 kHz, each of at most `max_audio_seconds`, in one batch → one text each.

        A text does not depend on the other windows. `loaded` is the `Loaded` of the model. Of the tests in `options`
        those are made that the model's answers allow. Raises UsageError for a task, language or hint that it does not
        know, and for word times where it tells none.
        """
        ...


def own_names(config: Any) -> "list[Rule]":
    """The rules of checkpoints whose tensors have the names of the model's own parameters."""
    from mmcli.hub.weights import Rule

    return [Rule(path, path) for path in (".".join(["{}"] * parts) for parts in range(1, DEEPEST + 1))]


@dataclass(frozen=True)
class Family:
    """A model family: from a checkpoint's configuration to a module, its weights' names and its processor."""

    name: str
    read_config: Callable[[dict[str, Any]], Any]  # config.json → the family's configuration; ModelError
    build: "Callable[[Any], GenerativeModel]"  # called under the meta device
    processor: Callable[[Path, Any, dict[str, Any]], Processor]  # folder, configuration, config.json
    capabilities: Callable[[Any], Capabilities]  # configuration → what a checkpoint can do, if it lacks no file
    stages: Callable[[Any, Any], list[Stage]] = parts  # configuration and module without memory → what `inspect` shows
    rules: "Callable[[Any], list[Rule]]" = own_names  # configuration → what the checkpoint's tensors are called here
    transcript_inputs: "Callable[[Any, Sequence[np.ndarray], DecodingOptions], Inputs] | None" = None
    """For families that transcribe: (loaded, windows, options) → what the model has read before it writes each text."""
    transcribe: Transcribe | None = None
    closed_vocabulary: Callable[[Any], ClosedVocabulary] | None = (
        None  # configuration → what it knows; None: any words may be tried
    )
    outline: Outline | None = None  # None: it outlines what it finds itself
    teaching: "Teaching | None" = None  # how it is trained; None: mmcli cannot
    find: Find | None = None  # None: all objects are named in one prompt, and the answer is read as it is
