"""`mmcli chat`: questions about pictures, one or many."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmcli.cli.arguments import Images
from mmcli.cli.environment import Environment
from mmcli.cli.options import AnswerOptions, ModelOptions, OutputOptions, TalkOptions, option, spread
from mmcli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from mmcli.cli.render import Renderer
    from mmcli.hub.load import Loaded
    from mmcli.tasks.chat import ChatRequest

NAME = "chat"
PROMPT = "> "
HELP_INSIDE = "Ask about the picture. /picture FILE… looks at another, /quit or Ctrl-D ends, Ctrl-C stops an answer."
EPILOG = """\
Examples:

  mmcli chat photo.jpg
  mmcli chat photo.jpg -m "What colour is the car?"
  echo "What colour is the car?" | mmcli chat photo.jpg
  mmcli chat photo.jpg -m "How many people?" --json | jq -r .text

On a terminal it asks until you end it, and answers as the words come. Every question is answered
from the pictures alone: the models know no earlier turns. --prompt replaces the words around the
question, and the question with them."""


@spread
def command(
    ctx: typer.Context,
    images: Images = None,
    message: Annotated[
        str | None,
        option("Answer", "--message", "-m", metavar="TEXT", help="Ask this, print the answer and end."),
    ] = None,
    *,
    answer: AnswerOptions,
    output: OutputOptions,
    model: ModelOptions,
    talk: TalkOptions,
) -> int:
    """Answer questions about pictures, all of which the model sees at once.

    Without a picture it answers where the model can.
    """
    from mmcli.cli.pictures import request_fields
    from mmcli.cli.render import Renderer
    from mmcli.cli.start import begin, loader
    from mmcli.tasks.chat import ChatRequest

    environment = begin(ctx, talk, model.offline)
    request = ChatRequest(words=message or "", **request_fields(answer, output))
    names = images or []
    interactive = message is None and answer.prompt is None and environment.stdin_tty
    if message is None and answer.prompt is None and not interactive:
        request = replace(request, words=_piped_question(environment, names))
    if request.prompt is None and not interactive and not request.words.strip():
        raise UsageError("The question is empty", 'Ask one: mmcli chat photo.jpg -m "What is this?"')
    renderer = Renderer(environment, output, None, several=False)
    try:
        pictures = load_pictures(environment, names)
    except InputError as error:
        if output.json:
            from mmcli.output.record import failed_record

            failed = {"source": names[0] if len(names) == 1 else names, "revision": model.revision, "error": error}
            renderer.text(failed_record(task=request.task, model=model.model, **failed))
        raise
    talker = Talker(renderer, request, loader(environment, model), pictures)
    if interactive:
        return converse(talker)
    talker.ask(request.words, stream=environment.stdout_tty)
    return ExitCode.OK


def _piped_question(environment: Environment, names: list[str]) -> str:
    if "-" in names:
        raise UsageError("Standard input cannot be both the picture and the question", "Ask with -m TEXT")
    return environment.stdin.read().decode("utf-8", "replace").strip()


def load_pictures(environment: Environment, names: list[str]) -> list[Any]:
    """(source, picture) of every picture named. Raises InputError at the first that cannot be read."""
    if not names:
        return []
    from mmcli.batch.runner import READ_SIDE
    from mmcli.media.image import load_picture
    from mmcli.media.sources import IMAGE_EXTENSIONS, expand

    sources = expand(names, extensions=IMAGE_EXTENSIONS, stdin=environment.stdin)
    return [(source, load_picture(source, side=READ_SIDE)) for source in sources]


@dataclass
class Talker:
    """Puts questions to one model about the pictures of the moment."""

    renderer: "Renderer"
    request: "ChatRequest"
    load: "Callable[[], Loaded]"
    pictures: list[Any]
    loaded: "Loaded | None" = None

    def ready(self) -> "Loaded":
        """The model, loaded at first use."""
        if self.loaded is None:
            from mmcli.cli.progress import Progress

            with Progress(self.renderer.environment, words="loading the model"):
                loaded = self.load()
            self.request.require(loaded.processor, loaded.checkpoint.name)
            self.loaded = loaded
        return self.loaded

    def ask(self, question: str, *, stream: bool) -> None:
        """Answer one question: as it comes where `stream`, else at its end; with --json as a record."""
        from mmcli.tasks.answer import answer
        from mmcli.tasks.result import chat_record

        loaded, request, renderer = self.ready(), replace(self.request, words=question), self.renderer
        teller = None
        if stream and not renderer.output.json:
            teller = Teller(loaded.processor.decode, renderer.environment.write)
        [said] = answer(loaded, [[picture.image for _, picture in self.pictures]], request, teller)
        record = chat_record(request, said, loaded, self.pictures)
        if teller:
            teller.end()
        else:
            renderer.text(record)
        renderer.notes(record)
        if len(self.pictures) == 1 and renderer.needs_picture:
            from mmcli.media.image import load_picture

            [(source, _)] = self.pictures
            renderer.files(source, record, load_picture(source).image)


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
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            self._tell(text)

    def end(self) -> None:
        """Write what was held back, and the end of the line."""
        self._tell(self._decode(self._ids))
        self._write("\n")

    def _tell(self, text: str) -> None:
        new, self._told = text[self._told :], max(self._told, len(text))
        if new:  # control characters would move the cursor or recolour the terminal
            self._write("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in new))


def converse(talker: Talker) -> int:
    """Ask on the terminal until it ends. Ctrl-C stops an answer, or at the prompt the conversation."""
    environment = talker.renderer.environment
    talker.ready()
    environment.log(HELP_INSIDE)
    while (line := environment.ask(PROMPT)) is not None:
        line = line.strip()
        try:
            if line in ("/quit", "/exit"):
                break
            if line.startswith("/picture"):
                talker.pictures = load_pictures(environment, shlex.split(line)[1:])
            elif line.startswith("/"):
                environment.say(HELP_INSIDE)
            elif line:
                talker.ask(line, stream=True)
        except KeyboardInterrupt:
            environment.write("\n")
        except (InputError, UsageError, ValueError) as error:  # ValueError: a quote that does not end
            environment.say(f"mmcli: {error}")
    return ExitCode.OK
