"""`mmcli inspect`: what a model is made of, from its configuration alone."""

import textwrap
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli import complete
from mmcli.cli.help import Command, plain
from mmcli.cli.options import LogOptions, Offline, Revision, option, spread
from mmcli.cli.start import begin
from mmcli.errors import ExitCode, ModelError
from mmcli.escape import escape_line, wrap
from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL
from mmcli.models.offered import able, such_as
from mmcli.output.json_text import to_json_line
from mmcli.output.tables import NARROWEST, bytes_text, count_text, table

if TYPE_CHECKING:
    from torch import nn

    from mmcli.hub.resolve import Checkpoint
    from mmcli.models.family import Processor

TIMES = {"word": "of segments and words", "segment": "of segments", "window": "none of its own"}  # in transcripts
NOTE_WIDTH = 66  # columns beside the boxes of the diagram
app = plain()
EPILOG = f"""\
Examples:

  mmcli inspect
  mmcli inspect {AUDIO_MODEL}
  mmcli inspect {such_as("images", bundled=False)}
  mmcli inspect ./checkpoint --depth 4
  mmcli inspect --json | jq .stages

No weights are loaded or downloaded: of a hub repository only the JSON files are fetched."""


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"A bundled model ({', '.join(able(bundled=True))}), a folder, or a model of the hub by its short "
            "name or as owner/name.",
            show_default=False,
            autocompletion=complete.models,
        ),
    ] = IMAGE_MODEL,
    depth: Annotated[
        int, option("Output", "--depth", metavar="N", help="Levels of the tree of modules (default 3).")
    ] = 3,
    json_: Annotated[bool, option("Output", "--json", help="Print one JSON object.")] = False,
    revision: Revision = None,
    offline: Offline = False,
    *,
    log: LogOptions,
) -> int:
    """Show a model's stages with their shapes and sizes, its vocabulary and its modules."""
    environment = begin(ctx, log, offline)
    facts = describe(name, revision, offline)
    environment.write(to_json_line(facts) if json_ else as_text(facts, depth, environment.width))
    return ExitCode.OK


def describe(name: str, revision: str | None = None, offline: bool = False) -> dict[str, Any]:
    """Everything `inspect` shows, as plain data; the model is built without memory. Raises ModelError."""
    from dataclasses import asdict

    from mmcli.models.load import build_empty
    from mmcli.models.registry import family_of

    checkpoint = configuration(name, revision, offline)
    family = family_of(checkpoint.config, name)
    config = family.read_config(checkpoint.config)
    model = build_empty(family, config)
    processor, notes = None, [checkpoint.note] if checkpoint.note else []
    try:
        processor = family.processor(checkpoint.folder, config, checkpoint.config)
    except ModelError as error:  # a config.json alone still says what the model is made of
        notes.append(str(error))
    grammar = processor and processor.grammar
    able = processor.capabilities if processor else family.capabilities(config)
    return {
        "name": checkpoint.name,
        "family": family.name,
        "revision": checkpoint.revision,
        "folder": str(checkpoint.folder),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "capabilities": asdict(able) | {"tasks": able.tasks},
        **(reads(processor) | {"stop_ids": sorted(processor.stop_ids)} if processor else {}),
        "vocabulary": {name: list(ids) for name, ids in grammar.tokens.items()} if grammar else {},
        "notes": notes,  # what could not be found out, and why
        "stages": [asdict(stage) for stage in family.stages(config, model)],
        "modules": module_tree(model, type(model).__name__),
    }


def reads(processor: "Processor") -> dict[str, Any]:
    """The form in which a model reads images and audio."""
    from mmcli.media.mixing import RATE

    able = processor.capabilities
    square = able.images and processor.image_size  # others read images of any aspect
    images = {"image_size": processor.image_size, "soft_tokens": processor.soft_tokens} if square else {}
    return images | ({"audio_seconds": able.max_audio_seconds, "rate": RATE} if able.max_audio_seconds else {})


def configuration(name: str, revision: str | None, offline: bool) -> "Checkpoint":
    """The checkpoint called `name`, perhaps without its weights. Raises ModelError."""
    from mmcli.hub import cache
    from mmcli.hub.resolve import cached_folder, hub_name, is_local, open_folder, pinned_revision, resolve
    from mmcli.offline import is_offline

    if is_local(name) or cached_folder(name, revision):
        return resolve(name, revision, download=False)
    name, revision = hub_name(name), revision or pinned_revision(name)
    found = cache.find(cache.storage(name), revision, any_revision=True, weights=False)
    if offline or is_offline():
        return open_folder(name, found.folder, found.folder.name) if found else resolve(name, revision, download=False)
    from mmcli.hub.download import fetch

    try:
        folder = fetch(name, revision, weights=False)
    except ModelError:  # the hub is out of reach: what it said before will do
        if found is None:
            raise
        folder = found.folder
    return open_folder(name, folder, folder.name)


def module_tree(module: "nn.Module", name: str) -> dict[str, Any]:
    """A module with its children: name, kind, parameters; a run of children alike is one, with how many there are."""
    children: list[dict[str, Any]] = []
    for child_name, child in module.named_children():
        node = module_tree(child, child_name)
        last = children[-1] if children else None
        if last and _shape(last) == _shape(node):
            last["count"] += 1
            last["name"] = f"{last['name'].split(' … ')[0]} … {child_name}"
        else:
            children.append(node)
    return {
        "name": name,
        "kind": type(module).__name__,
        "count": 1,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "weights": {key: list(value.shape) for key, value in module.named_parameters(recurse=False)},
        "children": children,
    }


def _shape(node: dict[str, Any]) -> tuple:
    return node["kind"], node["parameters"], node["weights"], [_shape(child) for child in node["children"]]


def as_text(facts: dict[str, Any], depth: int, columns: int | None = None) -> str:
    """The facts for people, on a terminal of so many `columns`."""
    size = facts["parameters"]
    head = [
        ("model", facts["name"]),
        ("family", facts["family"]),
        *([("revision", facts["revision"])] if facts["revision"] else []),
        ("parameters", f"{count_text(size)} ({size:,})"),
        ("memory", f"{bytes_text(4 * size)} as float32, {bytes_text(2 * size)} as bfloat16"),
        ("tasks", ", ".join(facts["capabilities"]["tasks"])),
        *_reads_text(facts),
        *((name, f"ids {first} … {last}") for name, (first, last) in facts["vocabulary"].items()),
        *(("note", note) for note in facts["notes"]),
    ]
    diagram = _diagram(facts["stages"], columns)
    return f"{table(head, columns)}\nStages\n\n{diagram}\nModules\n\n{_tree(facts['modules'], depth, columns)}"


def _reads_text(facts: dict[str, Any]) -> list[tuple[str, str]]:
    able, rows = facts["capabilities"], []
    if side := facts.get("image_size"):
        rows.append(("picture", f"{side} × {side} pixels → {facts['soft_tokens']} soft tokens"))
    if seconds := facts.get("audio_seconds"):
        rows.append(("audio", f"up to {seconds:g} s in one piece, one channel at {facts['rate'] / 1000:g} kHz"))
    if able["timestamps"]:
        rows.append(("times", TIMES[able["timestamps"]]))
    if languages := able["languages"]:
        several = f"{len(languages)}: {', '.join(languages[:8])}, …"
        rows.append(("languages", several if len(languages) > 8 else ", ".join(languages)))
    return rows


def _diagram(stages: list[dict[str, Any]], columns: int | None) -> str:
    """The stages from top to bottom: a box each with its facts beside it, and the shape that leaves it at the arrow.

    Where there is no room beside the boxes, the facts are in them.
    """
    titles = [escape_line(f"{stage['name']} · {stage['kind']}") for stage in stages]
    width = max(len(title) for title in titles) + 2
    columns = columns or 2 * NOTE_WIDTH
    room = min(NOTE_WIDTH, columns - width - 6)
    beside = room >= NARROWEST
    arrow, shape = ((width - 1) // 2, width + 6) if beside else (2, 8)  # where they stand
    lines = []
    for title, stage in zip(titles, stages, strict=True):
        size = [f"{count_text(stage['parameters'])} parameters"] if stage["parameters"] else []
        facts = escape_line(", ".join([*size, *stage["notes"]]))
        if beside:
            notes = textwrap.wrap(facts, room)
            box = _box([title, *[""] * (len(notes) - 3)], width, arrow)
            notes = ["", *notes] if len(notes) == 1 else notes
            lines += [f"{part}  {note}".rstrip() for part, note in zip_longest(box, notes, fillvalue="")]
        else:
            inside = [line for text in (title, facts) if text for line in wrap(text, columns - 6, "")]
            lines += _box(inside, columns - 4, arrow)
        lines.append(f"{' ' * (3 + arrow)}│".ljust(shape) + escape_line(stage["output"]))
    lines[-1] = lines[-1].replace("│", "▼")
    return "".join(f"{line}\n" for line in lines)


def _box(rows: list[str], width: int, arrow: int) -> list[str]:
    bottom = f"└{'─' * arrow}┬{'─' * (width - arrow - 1)}┘"
    return [f"  {line}" for line in (f"┌{'─' * width}┐", *(f"│ {row.ljust(width - 1)}│" for row in rows), bottom)]


def _tree(root: dict[str, Any], depth: int, columns: int | None) -> str:
    rows: list[tuple[str, str, str]] = []
    below: list[str] = []  # what leads the lines of a row but the first

    def add(node: dict[str, Any], lead: str, branch: str, level: int) -> None:
        times = f"{node['count']} × " if node["count"] > 1 else ""
        weights = ", ".join(f"{key} {'×'.join(map(str, shape))}" for key, shape in node["weights"].items())
        rows.append((f"  {lead}{branch}{node['name']}: {times}{node['kind']}", _total(node), weights))
        inner = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        goes_on = node["children"] and level < depth
        below.append(f"  {inner}{'│  ' if goes_on else '   '}")
        for i, child in enumerate(node["children"] if goes_on else ()):
            add(child, inner, "└─ " if i == len(node["children"]) - 1 else "├─ ", level + 1)

    add(root, "", "", 0)
    text = table(rows)
    if columns is None or max(map(len, text.splitlines())) <= columns:
        return text
    lines = []
    for (name, total, weights), lead in zip(rows, below, strict=True):
        lines += wrap(escape_line(", ".join(part for part in (name, total, weights) if part)), columns, lead)
    return "".join(f"{line}\n" for line in lines)


def _total(node: dict[str, Any]) -> str:
    return count_text(node["parameters"] * node["count"]) if node["parameters"] else ""
