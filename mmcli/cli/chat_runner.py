"""Puts questions to one model on a command line, and prints its answers."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.errors import InputError
from mmcli.output.writers.text import readable
from mmcli.tasks.chat_session import ChatSession
from mmcli.tasks.pieces import Pieces

if TYPE_CHECKING:
    from mmcli.cli.render import Renderer
    from mmcli.output.schema import Record
    from mmcli.tasks.conversation import Conversation


@dataclass
class ChatRunner(ChatSession):
    """A conversation as it is led on a command line: its answers go where `renderer` says."""

    renderer: "Renderer" = field(kw_only=True)
    saved: set[str] = field(default_factory=set)

    def ready(self) -> "Conversation":
        """As in any session; that the model is being loaded is shown."""
        if self.conversation is not None:
            return self.conversation
        from mmcli.cli.progress import Progress

        with Progress(self.renderer.environment, words="loading the model"):
            return super().ready()

    def clear(self) -> None:
        """Begin anew, without images and recordings."""
        super().clear()
        self.saved = set()

    def ask(self, question: str, *, stream: bool, stoppable: bool = False) -> None:
        """Answer one question: as it comes where `stream`, else at its end; with --json as a record.

        Ctrl-C ends the answer if it is `stoppable` and begun, else it is a KeyboardInterrupt. Raises what
        `Conversation.asking` does.
        """
        from mmcli.engine.collect import drive

        conversation, renderer = self.ready(), self.renderer
        loaded = conversation.loaded
        printer = None
        if stream and not renderer.json and renderer.results.on_stdout:
            printer = StreamPrinter(loaded.processor.decode, renderer.environment.write)
        try:
            completion, record = drive(self.asking(question), printer)
            if completion.stopped and not stoppable:
                raise KeyboardInterrupt
        except BaseException:
            if printer:
                printer.break_off()
            raise
        if printer:
            printer.end()
        else:
            renderer.text(record, self.shown[0].source if self.shown else None)
        if conversation.full:
            full = f"the {conversation.context} tokens that {loaded.checkpoint.name} reads are full"
            renderer.notes(record, f"the answer was cut off: {full}; /clear begins another conversation")
        elif completion.stopped:
            renderer.notes(record, "")
        else:
            renderer.notes(record)
        self._drawn(record)

    def _drawn(self, record: "Record") -> None:
        """Write or show the image, where it is one and that was asked for."""
        seen = self.shown
        if self.renderer.needs_image and len(seen) == 1 and seen[0].kind == "picture":
            from mmcli.media.image import load_image

            if self.renderer.ledger is not None:
                self.renderer.ledger.reads(seen[0].source)
            self.renderer.files(seen[0].source, record, lambda: load_image(seen[0].source))

    def save(self, name: str) -> int:
        """Write all questions and answers into a file → how many. InputError where that cannot be.

        A file that is there already is left alone, unless it is this conversation's own.
        """
        from mmcli.output.drafts import atomic_write
        from mmcli.output.writers.conversation import document

        if not self.exchanges:
            raise InputError("There is nothing to save yet", "Ask something first")
        path = Path(os.path.expanduser(name))
        if path.is_file() and os.path.realpath(path) not in self.saved:
            raise InputError(f"{name} exists already and is left as it is", "Choose another name, or remove it first")
        text = document(self.exchanges, path.suffix.lower(), self.system)
        atomic_write(path, text.encode("utf-8", "surrogateescape"))
        self.saved.add(os.path.realpath(path))
        return len(self.exchanges)


class StreamPrinter:
    """Writes an answer as its tokens come."""

    def __init__(self, decode: Callable[[list[int]], str], write: Callable[[str], None]):
        self._pieces, self._write = Pieces(decode, readable), write

    def __call__(self, row: int, token: int) -> None:
        self._print(self._pieces.add(token))

    def end(self) -> None:
        """Write what was held back, and the end of the line."""
        self._print(self._pieces.rest())
        self._write("\n")

    def break_off(self) -> None:
        """The end of the line, if one was begun."""
        if self._pieces.given_out:
            self._write("\n")

    def _print(self, text: str) -> None:
        if text:
            self._write(text)
