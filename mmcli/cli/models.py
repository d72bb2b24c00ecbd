"""`mmcli models`: what is on this machine, and how to get, look at, check, convert and delete it."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli import rewrite, suggest, use
from mmcli.cli.help import Command, Group, plain
from mmcli.cli.options import LogOptions, Offline, Revision, option, spread
from mmcli.cli.rewrite import Name
from mmcli.cli.start import begin
from mmcli.errors import ExitCode, ModelError, UsageError
from mmcli.escape import escape_line
from mmcli.hub.fields import shown
from mmcli.models.offered import such_as
from mmcli.models.registry import family_of
from mmcli.output.json_text import to_json_line
from mmcli.output.tables import bytes_text, count_text, fit, table

if TYPE_CHECKING:
    from mmcli.hub.known_models import KnownModel
    from mmcli.models.family import ClosedVocabulary

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}

app = plain(
    cls=Group,
    help="Find, choose, list, download, look at, check, convert, merge, quantize and remove models.",
    epilog=f"""\
Examples:

  mmcli models suggest --task caption
  mmcli models use {such_as("images", bundled=False)} --for caption,chat
  mmcli models list
  mmcli models pull {such_as("images", bundled=False)}
  mmcli models info {such_as("images", bundled=False)}
  mmcli models verify {such_as("images", bundled=False)}
  mmcli models convert old/model -o model
  mmcli models quantize model -o smaller --to int4
  mmcli models merge {such_as("images", bundled=False)} adapter/ -o model

Models live in the cache of huggingface_hub (HF_HOME moves it). Gated ones need their licence accepted
on their page and `hf auth login` or HF_TOKEN.""",
    no_args_is_help=True,
)


app.command("suggest", cls=Command)(suggest.command)
app.command("use", cls=Command)(use.command)
app.command(cls=Command)(rewrite.convert)
app.command(cls=Command)(rewrite.merge)
app.command(cls=Command)(rewrite.quantize)

Json = Annotated[bool, option("Output", "--json", help="Print one JSON object a model, each on a line.")]


@app.command("list", cls=Command)
@spread
def list_models(ctx: typer.Context, json_: Json = False, *, log: LogOptions) -> int:
    """List the models on this machine with their sizes."""
    from mmcli.hub.cache import cached_models
    from mmcli.hub.known import known_as
    from mmcli.hub.layout import BUNDLED

    environment = begin(ctx, log)
    rows: list[dict[str, Any]] = [
        {"name": name, "revision": None, "references": [], "folder": str(folder), "bytes": _folder_bytes(folder)}
        for name, folder in BUNDLED.items()
    ]
    for model in cached_models():
        rows.append(
            {"name": model.name, "revision": model.revision, "references": list(model.references)}
            | {"folder": str(model.folder), "bytes": model.size}
        )
    for row in rows:
        known = known_as(row["name"])
        row |= {"short": known.name if known else None, "licence": known.licence if known else None}
    if json_:
        environment.write("".join(to_json_line(row) for row in rows))
    else:
        cells = [
            (row["name"], bytes_text(row["bytes"]), (row["revision"] or "bundled")[:12], *_about(row)) for row in rows
        ]
        environment.write(table(cells, environment.width))
    return ExitCode.OK


def _about(row: dict[str, Any]) -> tuple[str, str, str]:
    """What `list` adds to a model: its short name if that is different, its licence, branches and tags."""
    short = row["short"] if row["short"] not in (None, row["name"]) else ""
    return short, row["licence"] or "", ", ".join(row["references"])


@app.command(cls=Command)
@spread
def pull(ctx: typer.Context, name: Name, revision: Revision = None, *, log: LogOptions) -> int:
    """Download a model, or what is missing of it, and print its folder."""
    from mmcli.hub.layout import BUNDLED

    environment = begin(ctx, log)
    if name in BUNDLED:
        environment.log(f"{name} is bundled; there is nothing to download")
        environment.write(f"{BUNDLED[name]}\n")
        return ExitCode.OK
    name, revision = _on_hub(name, revision)
    from mmcli.hub.download import fetch, plan

    todo = plan(name, revision)
    environment.log(f"{name} at {todo.revision[:12]}: {bytes_text(todo.size)} in {len(todo.files)} files")
    environment.write(f"{fetch(name, revision)}\n")
    return ExitCode.OK


@app.command(cls=Command)
@spread
def info(
    ctx: typer.Context,
    name: Name,
    revision: Revision = None,
    offline: Offline = False,
    json_: Json = False,
    *,
    log: LogOptions,
) -> int:
    """Show a model's size, the memory it will need, and what it knows, before it is downloaded or loaded.

    What it knows is shown of models that were taught a list of objects and a few kinds of question.
    """
    environment = begin(ctx, log, offline)
    facts = _facts(name, revision, offline)
    if json_:
        environment.write(to_json_line(facts))
        return ExitCode.OK
    rows = [("name", facts["name"])]
    rows += [(key.replace("_", " "), facts[key]) for key in ("short_name", "licence") if facts[key]]
    rows += [("gated", "yes: accept the licence on its page, then log in")] if facts["gated"] else []
    rows += [(key, facts[key]) for key in ("type", "revision", "folder") if facts[key]]
    rows += [("tasks", ", ".join(facts["tasks"]))] if facts["tasks"] else []
    rows.append(("on this machine", "yes" if facts["folder"] else "no"))
    rows.append(("files", bytes_text(facts["bytes"])))
    if facts["parameters"]:
        rows.append(("parameters", count_text(facts["parameters"])))
    rows += [(f"memory as {dtype}", bytes_text(size)) for dtype, size in facts["memory"].items()]
    environment.write(table(rows, environment.width) + fit(_vocabulary_text(facts["knows"]), environment.width))
    return ExitCode.OK


def _vocabulary_text(knows: dict | None) -> str:
    """What a model knows, in paragraphs under a heading each."""
    if knows is None:
        return ""
    labels = textwrap.wrap(", ".join(knows["things"]), 98, break_on_hyphens=False)
    parts = {
        f"finds {len(knows['things'])} things (detect, segment)": labels,
        "answers questions of these kinds (chat)": knows["questions"],
        "languages": knows["languages"],
    }
    return "".join(f"\n{title}:\n" + "".join(f"  {line}\n" for line in lines) for title, lines in parts.items())


def _declared(raw: dict, name: str) -> dict:
    """What the family of a checkpoint declares that it can do, and that it knows; nothing of a type that none reads."""
    try:
        family = family_of(raw, name)
    except ModelError:  # the rest can be shown
        return {"tasks": None, "capabilities": None, "knows": None}
    config = family.read_config(raw)
    able, closed_vocabulary = family.capabilities(config), family.closed_vocabulary and family.closed_vocabulary(config)
    return {
        "tasks": able.tasks,
        "capabilities": asdict(able),
        "knows": _known_facts(closed_vocabulary) if closed_vocabulary else None,
    }


def _known_facts(words: "ClosedVocabulary") -> dict:
    """What a model knows, under the names that `models info --json` has for it."""
    return {
        "things": words.labels,
        "questions": words.questions,
        "languages": words.languages,
        "things_per_prompt": words.labels_per_prompt,
    }


def _facts(name: str, revision: str | None, offline: bool) -> dict:
    """What `info` shows; memory is that of the weights, to which images and the KV cache add some."""
    from mmcli.hub.known import known_as
    from mmcli.hub.quantized import parameter_count
    from mmcli.hub.resolve import cached_folder, is_local, resolve
    from mmcli.offline import is_offline

    known = known_as(name)
    facts: dict[str, Any] = {"name": known.repository or known.name if known and not is_local(name) else name}
    facts |= {"short_name": known.name if known and known.repository else None}
    facts |= {"licence": known.licence if known else None, "gated": known.gated if known else None}
    if is_local(name) or offline or is_offline() or cached_folder(name, revision):
        try:
            found = resolve(name, revision, download=False)
        except ModelError:
            if known is None:
                raise
            return facts | _listed_facts(known)
        parameters, kind = parameter_count(found.folder), found.config.get("model_type")
        return (
            facts
            | {
                "type": kind if kind is None or isinstance(kind, str) else shown(kind),
                "revision": found.revision,
                "folder": str(found.folder),
                "bytes": _folder_bytes(found.folder),
                "parameters": parameters,
                "memory": _memory(parameters),
            }
            | _declared(found.config, name)
        )
    from mmcli.hub.download import plan

    todo = plan(*_on_hub(name, revision))
    seen = {"revision": todo.revision, "folder": None, "bytes": todo.size}
    if known is not None:
        return facts | _listed_facts(known) | seen
    unknown = dict.fromkeys(("type", "parameters", "tasks", "capabilities", "knows"))
    return facts | unknown | seen | {"memory": {"stored": todo.weights}}


def _listed_facts(known: "KnownModel") -> dict:
    """What the table of known models says of one that is not here."""
    return {
        "type": known.type,
        "revision": known.revision,
        "folder": None,
        "bytes": known.bytes,
        "parameters": known.parameters,
        "memory": _memory(known.parameters),
        "tasks": None,
        "capabilities": None,
        "knows": None,
    }


def _memory(parameters: int) -> dict[str, int]:
    """Bytes of so many weights, by their type."""
    return {dtype: parameters * size for dtype, size in DTYPE_BYTES.items()}


@app.command(cls=Command)
@spread
def remove(
    ctx: typer.Context,
    name: Name,
    revision: Revision = None,
    yes: Annotated[bool, option("Other", "--yes", "-y", help="Remove it without asking.")] = False,
    *,
    log: LogOptions,
) -> int:
    """Delete a downloaded model from the cache."""
    from mmcli.hub.layout import BUNDLED

    environment = begin(ctx, log)
    if name in BUNDLED:
        raise UsageError(f"{name} is bundled with mmcli and cannot be removed")
    name, _ = _on_hub(name)
    from mmcli.hub.cache import disk_size
    from mmcli.hub.cache import remove as remove_from_cache

    size = disk_size(name)
    if size and not yes:
        if not environment.stdin_tty:
            raise UsageError(f"{name} holds {bytes_text(size)}", "Add --yes to remove it without being asked")
        environment.say(f"Remove {name} ({bytes_text(size)}) from the cache? [y/N]")
        if environment.stdin.readline().strip().lower() not in (b"y", b"yes"):
            environment.say("Nothing was removed.")
            return ExitCode.OK
    environment.log(f"freed {bytes_text(remove_from_cache(name, revision))}")
    return ExitCode.OK


@app.command(cls=Command)
@spread
def verify(ctx: typer.Context, name: Name, revision: Revision = None, *, log: LogOptions) -> int:
    """Check a model's files: their checksums, their structure, and that none is missing.

    Prints one line a file; the exit code is 3 where anything is wrong. Needs no network.
    """
    from mmcli.hub.resolve import is_local, resolve
    from mmcli.hub.verify import verify as verify_cached
    from mmcli.hub.verify import verify_folder

    environment = begin(ctx, log)
    local = is_local(name)
    name = name if local else _on_hub(name)[0]
    findings = verify_folder(resolve(name).folder) if local else verify_cached(name, revision)
    for finding in findings:
        verdict = f"sound ({finding.checked})" if finding.checked else "sound (structure only)"
        environment.write(f"{escape_line(str(finding.file))}\t{escape_line(finding.problem or verdict)}\n")
    wrong = [finding for finding in findings if finding.problem]
    if wrong:
        raise ModelError(f"{name} has {len(wrong)} damaged or missing files", f"Run mmcli models pull {name}")
    return ExitCode.OK


def _on_hub(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """A model's name on the hub, and the revision that is meant. UsageError for a folder."""
    from mmcli.hub.resolve import hub_name, is_local, pinned_revision

    if is_local(name):
        raise UsageError(f"{name} is a folder", "Name a repository of the hub as owner/name")
    return hub_name(name), revision or pinned_revision(name)


def _folder_bytes(folder: str | Path) -> int:
    from mmcli.hub.files import below

    return sum(path.stat().st_size for path in below(Path(folder)) if path.is_file())
