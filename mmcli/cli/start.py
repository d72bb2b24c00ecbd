"""What every command does first."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mmcli.cli.environment import Environment
from mmcli.cli.options import ModelOptions, TalkOptions

if TYPE_CHECKING:
    from mmcli.hub.load import Loaded


def begin(ctx: typer.Context, talk: TalkOptions, offline: bool = False) -> Environment:
    """Set the environment up for one command, before huggingface_hub, which reads its variables once, is imported."""
    environment: Environment = ctx.obj
    environment.quiet, environment.debug = talk.quiet, talk.debug
    if offline:
        environment.variables["HF_HUB_OFFLINE"] = "1"
    if talk.quiet or not environment.stderr_tty:
        environment.variables["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    return environment


def loader(environment: Environment, options: ModelOptions, mask_decoder: str | None = None) -> "Callable[[], Loaded]":
    """A function that finds and loads the model; all that can be wrong with it is a ModelError there."""

    def load() -> "Loaded":
        from mmcli.hub.resolve import BUNDLED, resolve
        from mmcli.hub.safetensors_files import memory_estimate

        checkpoint = resolve(options.model, options.revision, download=not options.offline)
        from mmcli.engine.device import choose_device
        from mmcli.hub.load import load as load_checkpoint

        device = choose_device(options.device)
        if options.model not in BUNDLED:
            from mmcli.cli.units import bytes_text

            sizes = [f"{bytes_text(memory_estimate(checkpoint.folder, size))} as {name}" for name, size in SIZES]
            environment.log(f"loading {options.model} on {device}: {' or '.join(sizes)}")
        return load_checkpoint(checkpoint, device, options.dtype, Path(mask_decoder) if mask_decoder else None)

    return load


SIZES = (("float32", 4), ("bfloat16", 2))
