"""What a model family offers, and what a processor does: the seam between families and everything else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # so that naming a family's type costs no import of torch
    from PIL import Image
    from torch import nn

    from mmcli.decode import Vocabulary
    from mmcli.engine.inputs import Inputs
    from mmcli.hub.weights import Rule


@dataclass(frozen=True)
class Stage:
    """One stage a picture and a prompt pass through, as `inspect` shows it."""

    name: str
    kind: str
    output: str  # shape as text, e.g. "256 × 1152"
    parameters: int
    notes: tuple[str, ...] = ()


class Processor(Protocol):
    """Turns pictures and prompts into a model's inputs, and its token ids back into text."""

    image_size: int  # side of the square that pictures are squeezed to, in pixels
    soft_tokens: int  # soft tokens a picture becomes
    vocabulary: "Vocabulary | None"  # where location and segment tokens are; None: this model cannot place things
    stop_ids: frozenset[int]

    def inputs(self, pictures: "Sequence[Sequence[Image.Image]]", prompts: Sequence[str]) -> "Inputs":
        """Row i has the RGB pictures of `pictures[i]` (maybe none) and the text `prompts[i]`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; location and segment tokens keep their names, control tokens vanish."""
        ...

    def task_prompt(self, task: str, words: str) -> str:
        """The prompt by which this family knows a task: caption, detect, segment or chat."""
        ...


@dataclass(frozen=True)
class Family:
    """A model family: from a checkpoint's configuration to a module, its weights' names and its processor."""

    name: str
    read_config: Callable[[dict[str, Any]], Any]  # config.json → the family's configuration; ModelError
    build: "Callable[[Any], nn.Module]"  # called under the meta device
    rules: "Callable[[Any], list[Rule]]"
    processor: Callable[[Path, Any, dict[str, Any]], Processor]  # folder, configuration, config.json
    stages: Callable[[Any], list[Stage]]
    transcribe: "Callable[..., list[Any]] | None" = None
    """For families that hear: (loaded, sounds, **settings) → what was said in each sound (segments with times,
    language, token ids, …), all of them in one batch. Settings and the result's fields are those of
    `models/whisper/transcribe.py`. None: this family has no ears."""
