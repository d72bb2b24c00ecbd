"""The command line as a whole: its commands, its exit codes, and the one place where errors become words."""

import os
from typing import Annotated, Any

import typer
from typer.main import get_command

from mmcli.cli.commands import Commands
from mmcli.cli.environment import READER_GONE, Environment, ReaderGone
from mmcli.cli.libraries import guarded
from mmcli.errors import (
    ExitCode,
    InputError,
    MachineError,
    MemoryShortage,
    MmcliError,
    ModelError,
    keeping_interrupts,
    ran_out_of_memory,
)
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.offered import such_as
from mmcli.version import __version__

HELP = (
    "Caption, detect, segment and chat about pictures, and write down what is said in recordings. "
    "The bundled models work offline, on any machine."
)

EPILOG = f"""\
Examples:

  mmcli caption photo.jpg
  mmcli detect "cat ; dog" holiday/ --overlay boxes/
  mmcli segment "cat" photo.jpg --json | jq .objects
  mmcli chat photo.jpg -m "How many cats are there?"
  mmcli transcribe talk.mp3
  mmcli caption holiday/ -M {such_as("images", bundled=False)}

Results go to stdout, everything else to stderr. `mmcli help COMMAND` explains a command.

Exit codes:

  0    all done
  1    some inputs failed; the rest are done
  2    the command line is wrong
  3    the model could not be found, downloaded or run
  4    the machine cannot go on (disk full, output closed, no memory), or a fault of mmcli
  130  interrupted; what was written by then is complete
  141  the reader of the output closed it (as `| head` does)"""

# typer.BadParameter's ancestor that every complaint about a command line shares, in all versions of Typer.
COMPLAINT: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    cls=Commands,
    help=HELP,
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.obj.write(f"mmcli {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: list[str], environment: Environment | None = None) -> int:
    """Run one command line in an environment (default: the process's own) and return its exit code."""
    if environment is not None:
        return _run(arguments, environment)
    environment = Environment.real()
    with guarded(environment):
        return _run(arguments, environment)


def _run(arguments: list[str], environment: Environment) -> int:
    try:
        with keeping_interrupts():
            code = get_command(app).main(arguments, prog_name="mmcli", standalone_mode=False, obj=environment)
        return int(code or 0)
    except ReaderGone:
        return READER_GONE
    except (KeyboardInterrupt, typer.Abort):
        environment.log("mmcli: interrupted")
        return ExitCode.INTERRUPTED
    except COMPLAINT as complaint:
        _complain(environment, complaint)
        return ExitCode.USAGE
    except InputError as error:
        environment.fail(error)
        return ExitCode.MACHINE if ran_out_of_memory(error) else error.exit_code
    except Exception as error:
        failure = _as_mmcli_error(error)
        if environment.model_from and isinstance(failure, ModelError):
            failure.what += f" (the model is chosen by {environment.model_from})"
        environment.fail(failure, cause=error)
        return failure.exit_code


def _as_mmcli_error(error: Exception) -> MmcliError:
    """An error as a sentence for the user and an exit code."""
    if isinstance(error, MmcliError) and (error.exit_code == ExitCode.MACHINE or not ran_out_of_memory(error)):
        return error
    if ran_out_of_memory(error):
        return MemoryShortage("There is not enough memory", "Close other programs, raise ulimit -v, or give less")
    if isinstance(error, OSError) and not _has_folder():
        return MachineError("The folder that you are in does not exist any more", "Change to another folder")
    if isinstance(error, OSError):
        return MachineError(f"{type(error).__name__}: {error}", "Check the disk and the paths you named")
    return MachineError(
        f"An unexpected error: {type(error).__name__}: {error}",
        "This is a fault of mmcli; run it again with --debug and report the traceback",
    )


def _has_folder() -> bool:
    """Whether the current folder is there; somebody may have removed it."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _complain(environment: Environment, complaint: Any) -> None:
    """Say what is wrong with a command line, with its usage, as the library would, but safely."""
    context: Any = getattr(complaint, "ctx", None)
    if type(complaint).__name__ == "NoArgsIsHelpError":
        for line in context.get_help().splitlines():
            environment.say(line)
        return
    if context is not None:
        environment.say(" ".join(context.get_usage().split()))
        environment.say(f"Try '{context.command_path} --help' for help.")
        environment.say("")
    environment.say(f"Error: {complaint.format_message()}")
    if getattr(complaint, "option_name", "") in ("-m", "-M", "--model"):
        environment.say(_how_to_choose(context))


def _how_to_choose(context: Any) -> str:
    """What to write instead of an option for the model that a command does not have."""
    if any("--model" in param.opts for param in context.command.params):
        return "The model is chosen with -M or --model; -m is a question, in mmcli chat only."
    if any(param.metavar == "MODEL" for param in context.command.params):
        return f"This command takes the model without an option: {context.command_path} {IMAGE_MODEL}"
    return f"-M and --model come after the command: mmcli caption photo.jpg -M {IMAGE_MODEL}"
