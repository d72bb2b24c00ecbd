"""A conversation on the terminal: questions, commands that begin with a slash, Ctrl-C and Ctrl-D."""

import glob
import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from mmcli.cli.attachments import load_attachments
from mmcli.cli.chat_runner import ChatRunner
from mmcli.cli.environment import Environment, OutputError
from mmcli.cli.keyboard import Keyboard
from mmcli.errors import ExitCode, MmcliError, UsageError, interrupt_taken, raise_if_interrupted
from mmcli.escape import escape_line
from mmcli.tasks.attachments import names_of

if TYPE_CHECKING:
    from mmcli.models.family import Capabilities

WELCOME = "Ask what you like. /help lists the commands, Ctrl-D ends."
HELP = (
    "Ask what you like; a line that ends in \\ goes on in the next.",
    "Commands:",
    ("/image PATH…", "{image}"),
    ("/audio PATH…", "{audio}"),
    ("/clear", "forget what was said, and the pictures and recordings with it"),
    ("/save FILE", "write it all down: .json or .jsonl as records, .md as Markdown, else as text"),
    ("/help", "this"),
    ("/quit", "leave, as Ctrl-D does"),
    "Ctrl-C stops an answer and keeps what there is of it.",
    "At the prompt it leaves at once.",
)

_SPACE = re.compile(r"(?<!\\)\s")  # what ends a name that is typed with escapes


class _Leave(Exception):
    """The user ends the conversation."""


def run_prompt(runner: ChatRunner) -> int:
    """Ask on the terminal until it ends → exit code. KeyboardInterrupt for Ctrl-C at the prompt."""
    conversation, environment = runner.ready(), runner.renderer.environment
    commands = Commands(runner)
    environment.log(WELCOME)
    if conversation.images_needed and not runner.waiting:
        environment.log(f"{conversation.loaded.checkpoint.name} needs a picture first: /image PATH")
    keyboard = Keyboard(environment, commands.complete)
    while (line := _next(keyboard, environment)) is not None:
        try:
            if line.startswith("/"):
                commands.run(line)
            elif question := line.encode("utf-8", "replace").decode().strip():
                runner.ask(question, stream=True, stoppable=True)
        except KeyboardInterrupt:
            interrupt_taken()
            environment.write("\n")
            if not line.startswith("/"):
                environment.log("Stopped before there was an answer; the question is forgotten")
        except _Leave:
            break
        except OutputError:
            raise
        except MmcliError as error:
            raise_if_interrupted(error)
            environment.fail(error, cause=error.__cause__)
    return ExitCode.OK


def _next(keyboard: Keyboard, environment: Environment) -> str | None:
    try:
        return keyboard.line()
    except KeyboardInterrupt:
        environment.say("")
        raise


@dataclass(frozen=True)
class _Command:
    run: Callable[[list[str]], None]
    names: tuple[int, float] = (0, 0)  # of files, that it takes at least and at most


class Commands:
    """What a line that begins with a slash does."""

    def __init__(self, runner: ChatRunner):
        self._runner = runner
        self._environment = runner.renderer.environment
        self._commands = {
            "/image": _Command(self._image, (0, inf)),
            "/audio": _Command(self._audio, (0, inf)),
            "/clear": _Command(self._clear),
            "/save": _Command(self._save, (1, 1)),
            "/help": _Command(self._help),
            "/quit": _Command(self._quit),
        }
        self._other_names = {"/picture": "/image", "/exit": "/quit"}

    def run(self, line: str) -> None:
        """Do what the line says. Raises UsageError where that is nothing that can be done, and what comes of it."""
        name, *rest = line.strip().split(maxsplit=1)
        command = self._commands.get(self._other_names.get(name, name))
        if command is None:
            known = ", ".join(self._commands)
            raise UsageError(f"There is no command {name}; the commands are {known}", "A question cannot begin with /")
        words = split(rest[0] if rest else "")
        least, most = command.names
        if not least <= len(words) <= most:
            what = "takes one name" if most else "takes no argument"
            do = 'Put it in quotes if there is a space in it: /save "my talk.md"' if most else "Leave that out"
            raise UsageError(f"{name} {what}", do)
        command.run(words)

    def complete(self, line: str) -> list[str]:
        """The lines that a line begun with a slash may become: commands, and files where one takes them."""
        if not line.startswith("/"):
            return []
        name, space, _ = line.partition(" ")
        if not space:
            return [f"{known} " for known in self._commands if known.startswith(name)]
        command = self._commands.get(self._other_names.get(name, name))
        if command is None or not command.names[1]:
            return []
        begun = len(_SPACE.split(line)[-1])
        head, word = line[: len(line) - begun], line[len(line) - begun :]
        return [head + found for found in _files(word)]

    def _image(self, names: list[str]) -> None:
        self._show(names, "picture")

    def _audio(self, names: list[str]) -> None:
        self._show(names, "recording")

    def _show(self, names: list[str], kind: str) -> None:
        if not names:
            self._runner.take_back(kind)
            self._environment.log(f"No {kind} goes with the next question")
            return
        model = self._runner.ready().loaded.checkpoint.name
        attachments = load_attachments(self._environment, names, kind, self._runner.able, model)
        self._runner.show(attachments)
        known = ", ".join(names_of(attachments))
        if self._runner.ready().keeps_turns:
            self._environment.log(f"{known}: goes with the next question")
        else:
            self._environment.log(f"{known}: used from now on")

    def _clear(self, words: list[str]) -> None:
        seen = list(dict.fromkeys([*self._runner.shown, *self._runner.waiting]))
        self._runner.clear()
        forgotten = "All that was said and shown is forgotten"
        if seen:
            back = "it" if len(seen) == 1 else "them"
            forgotten += f", {', '.join(names_of(seen))} too: /image or /audio brings {back} back"
        self._environment.log(forgotten)

    def _save(self, names: list[str]) -> None:
        count = self._runner.save(names[0])
        answers = "1 answer is" if count == 1 else f"{count} answers are"
        self._environment.log(f"{answers} written to {names[0]}")

    def _help(self, words: list[str]) -> None:
        means = _means(self._runner.ready().loaded.processor.capabilities)
        for line in HELP:
            if isinstance(line, str):
                self._environment.say(line, indent="")
            else:
                name, meaning = line
                self._environment.say(f"  {name:<13} {meaning.format(**means)}", indent=" " * 16)

    def _quit(self, words: list[str]) -> None:
        raise _Leave


def _means(able: "Capabilities") -> dict[str, str]:
    """What /image and /audio mean with a model that can do that."""

    def meaning(verb: str, what: str, taken: bool, name: str) -> str:
        if not taken:
            return f"{verb} {what} (this model takes no {name})"
        if able.turns:
            return f"{verb} {what} with the next question; without a PATH: take those back"
        return f"ask about these {what} from now on"

    images = meaning("show", "pictures", able.images, "pictures")
    return {"image": images, "audio": meaning("play", "recordings", able.audio, "audio")}


def split(words: str) -> list[str]:
    """Names as a shell would part them: in quotes or with \\ before spaces; ~ is home. UsageError for an open quote."""
    is_windows = os.name == "nt"  # where \ parts folders
    try:
        names = shlex.split(words, posix=not is_windows)
    except ValueError as error:
        raise UsageError(f"A quote is opened and not closed in {words}", "Close it") from error
    names = [name.strip("\"'") for name in names] if is_windows else names
    return [os.path.expanduser(name) for name in names]


def _files(word: str) -> list[str]:
    """Files and folders whose names begin like `word`, written as it is, with \\ before what would part them."""
    begun = re.sub(r"\\(.)", r"\1", word)
    home = os.path.expanduser("~")
    found = []
    for path in sorted(glob.glob(glob.escape(os.path.expanduser(begun)) + "*")):
        name = path.removeprefix(home).join(("~", "")) if begun.startswith("~/") else path
        if name != escape_line(name):  # the line would hold what a terminal obeys
            continue
        name = re.sub(r"([\s\\'\"])", r"\\\1", name)
        found.append(name + "/" if os.path.isdir(path) else name)
    return found
