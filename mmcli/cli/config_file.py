"""The user's configuration file: which model does which task, and whether hints are given.

    hints = false

    [models]
    caption = "NAME"

It is read by every command that takes --model, so nothing is imported before there is one.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcli.cli.user_folders import config_folder
from mmcli.errors import UsageError

VARIABLE = "MMCLI_CONFIG"
TASKS = ("caption", "detect", "segment", "read", "chat", "transcribe")
LARGEST = 64 << 10  # bytes

_HEADER = re.compile(r"\s*\[\s*models\s*\]\s*(#.*)?\s*")
_ANY_HEADER = re.compile(r"\s*\[")


@dataclass(frozen=True)
class Config:
    """What the file says."""

    path: Path | None  # None: the user wants none
    there: bool = False
    models: Mapping[str, str] = field(default_factory=dict)  # task → model
    hints: bool = True


def config_path(variables: Mapping[str, str]) -> Path | None:
    """The file that MMCLI_CONFIG names (none if it is empty), else config.toml in the user's configuration folder."""
    if VARIABLE in variables:
        return Path(os.path.expanduser(variables[VARIABLE])) if variables[VARIABLE] else None
    return config_folder(variables) / "config.toml"


def read_config(variables: Mapping[str, str]) -> Config:
    """The user's configuration, an empty one where there is no file. UsageError where the file makes no sense."""
    path = config_path(variables)
    text = _text(path) if path is not None else None
    if path is None or text is None:
        return Config(path)
    return _checked(path, _parsed(path, text))


def write_models(variables: Mapping[str, str], models: Mapping[str, str]) -> Path:
    """Set the models of some tasks → the file's path; all else in it stays as it is, comments too.

    Raises UsageError where the file makes no sense, or is written in a way that cannot be edited line by line, and what
    writing a file raises.
    """
    from mmcli.output.drafts import atomic_write

    path = config_path(variables)
    if path is None:
        raise UsageError(f"{VARIABLE} is empty, so there is no configuration file", f"Unset {VARIABLE}, or name a file")
    text = _text(path) or ""
    before = _parsed(path, text)
    _checked(path, before)
    edited = with_models(text, models)
    try:
        same = _parsed(path, edited) == before | {"models": {**before.get("models", {}), **models}}
    except UsageError:
        same = False
    if not same:
        lines = ", ".join(f"{task} = {_quoted(name)}" for task, name in models.items())
        what = f"{path} is written in a way that is not edited here"
        raise UsageError(what, f"Write under [models] yourself: {lines}")
    atomic_write(path, edited.encode())
    return path


def with_models(text: str, models: Mapping[str, str]) -> str:
    """The text of a file with some lines of [models] replaced or added, and what stands around them untouched."""
    end = "\r\n" if "\r\n" in text else "\n"
    lines = [line for line in re.split(r"(?<=\n)", text) if line]
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    start = next((i for i, line in enumerate(lines) if _HEADER.fullmatch(line)), None)
    if start is None:
        lines += [end] * bool(lines) + [f"[models]{end}"]
        start = len(lines) - 1
    stop = next((i for i in range(start + 1, len(lines)) if _ANY_HEADER.match(lines[i])), len(lines))
    section = lines[start:stop]
    while len(section) > 1 and not section[-1].strip():
        section.pop()
    rest = lines[start + len(section) :]
    for task, name in models.items():
        old = re.compile(rf"""(\s*["']?{task}["']?\s*=\s*)(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*')(\s*(?:#.*)?\s*)""")
        found = [(i, match) for i, line in enumerate(section) if (match := old.fullmatch(line))]
        if found:
            place, match = found[0]
            section[place] = f"{match[1]}{_quoted(name)}{match[2]}"
        else:
            section.append(f"{task} = {_quoted(name)}{end}")
    return "".join(lines[:start] + section + rest)


def _quoted(name: str) -> str:
    """A string of TOML."""
    import json

    return json.dumps(name, ensure_ascii=False)


def _text(path: Path) -> str | None:
    """The whole file; None where there is none."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _unfit(path, "it is a folder", "Remove or rename it")
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise _unfit(path, "it is no plain file", "Remove or rename it")
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise _unfit(path, getattr(error, "strerror", None) or str(error), "Let it be read, or remove it") from error
    if len(data) > LARGEST:
        raise _unfit(path, f"it is larger than {LARGEST >> 10} KiB", "It holds a few lines; take the rest out")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unfit(path, "it is no text in UTF-8", "Save it as UTF-8, or remove it") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "too deep, or a number is too long"
        raise _unfit(path, f"it is no TOML ({reason})", "Set that right, or remove the file") from error


def _checked(path: Path, found: Mapping[str, Any]) -> Config:
    known = "It may hold hints = true or false, and under [models] " + ", ".join(TASKS)
    models, hints = found.get("models", {}), found.get("hints", True)
    if strange := [key for key in found if key not in ("models", "hints")]:
        raise _unfit(path, f"it has the unknown key {strange[0]!r}", known)
    if not isinstance(hints, bool):
        raise _unfit(path, f"hints is {_kind(hints)}", "Write hints = true or hints = false")
    if not isinstance(models, dict):
        raise _unfit(path, f"models is {_kind(models)}", "Write [models], and below it a line for each task")
    for task, name in models.items():
        if task not in TASKS:
            raise _unfit(path, f"models has the unknown key {task!r}", known)
        if not isinstance(name, str) or not name.strip():
            what = "empty" if isinstance(name, str) else _kind(name)
            raise _unfit(path, f"models.{task} is {what}", f'Name a model: {task} = "NAME"')
    return Config(path, True, models, hints)


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")


def _unfit(path: Path, why: str, do: str) -> UsageError:
    return UsageError(f"The configuration file {path} cannot be used: {why}", do)
