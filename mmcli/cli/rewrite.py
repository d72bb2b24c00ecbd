"""`mmcli models convert`, `merge` and `quantize`: a model written into a folder anew, in another form."""

from pathlib import Path
from typing import Annotated

import typer

from mmcli.cli import complete
from mmcli.cli.options import LogOptions, Offline, Revision, one_of, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode
from mmcli.models.offered import able
from mmcli.output.tables import bytes_text

Name = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=f"A bundled model ({', '.join(able(bundled=True))}), a folder, or a model of the hub by its short name or "
        "as owner/name.",
        autocompletion=complete.models,
    ),
]
NewFolder = Annotated[
    str, option("Output", "--output", "-o", metavar="FOLDER", help="The folder to write; it must not be there yet.")
]


@spread
def convert(
    ctx: typer.Context,
    name: Name,
    output: NewFolder,
    revision: Revision = None,
    offline: Offline = False,
    *,
    log: LogOptions,
) -> int:
    """Write a model whose weights are pickles (pytorch_model.bin) into a folder anew, as safetensors.

    Only tensors are read, and code in a pickle is never run. The folder, whose name is printed, also gets config.json
    and the tokenizer's files; it is whole or not there.
    """
    from mmcli.hub.convert import convert as convert_to
    from mmcli.hub.resolve import resolve

    environment = begin(ctx, log, offline)
    checkpoint = resolve(name, revision, download=not offline)
    size = convert_to(checkpoint, Path(output), lambda file: environment.log(f"writing {file}"))
    environment.log(f"{bytes_text(size)} of weights are written")
    environment.write(f"{output}\n")
    return ExitCode.OK


@spread
def quantize(
    ctx: typer.Context,
    name: Name,
    output: NewFolder,
    to: Annotated[
        str,
        option(
            "Output",
            "--to",
            metavar="int8|int4",
            callback=one_of("int8", "int4"),
            help="8-bit integers, a scale a row (default int8), or 4-bit ones, a scale for each 32 numbers.",
        ),
    ] = "int8",
    revision: Revision = None,
    offline: Offline = False,
    *,
    log: LogOptions,
) -> int:
    """Write a model into a folder anew, its decoder's weights in integers: a half or a quarter of their size.

    Every command then keeps them so, as it does with --quantize, without quantizing them each time. Towers for images
    and audio stay as they are. The folder, whose name is printed, is whole or not there.
    """
    from mmcli.hub.quantized import STORAGES
    from mmcli.hub.resolve import resolve
    from mmcli.models.quantize import quantize_checkpoint

    environment = begin(ctx, log, offline)
    checkpoint = resolve(name, revision, download=not offline)
    storage = next(storage for storage in STORAGES if storage == to)
    size = quantize_checkpoint(checkpoint, Path(output), storage, lambda file: environment.log(f"writing {file}"))
    environment.log(f"{bytes_text(size)} of weights are written")
    environment.write(f"{output}\n")
    return ExitCode.OK


@spread
def merge(
    ctx: typer.Context,
    name: Name,
    adapter: Annotated[str, typer.Argument(metavar="ADAPTER", help="The folder of a LoRA adapter.")],
    output: NewFolder,
    revision: Revision = None,
    offline: Offline = False,
    *,
    log: LogOptions,
) -> int:
    """Merge a LoRA adapter into its model, and write that into a folder, whose name is printed.

    The folder is a model like any other; it is whole or not there. Weights are of the type in which the model's are
    stored. Those of a model in integers are multiplied out, and are float16 then: models quantize puts them in integers
    again.
    """
    from mmcli.hub.quantized import QUANTIZED
    from mmcli.hub.resolve import resolve
    from mmcli.models.merging import merge_into

    environment = begin(ctx, log, offline)
    checkpoint = resolve(name, revision, download=not offline)
    if (kept := checkpoint.config.get(QUANTIZED)) is not None:
        environment.note(f"mmcli: {name} is in {kept}, and is multiplied out: the weights of {output} are float16")
    merge_into(checkpoint, Path(adapter).expanduser(), Path(output))
    environment.write(f"{output}\n")
    return ExitCode.OK
