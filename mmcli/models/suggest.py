"""Which of the known models fit a machine, best first.

A model needs its weights in the type in which they would be loaded, a quarter more for what it computes, and what
Python and PyTorch take themselves; a tenth of the memory is left to others. Slow is more than a billion parameters
without a GPU. Of those that fit and are not slow, that comes first which does more of the tasks, since one download
serves them all; then the larger, or a smaller one that is near it by published figures (`KnownModel.near`, with their
sources). To chat, models that remember the turns come before all others, to transcribe those that time the words, and
the bundled image model, which is the smallest by far, comes last.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mmcli.engine.device import SMALL_MODEL
from mmcli.engine.machine import Machine
from mmcli.hub.here import Here
from mmcli.hub.known import IMAGE_MODEL
from mmcli.hub.known_models import BY_NAME, KnownModel
from mmcli.models.offered import offered

PROGRAM = 700_000_000  # bytes of Python, PyTorch and an image
ROOM = 0.9  # share of the memory that a model may take
WORKING = 1.25  # memory while a model runs, in shares of its weights
SLOW = 1_000_000_000  # parameters from which a processor takes long

ABILITIES = {
    "caption": ("images",), "detect": ("objects",), "segment": ("masks",), "read": ("reads_text",),
    "chat": ("images", "questions"), "transcribe": ("transcribes",),
}  # fmt: skip
# What a task is done better with.
WELCOME = {"chat": "turns", "transcribe": "word_times"}


@dataclass(frozen=True)
class Suggestion:
    """A model for a task, and how it would run."""

    task: str
    model: KnownModel
    here: bool
    needed: int  # bytes of memory
    options: str = ""  # beside --model, for it to fit
    slow: bool = False
    obstacle: str = ""  # why it cannot be used here: memory, disk, network; "" where it can

    def line(self, example: str) -> str:
        """What to type: an example without a model, with this one."""
        return " ".join(part for part in (example, f"-M {self.model.name}", self.options) if part)


def suggest(task: str, machine: Machine, here: Here) -> list[Suggestion]:
    """All known models for a task, those that can be used first, of these the best first."""
    found = [_suggestion(task, model, machine, here) for model in offered(*ABILITIES[task])]
    return sorted(found, key=_rank)


def _rank(one: Suggestion) -> tuple[bool | int, ...]:
    """What the least of is the best, first things first."""
    model, welcome = one.model, WELCOME.get(one.task)
    lacks = welcome is not None and welcome not in model.can
    return bool(one.obstacle), one.slow, model.name == IMAGE_MODEL, lacks, -len(model.tasks), -_size(model)


def _size(model: KnownModel) -> int:
    """Parameters; of a model that is near a larger one, a little more than that has."""
    return _size(BY_NAME[model.near]) + 1 if model.near else model.parameters


def best_open(task: str, machine: Machine, here: Here) -> Suggestion | None:
    """The best model for a task that is neither gated nor bundled nor slow; None where there is none."""
    usable = (one for one in suggest(task, machine, here) if not (one.obstacle or one.slow or one.model.bundled))
    return next((one for one in usable if not one.model.gated), None)


def _suggestion(task: str, model: KnownModel, machine: Machine, here: Here) -> Suggestion:
    is_here = model.name in here.models
    slow = machine.gpu is None and model.parameters - model.mapped > SLOW
    ways = list(_ways(model, machine))
    fitting = next((way for way in ways if way[2] is None or way[1] <= ROOM * way[2]), None)
    options, needed, _ = fitting or ways[-1]
    obstacle = "" if fitting else "memory"
    if not obstacle and not is_here:
        obstacle = "network" if not here.online else "disk" if here.free is not None and model.bytes > here.free else ""
    slow = slow or (machine.gpu is not None and "cpu" in options and model.parameters > SLOW)
    return Suggestion(task, model, is_here, needed, options, slow, obstacle)


def _ways(model: KnownModel, machine: Machine) -> Iterator[tuple[str, int, int | None]]:
    """(options, bytes needed, bytes there) of each way to run a model, as it would run by itself first."""
    weights = model.parameters - model.mapped
    small = 4 * model.parameters < SMALL_MODEL
    short, long = (int(WORKING * width * weights) + PROGRAM for width in (2, 4))
    on_cpu = ""
    if machine.gpu is not None:
        yield "", short, machine.gpu_memory
        on_cpu = "--device cpu"
    if machine.bfloat16 and not small:
        yield on_cpu, short, machine.memory
        return
    yield on_cpu, long, machine.memory
    yield f"{on_cpu} --dtype bfloat16".strip(), short, machine.memory
