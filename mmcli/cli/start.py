"""What every command does first."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mmcli.cli.environment import Environment
from mmcli.cli.options import LogOptions, ModelOptions
from mmcli.errors import ModelError, UsageError
from mmcli.output.tables import bytes_text

if TYPE_CHECKING:
    import torch

    from mmcli.hub.resolve import Checkpoint
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded


def begin(ctx: typer.Context, log: LogOptions, offline: bool = False) -> Environment:
    """Set the environment up for one command, before huggingface_hub, which reads its variables once, is imported."""
    environment: Environment = ctx.obj
    environment.quiet, environment.debug = log.quiet, log.debug
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):  # huggingface_hub breaks off as it is imported
        value = environment.variables.get(name)
        if value is not None and not (value.isascii() and value.isdigit()):
            what = f"The variable {name} is {value!r}, which is no number of seconds"
            raise UsageError(what, "Set it right or unset it")
    if offline:
        environment.variables["HF_HUB_OFFLINE"] = "1"
    environment.variables.setdefault("HF_HUB_VERBOSITY", "error")  # a damaged cache is its own to handle
    if log.quiet or not environment.stderr_tty:
        environment.variables["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return environment


def loader(environment: Environment, options: ModelOptions, mask_decoder: str | None = None) -> "Callable[[], Loaded]":
    """A function that finds and loads the model; all that can be wrong with it is a ModelError there."""
    from mmcli.engine.memory import keep_freed

    keep_freed()  # before there are other threads

    def load() -> "Loaded":
        from mmcli.hub.layout import BUNDLED
        from mmcli.hub.resolve import resolve

        with environment.aside():  # a download draws its own progress
            checkpoint = resolve(options.model, options.revision, download=not options.offline)
        checkpoint = replace(checkpoint, adapter=adapter_of(options))
        if checkpoint.note:
            environment.note(f"mmcli: {checkpoint.note}")
        from mmcli.engine.device import choose_device
        from mmcli.models.load import load as load_checkpoint

        device = choose_device(options.device)
        if options.model not in BUNDLED:
            report_size(environment, checkpoint, device, options)
        decoder = Path(mask_decoder) if mask_decoder else None
        return load_checkpoint(checkpoint, device, options.dtype, decoder, options.table, quantize=options.quantize)

    return load


def checkpoint_here(options: ModelOptions) -> "Checkpoint | None":
    """The model as far as it is on this machine, None where it is not: what is wrong with it is said when it is loaded.

    What a model cannot do is known from it before an input is read.
    """
    from mmcli.hub.resolve import resolve

    adapter = adapter_of(options)
    try:
        return replace(resolve(options.model, options.revision, download=False), adapter=adapter)
    except ModelError:
        return None


def adapter_of(options: ModelOptions) -> Path | None:
    """The folder of the adapter that was named. Raises ModelError where there is none."""
    if options.adapter is None:
        return None
    folder = Path(options.adapter).expanduser()
    if not folder.is_dir():
        raise ModelError(f"There is no folder {options.adapter}", "Name the adapter's folder")
    return folder


def capabilities_here(options: ModelOptions) -> "Capabilities | None":
    """What a model that is on this machine can do, by its config.json; None where it is not, or makes no sense."""
    checkpoint = checkpoint_here(options)
    if checkpoint is None:
        return None
    from mmcli.models.registry import capabilities_of

    try:
        return capabilities_of(checkpoint)
    except ModelError:
        return None


def report_size(
    environment: Environment, checkpoint: "Checkpoint", device: "torch.device", options: ModelOptions
) -> None:
    """Say how much memory the weights will take, loudly where the device has not that much."""
    from mmcli.engine.device import choose_dtype
    from mmcli.hub.quantized import parameter_count
    from mmcli.models.load import memory_estimate, storage_of

    dtype = choose_dtype(options.dtype, device, parameter_count(checkpoint.folder))
    needed = memory_estimate(checkpoint, dtype, options.table, options.quantize)
    there = memory_of(device)
    kind = storage_of(checkpoint, options.quantize) or str(dtype).removeprefix("torch.")
    environment.log(f"loading {checkpoint.name} on {device} as {kind}: {bytes_text(needed)}")
    if there is not None and needed > there:
        environment.note(
            f"mmcli: the weights of {checkpoint.name} need {bytes_text(needed)} as {kind}, "
            f"but {device} has {bytes_text(there)} in all"
        )


def memory_of(device: "torch.device") -> int | None:
    """Bytes of memory that a device has in all, or None where the system does not tell."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    from mmcli.engine.memory import memory_limit

    return memory_limit()
