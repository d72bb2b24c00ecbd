"""How families find and outline objects that have a way of their own: what they are given, and what they give."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mmcli.types import Completion, Timings

if TYPE_CHECKING:  # so that naming a family's type costs no import of torch
    from PIL import Image

    from mmcli.decode.locations import Box
    from mmcli.decode.objects import ParsedObject
    from mmcli.engine.sampling import Sampling


def likeliest() -> "Sampling":
    """Always the likeliest token."""
    from mmcli.engine.sampling import Sampling

    return Sampling()


@dataclass(frozen=True)
class FindOptions:
    """How objects are to be found. What a family cannot heed it ignores, unless `Find` says otherwise."""

    masks: bool = False
    sampling: "Sampling" = field(default_factory=likeliest)
    max_tokens: int = 512  # of an answer
    least: float | None = None  # the smallest probability of an object; None: the model's own limit
    beams: int = 1  # answers that are followed side by side; with several nothing is drawn by `sampling`

    @property
    def writing(self) -> dict[str, Any]:
        """What `engine.collect.complete` gets of it."""
        choice: dict[str, Any] = {"beams": self.beams} if self.beams > 1 else {"sampling": self.sampling}
        return {"max_tokens": self.max_tokens} | choice


@dataclass(frozen=True)
class Found(Completion):
    """What a family's own way of finding gave for one image: its tokens are those of all prompts, one after another.

    Where several answers make one, the log-probabilities are those of the tokens alone.
    """

    objects: "tuple[ParsedObject, ...]" = ()
    text: str = ""  # the objects in the model's language
    problems: tuple[str, ...] = ()


class Find(Protocol):
    """How a family finds objects, where it has a way of its own."""

    def __call__(
        self,
        loaded: Any,
        images: "Sequence[Image.Image]",
        labels: Sequence[str],
        options: "FindOptions",
    ) -> Sequence[Found]:
        """What each RGB image shows of `labels`, in their order. `loaded` is the `Loaded` of the model.

        Raises UsageError for several beams where answers cannot be followed side by side.
        """
        ...


class Outline(Protocol):
    """How a family outlines what is in boxes that are there already."""

    def __call__(
        self,
        loaded: Any,
        images: "Sequence[Image.Image]",
        boxes: "Sequence[Sequence[tuple[str, Box]]]",
        *,
        sampling: "Sampling",
        divisor: int | None,
    ) -> Sequence[Found]:
        """For each RGB image one object for each of its boxes, in their order, with mask codes where it could.

        Boxes are labels, without signs that mean something to a grammar, with x0, y0, x1, y1 in shares of the image's
        sides, none of them empty. `divisor` is one of the grammar's; None: its own. What a box gives does not depend
        on the others.
        """
        ...


def found_in(
    answers: Sequence[Completion],
    objects: "Sequence[ParsedObject]",
    text: Sequence[str],
    problems: Sequence[str],
    timings: Timings,
) -> Found:
    """All answers about one image as one, with the lines of its text; a problem that comes again stands once."""
    return Found(
        ids=tuple(id for answer in answers for id in answer.ids),
        logprobs=tuple(value for answer in answers for value in answer.logprobs[: len(answer.ids)]),
        ended=all(answer.ended for answer in answers),
        timings=timings,
        objects=tuple(objects),
        text="\n".join(text),
        problems=tuple(dict.fromkeys(problems)),
    )
