"""The options of runs over many inputs: the forms of results, going on where a run ended, what becomes of objects."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli import complete
from mmcli.cli.options import ModelOptions, option
from mmcli.cli.start import checkpoint_here
from mmcli.errors import UsageError
from mmcli.output.datasets import DATASETS
from mmcli.output.writers import WRITERS, Writer, writers_for

if TYPE_CHECKING:
    from mmcli.batch.folder import FolderRun
    from mmcli.cli.environment import Environment
    from mmcli.output.ledger import Ledger
    from mmcli.output.store_folder import StoreFolder

IMAGE_FORMATS = (*(writer.name for writer in writers_for("image")), *DATASETS)
AUDIO_FORMATS = tuple(writer.name for writer in writers_for("audio"))


def formats_option(names: tuple[str, ...], help: str) -> Any:
    """--format: one form, or several with commas between."""

    def check(value: str | None) -> str | None:
        wrong = [one for one in split_formats(value) if one not in names]
        if wrong or (value is not None and not split_formats(value)):
            raise typer.BadParameter(f"{wrong[0] if wrong else value!r} is none of {', '.join(names)}.")
        return value

    offered = complete.values("|".join(names))
    more = {"metavar": "FORM[,FORM…]", "callback": check, "autocompletion": offered}
    return option("Output", "--format", help=help, **more)


def split_formats(value: str | None) -> list[str]:
    """The forms in the value of --format, each once."""
    return list(dict.fromkeys(part.strip() for part in (value or "").split(",") if part.strip()))


Force = Annotated[bool, option("Output", "--force", help="Redo everything in an output folder, even what is done.")]
RetryFailed = Annotated[
    bool, option("Output", "--retry-failed", help="Try again what failed before in an output folder.")
]


@dataclass(frozen=True)
class FolderOptions:
    """In which forms results are written, and what is done again."""

    format: Annotated[
        str | None,
        formats_option(
            IMAGE_FORMATS,
            "text (default), json, jsonl, csv; of captions of a video srt, vtt; in a folder also coco, yolo, voc, "
            "labelme: data sets for trainers. Several with commas: --format jsonl,coco -o FOLDER.",
        ),
    ] = None
    force: Force = False
    retry_failed: RetryFailed = False
    sidecar: Annotated[
        bool,
        option("Output", "--sidecar", help="Write the text beside each picture or video too: photo.txt for photo.jpg."),
    ] = False


@dataclass(frozen=True)
class ObjectOptions:
    """What becomes of the objects that were found."""

    nms: Annotated[
        float | None,
        option(
            "Objects",
            "--nms",
            metavar="IOU",
            help="If two objects of one label overlap by more than this (IoU), keep only the better one.",
        ),
    ] = None
    max_objects: Annotated[
        int | None, option("Objects", "--max-objects", metavar="N", help="Keep the N best of each picture.")
    ] = None
    count: Annotated[bool, option("Objects", "--count", help="Print how many there are of each label.")] = False
    crop: Annotated[
        str | None,
        option("Objects", "--crop", metavar="FOLDER", help="Write each object as a picture of its own."),
    ] = None
    cutout: Annotated[
        str | None,
        option(
            "Objects",
            "--cutout",
            metavar="FOLDER",
            help="Write each object that has a mask on a transparent background.",
        ),
    ] = None
    blur: Annotated[
        list[str] | None,
        option(
            "Objects",
            "--blur",
            metavar="LABEL",
            help="Blur objects of this label in --overlay and --copy ('*': all objects).",
        ),
    ] = None
    pixelate: Annotated[
        list[str] | None, option("Objects", "--pixelate", metavar="LABEL", help="Hide them in coarse blocks instead.")
    ] = None
    copy: Annotated[
        str | None,
        option(
            "Objects",
            "--copy",
            metavar="PATH|FOLDER",
            help="Write the picture without drawings, with the objects that --blur and --pixelate name hidden.",
        ),
    ] = None


def is_folder(output: str | None) -> bool:
    """Whether --output names a folder, as `Destination` takes it."""
    if output in (None, "", "-"):
        return False
    path = Path(str(output))
    return str(output).endswith(("/", os.sep)) or path.is_dir() or not (path.suffix or path.exists())


@dataclass(frozen=True)
class Forms:
    """The forms of a command line: those of each input, and data sets of all together."""

    writers: tuple[Writer, ...]
    datasets: tuple[str, ...] = ()


def chosen_forms(format: str | None, json: bool, named: Writer | None, *, folder: bool, task: str) -> Forms:
    """By --format, --json or the suffix of a file (`named`), text where nothing tells. UsageError if they disagree."""
    names = split_formats(format)
    if json and names and names != ["jsonl"]:
        raise UsageError(f"--json and --format {format} contradict each other", "Give one of them")
    if not names:
        return Forms((WRITERS["jsonl"] if json else named or WRITERS["text"],))
    datasets = tuple(name for name in names if name in DATASETS)
    if not folder and (datasets or len(names) > 1):
        raise UsageError(f"--format {format} makes several files", "Name a folder for them with --output FOLDER/")
    for name in datasets:
        if task not in DATASETS[name].tasks:
            raise UsageError(f"--format {name} holds objects, and mmcli {task} finds none", "Use detect or segment")
    writers = tuple(WRITERS[name] for name in names if name not in DATASETS)
    for one, name in ((writer, name) for writer in writers for name in datasets):
        if one.suffix == DATASETS[name].suffix:
            what = f"--format {one.name} and {name} would both write photo{one.suffix} for photo.jpg"
            raise UsageError(what, "Leave one out, or give each a folder of its own")
    return Forms(writers, datasets)


def open_run(
    folder: Path,
    ledger: "Ledger",
    model: ModelOptions,
    facts: dict[str, Any],
    *,
    force: bool,
    retry: bool,
    library: str | None = None,
    store: "StoreFolder | None" = None,
) -> "FolderRun":
    """The run into a folder; `facts` decide its results beside the model and its options. As `FolderRun`.

    `library` names with its version what answers where no model does.
    """
    from mmcli.batch.folder import FolderRun

    facts = facts | {"device": model.device, "dtype": model.dtype, "table": model.table, "quantize": model.quantize}

    def identified() -> tuple[str, str] | None:
        from mmcli.hub.fingerprint import weights_of

        checkpoint = checkpoint_here(model)
        return None if checkpoint is None else (checkpoint.name, weights_of(checkpoint))

    find = identified if library is None else lambda: ("", library)
    return FolderRun(folder, ledger, facts, find, force=force, retry=retry, store=store)


def open_store(
    environment: "Environment", output: str | None, formats: str | None, others: Iterable[str | None] = ()
) -> "StoreFolder | None":
    """Where --output names a folder in a store, that folder; its files are below the user's state before.

    UsageError where one of the `others` is in a store, or it is no folder or cannot hold these `formats`.
    """
    from mmcli.media.stores import is_store

    for other in others:
        if other and other != output and is_store(other):
            raise UsageError(f"{other} is in a store, where only the results of --output go", "Name a folder here")
    if not output or not is_store(output):
        return None
    name = output.rpartition("/")[2]
    if Path(name).suffix in {writer.suffix for writer in WRITERS.values()}:
        what = f"--output {output} is one file in a store, where a folder is needed"
        raise UsageError(what, f"Name it {output.removesuffix(name)}")
    for form in split_formats(formats):
        if form in DATASETS and DATASETS[form].beside:
            what = f"--format {form} tells where the pictures are from there, which it cannot in a store"
            raise UsageError(what, "Use coco or voc, or a folder here")
    import hashlib

    from mmcli.cli.user_folders import state_folder
    from mmcli.output.store_folder import StoreFolder

    digest = hashlib.sha256(output.rstrip("/").encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return StoreFolder(output, state_folder(environment.variables) / "stores" / digest)


def need_folder(force: bool, retry: bool, folder: bool) -> None:
    """Raise UsageError where these options are given and there is no folder, in which alone they make sense."""
    for name, given in (("--force", force), ("--retry-failed", retry)):
        if given and not folder:
            raise UsageError(f"{name} goes with an output folder", "Name one with --output FOLDER/")


def need_picture(objects: ObjectOptions, written: Iterable[object]) -> None:
    """Raise UsageError where something is to be hidden, and no picture is `written` in which it could be seen."""
    for name, labels in (("--blur", objects.blur), ("--pixelate", objects.pixelate)):
        if labels and not any(written):
            raise UsageError(f"{name} hides objects in pictures, and none is written", "Name one: --copy hidden.jpg")


def refuse_sidecar_value(sidecar: bool, names: Iterable[str]) -> None:
    """Raise UsageError where `txt` stands behind --sidecar, as other programs want it, and is no input."""
    for name in names:
        if sidecar and name in ("txt", ".txt") and not os.path.lexists(name):
            raise UsageError(f"--sidecar takes no value, and there is no picture called {name}", f"Leave {name} out")
