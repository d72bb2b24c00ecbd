"""The options that commands share, declared once.

A command takes a whole group by naming it in its signature (`model: ModelOptions`); `spread` turns the group's fields
into single options for Typer and gathers them again for the call.
"""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any

import typer

from mmcli.cli import complete
from mmcli.cli.choice import model_or_default
from mmcli.decode.locations import DIVISORS
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import such_as
from mmcli.tasks import arguments


def one_of(*allowed: str) -> Callable[[str], str]:
    """A check that a value is one of `allowed`, each a regular expression's full match."""

    def check(value: str) -> str:
        if value is not None and not any(re.fullmatch(pattern, value) for pattern in allowed):
            raise typer.BadParameter(f"{value!r} is none of {', '.join(allowed).replace(chr(92) + 'd+', 'N')}.")
        return value

    return check


RANGES: dict[str, tuple[float, float]] = {  # of every option that is a number, in all commands that have it
    **{f"--{name.replace('_', '-')}": limits for name, limits in arguments.RANGES.items()},
    "--depth": (1, 64),
    "--workers": (1, 100_000),
    "--steps": (1, 10_000_000),
    "--epochs": (0.001, 100_000),
    "--minutes": (0.01, 100_000),
    "--lr": (1e-9, 10),
    "--micro-batch": (1, 256),
    "--rank": (1, 4096),
    "--alpha": (0.001, 1_000_000),
    "--dropout": (0, 0.99),
    "--ema": (0, 0.99999),
    "--eval-every": (1, 10_000_000),
    "--patience": (0, 10_000),
    "--replay-share": (0.01, 0.99),
}
LONGEST_TIME = 10_000_000  # seconds: 115 days
SHORTEST_INTERVAL = 0.001  # seconds


def seconds_of(value: str | float) -> float:
    """A time such as "90", "1:30" or "0:01:30.5" → seconds."""
    if isinstance(value, float):
        return value
    if not re.fullmatch(r"(?:(?:\d+:)?[0-5]?\d:[0-5]?\d|\d+)(?:\.\d*)?", value.strip()):
        raise typer.BadParameter(f"{value!r} is no time; write seconds, M:SS or H:MM:SS.")
    total = 0.0
    for part in value.strip().split(":"):
        total = 60 * total + float(part)
    if total > LONGEST_TIME:
        raise typer.BadParameter(f"{value!r} is more than {LONGEST_TIME:,} seconds.")
    return total


def interval_of(value: str | float) -> float:
    """A stretch of time such as "0.5s", "2" or "1:30" → seconds."""
    seconds = seconds_of(value.strip().removesuffix("s") if isinstance(value, str) else value)
    if seconds < SHORTEST_INTERVAL:
        raise typer.BadParameter(f"{value!r} is less than {SHORTEST_INTERVAL} seconds.")
    return seconds


def _within(low: float, high: float) -> Callable[[Any], Any]:
    """A check that a number is given, if at all, within a range; nan is within none."""

    def check(value: Any) -> Any:
        if value is not None and not low <= value <= high:
            raise typer.BadParameter(f"{value} is not between {low:g} and {high:,}.")
        return value

    return check


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """A Typer option in a group of the help page; its help tells its default where that needs telling."""
    if names[0] in RANGES:
        more["callback"] = _within(*RANGES[names[0]])
    more.setdefault("autocompletion", complete.values(more.get("metavar")))
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def device_option(help: str) -> Any:
    """--device, with a help text that suits the command."""
    check = one_of("auto", "cpu", "cuda", r"cuda:\d+", "mps")
    return option("Model", "--device", metavar="auto|cpu|cuda|mps", callback=check, help=help)


def dtype_option(help: str) -> Any:
    """--dtype, with a help text that suits the command."""
    check = one_of("auto", "float32", "bfloat16", "float16")
    return option("Model", "--dtype", metavar="auto|float32|bfloat16|float16", callback=check, help=help)


def model_option(help: str, *, usual: bool = True) -> Any:
    """--model, with a help text that suits the command; with `usual` it may be what `mmcli models use` has set."""
    more: dict[str, Any] = {"autocompletion": complete.models} | ({"callback": model_or_default} if usual else {})
    return option("Model", "--model", "-M", metavar="NAME|PATH|REPO", help=help, **more)


def quantize_option(help: str) -> Any:
    """--quantize, with a help text that suits the command."""
    check = one_of("auto", "none", "int8", "int4")
    return option("Model", "--quantize", metavar="auto|none|int8|int4", callback=check, help=help)


def files_from_option(panel: str) -> Any:
    """--files-from, in the panel that is called after what the files are."""
    help = f"Read names of {panel.lower()} from a file or stdin: one a line, or separated by NUL."
    return option(panel, "--files-from", metavar="FILE|-", help=help)


def batch_size_option(panel: str, help: str) -> Any:
    """--batch-size, with a help text that suits the command."""
    return option(panel, "--batch-size", metavar="N", help=help)


Revision = Annotated[
    str | None,
    option("Model", "--revision", metavar="REV", help="Branch, tag or commit of a hub repository (default: main)."),
]
Offline = Annotated[bool, option("Model", "--offline", help="Never use the network.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which model, from where, and where it runs."""

    model: Annotated[
        str,
        model_option(
            f"The bundled {IMAGE_MODEL} (default, unless mmcli models use has set another), a checkpoint's "
            f"folder, or a model of the Hugging Face hub such as {such_as('images', bundled=False)}, downloaded at "
            "first use.",
        ),
    ] = IMAGE_MODEL
    revision: Revision = None
    adapter: Annotated[
        str | None,
        option(
            "Model",
            "--adapter",
            metavar="FOLDER",
            help="Put a LoRA adapter on top of the model's weights: a folder that mmcli tune wrote, or peft.",
        ),
    ] = None
    offline: Annotated[
        bool,
        option(
            "Model",
            "--offline",
            help="Never use the network: the model must be here already, and no address is fetched.",
        ),
    ] = False
    device: Annotated[str, device_option("Where to run (default auto: a GPU if there is one).")] = "auto"
    dtype: Annotated[
        str, dtype_option("Type of the weights (default auto: bfloat16 where the device is fast at it, else float32).")
    ] = "auto"
    table: Annotated[
        str,
        option(
            "Model",
            "--table",
            metavar="auto|cpu|device",
            callback=one_of("auto", "cpu", "device"),
            help="Where to keep the per-layer embedding table of models that have one: in its file, whose rows are "
            "read as needed (cpu), or with the other weights (device; auto: if a GPU has room to spare).",
        ),
    ] = "auto"
    quantize: Annotated[
        str,
        quantize_option(
            "Keep the decoder's weights in 8- or 4-bit integers: a half or a quarter of the memory, and faster where "
            "memory is the limit, but a little less exact (default auto: as the model's folder was saved).",
        ),
    ] = "auto"


@dataclass(frozen=True)
class AnswerOptions:
    """What the model is asked and how its answer is drawn."""

    prompt: Annotated[
        str | None,
        option(
            "Answer",
            "--prompt",
            metavar="TEXT",
            help="Give the model this text, word for word, instead of the task's own prompt.",
        ),
    ] = None
    max_tokens: Annotated[
        int | None,
        option(
            "Answer",
            "--max-tokens",
            metavar="N",
            help="Stop an answer after N tokens, which are words or parts of words (it is marked truncated).",
        ),
    ] = None
    temperature: Annotated[
        float,
        option(
            "Answer",
            "--temperature",
            metavar="T",
            help="0 (default): always the likeliest token; higher values give more varied answers.",
        ),
    ] = 0.0
    top_k: Annotated[
        int,
        option(
            "Answer",
            "--top-k",
            metavar="K",
            help="With a temperature: sample from the K likeliest tokens only (0, the default: all).",
        ),
    ] = 0
    top_p: Annotated[
        float,
        option(
            "Answer",
            "--top-p",
            metavar="P",
            help="With a temperature: sample from the likeliest tokens that together hold probability P (1, the "
            "default: all).",
        ),
    ] = 1.0
    seed: Annotated[
        int | None,
        option(
            "Answer",
            "--seed",
            metavar="N",
            help="With a temperature: the same seed gives the same answer again.",
        ),
    ] = None


@dataclass(frozen=True)
class ImageOptions:
    """Where more images come from and how many go through the model together."""

    files_from: Annotated[str | None, files_from_option("Pictures")] = None
    batch_size: Annotated[
        int | None,
        batch_size_option(
            "Pictures",
            "Pictures that go through the model together (default: by device). Answers do not depend on it.",
        ),
    ] = None
    interval: Annotated[
        float | None,
        option(
            "Videos",
            "--every",
            metavar="TIME",
            parser=interval_of,
            help="Take a frame of a video every 0.5s, 2 or 1:30 (default 1s), named film.mp4#t=SECONDS. Videos in "
            "folders are read only with --every or --frames, as they may take hours.",
        ),
    ] = None
    frames: Annotated[
        int | None, option("Videos", "--frames", metavar="N", help="Take N frames of each video, evenly spread.")
    ] = None


Output = Annotated[
    str | None,
    option(
        "Output",
        "--output",
        "-o",
        metavar="FILE|FOLDER",
        help="Write results there instead of stdout: to one file, in the format of its suffix, or to a folder that "
        "mirrors the inputs' tree, with a file for each input.",
    ),
]
Overwrite = Annotated[
    bool,
    option(
        "Output",
        "--overwrite",
        help="Also replace files in output folders that mmcli did not write or that you changed.",
    ),
]


@dataclass(frozen=True)
class OutputOptions:
    """The form of the results."""

    json: Annotated[
        bool, option("Output", "--json", help="One JSON record a line; a failed picture is a record with an error.")
    ] = False
    token_ids: Annotated[
        bool, option("Output", "--token-ids", help="Add the answer's token ids to each record (with --json).")
    ] = False
    overlay: Annotated[
        str | None,
        option(
            "Output",
            "--overlay",
            metavar="PATH|FOLDER",
            help="Write the picture with boxes, masks and labels drawn in; a folder mirrors the pictures' tree. A "
            "video gives a video (.mp4, .mov, .mkv) without audio; objects stay drawn until the next frame.",
        ),
    ] = None
    output: Output = None
    overwrite: Overwrite = False
    show: Annotated[
        bool,
        option("Output", "--show", help="Show the picture with its result in the terminal (needs mmcli[show])."),
    ] = False
    loc_divisor: Annotated[
        int | None,
        option(
            "Output",
            "--loc-divisor",
            metavar="|".join(map(str, DIVISORS)),
            callback=lambda value: _divisor(value),
            help=f"How <locNNNN> becomes a share of the side: NNNN/{DIVISORS[0]} (default, undoes the training "
            f"encoder) or NNNN/{DIVISORS[1]} (as some other tools do).",
        ),
    ] = None


@dataclass(frozen=True)
class LogOptions:
    """How much is said on stderr."""

    quiet: Annotated[bool, option("Other", "--quiet", "-q", help="Say nothing on stderr but errors.")] = False
    debug: Annotated[bool, option("Other", "--debug", help="Show the traceback of an error.")] = False


def _divisor(value: int | None) -> int | None:
    if value is not None and value not in DIVISORS:
        raise typer.BadParameter(f"{value} is neither {' nor '.join(map(str, DIVISORS))}.")
    return value


def _default(of: "Field[Any]") -> Any:
    """What an option is where it is not given; one without a default is required."""
    return inspect.Parameter.empty if of.default is MISSING else of.default


def spread(function: Callable) -> Callable:
    """Turn every parameter whose type is an options dataclass into one parameter a field."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, type] = {}
    for parameter in inspect.signature(function).parameters.values():
        group = parameter.annotation
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        groups[parameter.name] = group
        parameters.extend(
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f), annotation=f.type)
            for f in fields(group)
        )

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        gathered = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        return function(**given, **gathered)

    del command.__wrapped__  # else Typer would look through to the grouped signature
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what `inspect` asks first
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
