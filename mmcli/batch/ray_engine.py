"""A Ray cluster: Ray Data hands the inputs to workers on its machines, each an actor that holds one model.

Ray Data holds sources back while workers and results are behind, starts workers that died again elsewhere, and repeats
what those had in hand. An input that ends every worker would be repeated for ever: after RETRIES the parts of the work
that came to nothing are given out again input by input, each alone with its worker, so that none is lost by another's
fault, and what still fails is a failed input like any other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmcli.batch.outcome import Outcome
from mmcli.batch.ray_cluster import BESIDE_WEIGHTS, Plan, connected, plan, reach, require_ray, resources
from mmcli.batch.work import Choice, Desk, Work, Worker
from mmcli.errors import MachineError

if TYPE_CHECKING:
    from mmcli.hub.resolve import Checkpoint
    from mmcli.media.sources import Source

LARGEST_PART = 32  # inputs that a worker is given at once; their results come together
PARTS = 4  # for each worker at least, so that they end together
RETRIES = 2


def run(
    work: Work,
    sources: "Iterable[Source]",
    *,
    address: str | None = None,
    workers: int | None = None,
    keep_images: bool = False,
) -> Iterator[tuple[int, Outcome]]:
    """Do the work on a cluster: each outcome with the number of its source, as they come.

    Raises UsageError where Ray is missing, MachineError where no cluster answers, ModelError where the model cannot be
    found here or there; and what `Desk` does.
    """
    require_ray()
    address = reach(address)
    desk = Desk(work, keep_images=keep_images, apart=True)
    texts = [desk.give(source)[1] for source in sources]
    if not texts:
        return
    checkpoint, memory = _model(work.choice)
    with connected(address):
        room = plan(resources(), work.choice.device, memory, workers)
        work = replace(work, choice=_settled(work.choice, checkpoint, room))
        yield from _pass(desk, texts, work, room, memory if workers is None else None, RETRIES)
        for _ in range(RETRIES):
            if lost := [desk.again(number) for number in desk.out]:
                yield from _pass(desk, lost, work, room, None, 0, apart=True)
        for number in desk.out:
            yield desk.fail(number, " before it could answer")


def _model(choice: Choice) -> "tuple[Checkpoint, int]":
    """The model, and the bytes of memory that a worker needs for it on a CPU. ModelError."""
    import torch

    from mmcli.engine.device import choose_dtype
    from mmcli.hub.quantized import parameter_count
    from mmcli.models.load import memory_estimate

    checkpoint = choice.checkpoint()
    dtype = choose_dtype(choice.dtype, torch.device("cpu"), parameter_count(checkpoint.folder))
    return checkpoint, memory_estimate(checkpoint, dtype, choice.table, choice.quantize) + BESIDE_WEIGHTS


def _settled(choice: Choice, checkpoint: "Checkpoint", room: Plan) -> Choice:
    """The choice as all workers must follow it."""
    from mmcli.hub.fingerprint import weights_of

    threads = None if room.gpus else room.cpus
    return replace(choice, weights=weights_of(checkpoint), revision=checkpoint.revision, threads=threads)


def _pass(
    desk: Desk, texts: list[str], work: Work, room: Plan, memory: int | None, retries: int, *, apart: bool = False
) -> Iterator[tuple[int, Outcome]]:
    """The answers to texts, but those of parts that came to nothing; with `apart` each has a worker to itself."""
    from ray.data import ActorPoolStrategy, DataContext, from_items
    from ray.data.exceptions import SystemException
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    part = 1 if apart else max(1, min(LARGEST_PART, len(texts) // (PARTS * room.workers)))
    items = from_items([{"text": text} for text in texts], override_num_blocks=-(-len(texts) // part))
    more: dict[str, Any] = {"max_task_retries": retries}
    data = items.map_batches(
        _RayWorker,
        batch_size=None,
        batch_format="numpy",
        fn_constructor_args=(work,),
        compute=ActorPoolStrategy(
            size=min(room.workers, len(texts)), max_tasks_in_flight_per_actor=1 if apart else None
        ),
        num_cpus=room.cpus,
        num_gpus=room.gpus or None,
        memory=memory,
        **more,
    )
    try:
        for batch in data.iter_batches(batch_size=None, batch_format="numpy"):
            for text in batch["text"]:
                answer = desk.take(text)
                if answer is not None:
                    yield answer
    except (RayError, SystemException) as error:
        what = f"The Ray cluster broke the work off: {_first_line(error)}"
        raise MachineError(what, "Is mmcli installed on all of its machines? --debug shows more") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else type(error).__name__)


class _RayWorker:
    """A `Worker` as Ray Data calls it: a batch of texts gives answers, one by one."""

    def __init__(self, work: Work):
        self._worker = Worker(work)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        for text in self._worker.answers(str(text) for text in batch["text"]):
            yield {"text": [text]}
