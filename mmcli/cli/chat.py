"""`mmcli chat`: questions about images and recordings, one or many."""

from dataclasses import replace
from functools import cache
from typing import Annotated

import typer

from mmcli.cli.environment import Environment
from mmcli.cli.help import Command, plain
from mmcli.cli.options import AnswerOptions, LogOptions, ModelOptions, OutputOptions, option, spread
from mmcli.errors import ExitCode, InputError, ModelError, UsageError, raise_if_interrupted
from mmcli.models.offered import such_as

app = plain()
EPILOG = f"""\
Examples:

  mmcli chat photo.jpg
  mmcli chat photo.jpg -m "What colour is the car?"
  echo "What colour is the car?" | mmcli chat photo.jpg
  mmcli chat photo.jpg -m "How many people?" --json | jq -r .text
  mmcli chat photo.jpg talk.mp3 -m "What is said, and what is seen?" --model {such_as("turns", "audio")}

On a terminal it asks until you end it, and answers as the words come: /help there tells the rest,
such as /image, /audio and /save. Models that converse, such as {such_as("turns")},
remember what was said and shown; the others answer every question alone, from the pictures of
the moment. --prompt replaces the words around the question, and the question with them.

Typed lines are remembered in a file of your own; MMCLI_HISTORY names another, or none if empty."""

QUESTION = 1 << 20  # bytes of a question that comes through a pipe, which may have no end

Attached = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE",
        help="Pictures, and recordings for models that take audio: files, folders (with all below them), globs in "
        "quotes, http addresses, or - for stdin.",
        show_default=False,
    ),
]


@app.command(cls=Command, epilog=EPILOG)
@spread
def command(
    ctx: typer.Context,
    files: Attached = None,
    message: Annotated[
        str | None,
        option("Answer", "--message", "-m", metavar="TEXT", help="Ask this, print the answer and end."),
    ] = None,
    system: Annotated[
        str,
        option("Answer", "--system", metavar="TEXT", help="Tell the model how to answer (models that converse)."),
    ] = "",
    *,
    answer: AnswerOptions,
    output: OutputOptions,
    model: ModelOptions,
    log: LogOptions,
) -> int:
    """Answer questions about pictures and recordings, several at once if the model takes them.

    Without a file the question stands alone, for models that can answer so; others need a picture. Without a question
    it asks for one after another on the terminal.
    """
    from mmcli.cli.attachments import find_attachments, load_attachment
    from mmcli.cli.chat_runner import ChatRunner
    from mmcli.cli.images import request_fields
    from mmcli.cli.inputs import not_on_stdout, read_beside
    from mmcli.cli.render import Renderer
    from mmcli.cli.start import begin, capabilities_here, loader
    from mmcli.tasks.chat import ChatRequest

    environment = begin(ctx, log, model.offline)
    request = ChatRequest(words=message or "", **request_fields(answer, output))
    names = files or []
    interactive = message is None and answer.prompt is None and environment.stdin_tty
    if message is None and answer.prompt is None and not interactive:
        request = replace(request, words=_piped_question(environment, names))
    if request.prompt is None and not interactive and not request.words.strip():
        raise UsageError("The question is empty", 'Ask one: mmcli chat photo.jpg -m "What is this?"')
    sources = find_attachments(environment, names)
    not_on_stdout(environment, sources)
    renderer = Renderer(environment, output, None, False, sources, read_beside(model.model))
    if interactive and not renderer.results.on_stdout:
        raise UsageError("--output is for a single answer, not for a conversation", "Ask with -m TEXT, or use /save")
    runner = ChatRunner(loader(environment, model), request, system, renderer=renderer)
    try:
        able = cache(lambda: capabilities_here(model))
        runner.waiting = [load_attachment(source, able=able, model=model.model) for source in sources]
        if renderer.results.in_folder and len(runner.waiting) != 1:
            do = "Name a file: --output answer.txt"
            raise UsageError("A folder gets an answer for each input, but this is one answer about all of them", do)
        if not interactive:
            with renderer.results:
                runner.ask(request.words, stream=environment.stdout_tty)
    except (InputError, ModelError) as error:  # a question that the model cannot answer is a ModelError
        raise_if_interrupted(error)
        if renderer.json and not runner.exchanges:  # an answer that is there has its record
            from mmcli.output.schema import Record
            from mmcli.tasks.settings import image_settings

            failed = Record(
                task=request.task,
                source=names[0] if len(names) == 1 else tuple(names) or None,
                model=model.model,
                revision=model.revision,
                settings=image_settings(request, system=system),
                error=str(error),
            )
            with renderer.results:
                renderer.text(failed)
        raise
    if not interactive:
        return ExitCode.OK
    from mmcli.cli.chat_prompt import run_prompt

    return run_prompt(runner)


def _piped_question(environment: Environment, names: list[str]) -> str:
    if "-" in names:
        raise UsageError(
            "Standard input cannot be both what the question is about and the question", "Ask with -m TEXT"
        )
    words = environment.stdin.read(QUESTION + 1)
    if len(words) > QUESTION:
        raise UsageError(f"The question on standard input is longer than {QUESTION >> 10} KiB", "Ask a shorter one")
    return words.decode("utf-8", "replace").strip()
