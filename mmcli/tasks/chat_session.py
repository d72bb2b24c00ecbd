"""Questions to one model with what each is about, and the records of the answers."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mmcli.tasks.attachments import Attachment, names_of
from mmcli.types import Audio

if TYPE_CHECKING:
    from mmcli.models.family import Capabilities
    from mmcli.models.loaded import Loaded
    from mmcli.output.schema import Record
    from mmcli.output.writers.conversation import Exchange
    from mmcli.tasks.chat import ChatRequest
    from mmcli.tasks.conversation import Conversation
    from mmcli.types import Completion, Part


@dataclass
class ChatSession:
    """A conversation as it is led: the model is loaded with the first question, `request` says how it is to answer.

    `waiting` is what the next question is about. Models that know turns remember it (`shown`) and need not be shown it
    again; with the others it stays, to be looked at anew with each question.
    """

    load: "Callable[[], Loaded]"
    request: "ChatRequest"
    system: str = ""
    waiting: list[Attachment] = field(default_factory=list)
    shown: list[Attachment] = field(default_factory=list)
    exchanges: "list[Exchange]" = field(default_factory=list)
    conversation: "Conversation | None" = None

    def ready(self) -> "Conversation":
        """The conversation; its model is loaded at first use. ModelError where it cannot do what is asked of it."""
        if self.conversation is None:
            from mmcli.tasks.conversation import Conversation

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
        """Let the next question be about no image or no audio, whichever `kind` says."""
        self.waiting = [one for one in self.waiting if one.kind != kind]

    def clear(self) -> None:
        """Begin anew, without images and recordings."""
        self.ready().clear()
        self.waiting, self.shown, self.exchanges = [], [], []

    def asking(self, question: str) -> "Generator[tuple[int, int], None, tuple[Completion, Record]]":
        """Ask; yields (0, token) as each is written → the answer, and its record.

        KeyboardInterrupt thrown in ends the answer, as in `Conversation.asking`, whose errors are raised.
        """
        conversation = self.ready()
        loaded, request = conversation.loaded, replace(self.request, words=question)
        parts: list[Part] = []
        notes: list[tuple[str, str]] = []
        for attachment in self.waiting:
            own, remarks = attachment.parts(loaded.processor, loaded.checkpoint.name)
            parts += own
            notes += [(attachment.source.name, remark) for remark in remarks]
        if (unusual := conversation.remark(parts)) is not None:
            notes.append((loaded.checkpoint.name, unusual))
        completion = yield from conversation.asking(request, parts)
        return completion, self._record(conversation, request, completion, notes)

    def _record(
        self,
        conversation: "Conversation",
        request: "ChatRequest",
        completion: "Completion",
        notes: list[tuple[str, str]],
    ) -> "Record":
        """The record of an answer that is there; what it was about goes where it belongs from now on."""
        from mmcli.output.writers.conversation import Exchange
        from mmcli.tasks.result import chat_record

        new = tuple(names_of(self.waiting))
        if conversation.keeps_turns:
            self.shown = [*self.shown, *self.waiting]
            self.waiting = []
        else:
            if self.exchanges and self.shown is self.waiting:
                new = ()  # named already
            self.shown = self.waiting
        names = names_of(self.shown)
        content = self.shown[0].content if len(names) == 1 else None
        image = None if isinstance(content, Audio) else content
        record = chat_record(
            request,
            completion,
            conversation.loaded,
            names,
            image,
            [remark if len(names) == 1 else f"{name}: {remark}" for name, remark in notes],
            system=self.system,
            identity=self._identity(conversation),
        )
        self.exchanges.append(Exchange(request.words or record.prompt, new, record))
        return record

    def _identity(self, conversation: "Conversation") -> str | None:
        """What tells this question's answer apart beside its words; None where earlier turns decide too."""
        from mmcli.media.identity import identity

        if self.exchanges and conversation.keeps_turns:
            return None
        own = [known for attachment in self.shown if (known := identity(attachment.source)) is not None]
        return "\n".join(own) if len(own) == len(self.shown) else None
