"""Puts questions to one model, and tells its answers."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmcli.cli.attachments import Attachment, names_of
from mmcli.errors import InputError
from mmcli.output.writers.text import readable

if TYPE_CHECKING:
    from mmcli.cli.render import Renderer
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.output.schema import Record
    from mmcli.output.writers.conversation import Exchange
    from mmcli.tasks.chat import ChatRequest
    from mmcli.tasks.conversation import Conversation
    from mmcli.types import Completion, Part


@dataclass
class Talker:
    """A conversation as it is led on a command line.

    `waiting` is what the next question is about. Models that know turns remember it (`shown`) and need not be shown it
    again; with the others it stays, to be looked at anew with each question.
    """

    renderer: "Renderer"
    request: "ChatRequest"
    load: "Callable[[], Loaded]"
    waiting: list[Attachment] = field(default_factory=list)
    system: str = ""
    conversation: "Conversation | None" = None
    shown: list[Attachment] = field(default_factory=list)
    exchanges: "list[Exchange]" = field(default_factory=list)
    saved: set[str] = field(default_factory=set)

    def ready(self) -> "Conversation":
        """The conversation; its model is loaded at first use. ModelError where it cannot do what is asked of it."""
        if self.conversation is None:
            from mmcli.cli.progress import Progress
            from mmcli.tasks.conversation import Conversation

            with Progress(self.renderer.environment, words="loading the model"):
                loaded = self.load()
            self.request.require(loaded.processor, loaded.checkpoint.name)
            conversation = Conversation(loaded, self.system)
            for attachment in self.waiting:
                attachment.parts(loaded.processor, loaded.checkpoint.name)
            self.conversation = conversation
        return self.conversation

    def able(self) -> "Capabilities | None":
        """What the model can do, once it is loaded."""
        return None if self.conversation is None else self.conversation.loaded.processor.capabilities

    def show(self, attachments: list[Attachment]) -> None:
        """Let the next question be about these too; where no turn is remembered, about these only. ModelError."""
        conversation = self.ready()
        loaded = conversation.loaded
        for attachment in attachments:
            attachment.parts(loaded.processor, loaded.checkpoint.name)
        self.waiting = [*self.waiting, *attachments] if conversation.keeps_turns else attachments

    def take_back(self, kind: str) -> None:
        """Let the next question be about no picture or no sound, whichever `kind` says."""
        self.waiting = [one for one in self.waiting if one.kind != kind]

    def clear(self) -> None:
        """Begin anew, without pictures and sounds."""
        self.ready().clear()
        self.waiting, self.shown, self.exchanges, self.saved = [], [], [], set()

    def ask(self, question: str, *, stream: bool, stoppable: bool = False) -> None:
        """Answer one question: as it comes where `stream`, else at its end; with --json as a record.

        Ctrl-C ends the answer if it is `stoppable` and begun, else it is a KeyboardInterrupt. Raises what
        `Conversation.ask` does.
        """
        conversation, renderer = self.ready(), self.renderer
        loaded, request = conversation.loaded, replace(self.request, words=question)
        teller = None
        if stream and not renderer.json and renderer.results.on_stdout:
            teller = Teller(loaded.processor.decode, renderer.environment.write)
        parts: list[Part] = []
        notes: list[tuple[str, str]] = []
        for attachment in self.waiting:
            own, remarks = attachment.parts(loaded.processor, loaded.checkpoint.name)
            parts += own
            notes += [(attachment.source.name, remark) for remark in remarks]
        try:
            said = conversation.ask(request, parts, teller)
            if said.stopped and not stoppable:
                raise KeyboardInterrupt
        except BaseException:
            if teller:
                teller.break_off()
            raise
        try:
            record = self._record(request, said, notes)
        finally:
            if teller:
                teller.end()
        if not teller:
            renderer.text(record, self.shown[0].source if self.shown else None)
        if conversation.full:
            full = f"the {conversation.context} tokens that {loaded.checkpoint.name} reads are full"
            renderer.notes(record, f"the answer was cut off: {full}; /clear begins another conversation")
        elif said.stopped:
            renderer.notes(record, "")
        else:
            renderer.notes(record)
        self._drawn(record)

    def _record(self, request: "ChatRequest", said: "Completion", notes: list[tuple[str, str]]) -> "Record":
        """The record of an answer that is there; what it was about goes where it belongs from now on."""
        from mmcli.output.writers.conversation import Exchange
        from mmcli.tasks.result import chat_record

        new = tuple(names_of(self.waiting))
        if self.conversation.keeps_turns:
            self.shown = [*self.shown, *self.waiting]
            self.waiting = []
        else:
            if self.exchanges and self.shown is self.waiting:
                new = ()  # named already
            self.shown = self.waiting
        names = names_of(self.shown)
        picture = None if len(names) != 1 or self.shown[0].kind == "sound" else self.shown[0].content
        remarks = [remark if len(names) == 1 else f"{name}: {remark}" for name, remark in notes]
        record = chat_record(
            request,
            said,
            self.conversation.loaded,
            names,
            picture,
            remarks,
            system=self.system,
            identity=self._identity(),
        )
        self.exchanges.append(Exchange(request.words or record.prompt, new, record))
        return record

    def _identity(self) -> str | None:
        """What tells this question's answer apart beside its words; None where earlier turns decide too."""
        from mmcli.media.identity import identity

        if self.exchanges and self.conversation.keeps_turns:
            return None
        own = [identity(attachment.source) for attachment in self.shown]
        return None if None in own else "\n".join(own)

    def _drawn(self, record: "Record") -> None:
        """Write or show the picture, where it is one and that was asked for."""
        seen = self.shown
        if self.renderer.needs_picture and len(seen) == 1 and seen[0].kind == "picture":
            from mmcli.media.image import load_picture

            if self.renderer.ledger is not None:
                self.renderer.ledger.reads(seen[0].source)
            self.renderer.files(seen[0].source, record, lambda: load_picture(seen[0].source))

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


class Teller:
    """Turns tokens into text as they come, holding back bytes that are not a whole character yet."""

    def __init__(self, decode: Callable[[list[int]], str], write: Callable[[str], None]):
        self._decode = decode
        self._write = write
        self._ids: list[int] = []
        self._told = 0

    def __call__(self, row: int, token: int) -> None:
        self._ids.append(token)
        text = self._decode(self._ids)
        if not text.endswith(("\N{REPLACEMENT CHARACTER}", "\r")):  # half a character, half a line break
            self._tell(text)

    def end(self) -> None:
        """Write what was held back, and the end of the line."""
        self._tell(self._decode(self._ids))
        self._write("\n")

    def break_off(self) -> None:
        """The end of the line, if one was begun."""
        if self._told:
            self._write("\n")

    def _tell(self, text: str) -> None:
        text = readable(text)
        new, self._told = text[self._told :], max(self._told, len(text))
        if new:
            self._write(new)
