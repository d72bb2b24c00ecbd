"""The options that share the work out to several processes, on this machine or on a cluster."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mmcli.cli.options import ModelOptions, one_of, option
from mmcli.errors import UsageError

if TYPE_CHECKING:
    from mmcli.batch.outcome import Outcome
    from mmcli.batch.work import Choice, Work
    from mmcli.media.sources import Source


@dataclass(frozen=True)
class EngineOptions:
    """Which processes do the work."""

    devices: Annotated[
        str | None,
        option(
            "Workers",
            "--devices",
            metavar="all|LIST",
            help="One process with a model of its own for each GPU (all), or for each device of a list: cuda:0,cuda:1.",
        ),
    ] = None
    engine: Annotated[
        str,
        option(
            "Workers",
            "--engine",
            metavar="local|ray",
            callback=one_of("local", "ray"),
            help="ray: share the inputs out over a Ray cluster, one model a worker (needs mmcli[ray]).",
        ),
    ] = "local"
    address: Annotated[
        str | None,
        option(
            "Workers",
            "--address",
            metavar="HOST:PORT|auto",
            help="The cluster for --engine ray (default: that of RAY_ADDRESS, else this machine alone).",
        ),
    ] = None
    workers: Annotated[
        int | None,
        option(
            "Workers",
            "--workers",
            metavar="N",
            help="Workers on the Ray cluster (default: one a GPU, else one a core as far as memory goes).",
        ),
    ] = None

    @property
    def apart(self) -> bool:
        """Whether other processes do the work."""
        return self.engine == "ray" or self.devices is not None

    def check(self, model: ModelOptions, mask_decoder: str | None = None) -> None:
        """Raise UsageError for options that do not go together."""
        if self.engine == "ray" and self.devices is not None:
            raise UsageError("--devices is for this machine alone", "Leave it out, or leave --engine ray out")
        for name, given in (("--address", self.address), ("--workers", self.workers)):
            if given is not None and self.engine != "ray":
                raise UsageError(f"{name} is for a cluster", "Add --engine ray")
        if self.devices is not None and model.device != "auto":
            raise UsageError("--device and --devices contradict each other", "Give one of them")
        if self.engine == "ray" and ":" in model.device:
            what = f"--device {model.device} is one GPU of this machine, and --engine ray chooses by itself"
            raise UsageError(what, "Write --device cuda, or leave it out")
        if self.engine == "ray" and mask_decoder is not None and not os.path.isabs(mask_decoder):
            what = f"--mask-decoder {mask_decoder} is a path from here, and workers run elsewhere"
            raise UsageError(what, "Write the whole path")

    def device(self, model: ModelOptions) -> str:
        """The device as it decides the results: its kind."""
        if self.devices is None:
            return model.device
        kinds = {name.strip().partition(":")[0] for name in self.devices.split(",")}
        return "auto" if kinds & {"all", "cuda"} else kinds.pop() if len(kinds) == 1 else "mixed"


def choice_of(model: ModelOptions, mask_decoder: str | None = None) -> "Choice":
    """The model as workers get it."""
    from mmcli.batch.work import Choice

    folder = Path(model.model).expanduser()
    place = str(folder.absolute()) if model.model and folder.is_dir() else model.model
    adapter = None if model.adapter is None else str(Path(model.adapter).expanduser().absolute())
    how = (model.revision, model.device, model.dtype, model.table, model.quantize, mask_decoder, adapter)
    return Choice(model.model, place, *how, not model.offline)


def outcomes_apart(
    work: "Work", sources: "Iterable[Source]", options: EngineOptions, *, ordered: bool, keep_images: bool = False
) -> "Iterator[Outcome]":
    """What came of each source: in their order if `ordered`, else as they come. Raises as the engines do."""
    from mmcli.batch.work import in_order

    if options.engine == "ray":
        from mmcli.batch import ray_engine

        answers = ray_engine.run(
            work, sources, address=options.address, workers=options.workers, keep_images=keep_images
        )
    else:
        from mmcli.batch import devices

        names = devices.chosen_devices(options.devices or "")
        answers = devices.run(work, sources, names, keep_images=keep_images)
    return in_order(answers) if ordered else (outcome for _, outcome in answers)
