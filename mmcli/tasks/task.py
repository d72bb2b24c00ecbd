"""What the tasks have in common: a request is a question to a model, worded by the model's own processor."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmcli.errors import ModelError, UsageError
from mmcli.models.offered import any_of

if TYPE_CHECKING:
    from mmcli.models.family import Processor
    from mmcli.models.loaded import Loaded


JOINED = re.compile(r"\s*(?:[,&+/]|\b(?:and|or)\b)\s*")  # between labels, where people take a list for one


@dataclass(frozen=True, kw_only=True)
class Request:
    """One task with everything that decides its answer, apart from the images and the model.

    `prompt` replaces the words that the task would use; the fields below it govern the draw of tokens and the reading
    of places in the answer.
    """

    task: ClassVar[str]
    default_max_tokens: ClassVar[int]
    about_images: ClassVar[bool] = True  # there is always an image that it is about
    finds_objects: ClassVar[bool] = False  # the answer places objects
    finds_masks: ClassVar[bool] = False  # … and outlines them

    words: str = ""
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    loc_divisor: int | None = None  # of the grammar's `divisors`; None: its own
    token_ids: bool = False
    beams: int | None = None  # answers that are followed side by side; None: what the model is best with
    min_score: float | None = None  # less likely objects are left out; None: the model's own limit
    nms: float | None = None  # of objects of one label that overlap by more than this share the better ones are kept
    max_objects: int | None = None  # so many of the best are kept

    def __post_init__(self) -> None:
        if (self.beams or 1) > 1 and self.temperature > 0:
            raise UsageError("--beams cannot be used with --temperature", "Leave one out")

    @property
    def token_limit(self) -> int:
        """How many tokens an answer may have."""
        return self.max_tokens or self.default_max_tokens

    @property
    def labels(self) -> list[str]:
        """What is to be found, one label an item; each is named once."""
        parts = (part.strip() for part in text_of(self.words).split(";"))
        return list(dict.fromkeys(part for part in parts if part))

    def beams_for(self, loaded: "Loaded") -> int:
        """How many answers are followed side by side (1: the likeliest next token, or a drawn one, is taken)."""
        if self.beams is not None:
            return self.beams
        return loaded.processor.capabilities.beams if self.temperature == 0 else 1

    @property
    def asked(self) -> str:
        """The task, with the manner in which it is to be done, as `Processor.task_prompt` knows it."""
        return self.task

    def prompt_for(self, processor: "Processor") -> str:
        """The text that goes to the model."""
        prompt = self.prompt if self.prompt is not None else processor.task_prompt(self.asked, self.words)
        return text_of(prompt)

    def require(self, processor: "Processor", model: str) -> None:
        """Raise ModelError if the model lacks what the task is made of."""
        able = processor.capabilities
        if not able.answers:
            do = "Use it with mmcli transcribe, or choose a model that takes pictures"
            raise ModelError(f"{model} takes recordings, no pictures", do)
        if self.about_images and not able.images:
            raise ModelError(f"{model} takes no pictures", f"Use {any_of('images')}")
        if self.finds_objects and not able.objects:
            raise ModelError(
                f"{model} cannot {self.task}: its vocabulary has no location tokens",
                f"Use {any_of('objects')}, or ask in words with mmcli chat",
            )
        if self.finds_masks and not able.masks:
            do = f"Use {any_of('masks')}, or mmcli detect"
            raise ModelError(f"{model} cannot {self.task}: it outlines nothing", do)
        if self.loc_divisor and processor.grammar and self.loc_divisor not in processor.grammar.divisors:
            raise UsageError(f"{model} writes places in its own way, so --loc-divisor cannot be used", "Leave it out")

    def require_probabilities(self, loaded: "Loaded") -> None:
        """Raise UsageError if answers are to be sifted by a probability that the model does not give."""
        if self.min_score is None:
            return
        if self.prompt is not None:
            raise UsageError("--min-score cannot be used with --prompt", "Leave one out")
        if not loaded.processor.capabilities.probabilities:
            raise UsageError(
                f"{loaded.checkpoint.name} gives no probabilities, so --min-score cannot be used",
                "Leave it out; --json has each object's score, the mean log-probability of its tokens",
            )

    def remarks(self, loaded: "Loaded") -> list[str]:
        """What must be said of the request itself, whatever the images: objects that the model does not know."""
        if (
            not self.finds_objects
            or self.prompt is not None
            or loaded.family is None
            or not loaded.family.closed_vocabulary
        ):
            return []
        name, closed_vocabulary = loaded.checkpoint.name, loaded.family.closed_vocabulary(loaded.config)
        remarks = []
        for label in self.labels:
            known = closed_vocabulary.known(label)
            if known is None:
                parts = [part for part in JOINED.split(label) if part]
                do = f"mmcli models info {name} lists what it knows"
                if any(map(closed_vocabulary.known, parts)):
                    do = f'several things are written with semicolons: "{" ; ".join(parts)}"'
                remarks.append(f'{name} does not know "{label}"; {do}')
            elif known != label.lower():
                remarks.append(f'{name} looks for "{label}" as "{known}"')
        return remarks


def text_of(words: str) -> str:
    """Words as a tokenizer can read them: a shell's arguments may hold bytes that are no characters."""
    return words.encode("utf-8", "replace").decode()
