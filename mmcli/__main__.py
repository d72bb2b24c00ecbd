"""The `mmcli` command: `python -m mmcli` and the console script."""

import _signal  # type: ignore[import-not-found]  # all of signal that is needed so early, without its import of enum
import os
import sys

INTERRUPTED = 130

# Until there is something to tidy up, Ctrl-C just ends the process: raised in the middle of an import,
# KeyboardInterrupt would show a traceback, or be lost in a library.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def main() -> None:
    """Run the command line and end the process with its exit code."""
    import signal

    _occupy_streams()
    try:
        from mmcli.cli.confined import run_apart

        run_apart()
        from mmcli.engine.cpu import settle_threads
        from mmcli.startup import run_alone, starting_up

        settle_threads(os.environ)
        run_alone()
        with starting_up():
            from mmcli.cli.app import run
            from mmcli.errors import interrupt

        if callable(signal.getsignal(signal.SIGINT)):  # else it is ignored, as for a job in the background
            signal.signal(signal.SIGINT, interrupt)
        _unwind_at_signals()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except SystemExit as error:  # by a signal; or Typer's way to say that the reader is gone
        code = 141 if error.code == 1 else error.code  # type: ignore[assignment]  # ours are numbers
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # a second one must not change how this ends
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _mute()
    if code == INTERRUPTED or "torch" in sys.modules or (code not in (0, 2) and _has_threads()):
        _end(code)
    sys.exit(code)


def _has_threads() -> bool:
    import threading

    return threading.active_count() > 1


def _end(code: int) -> None:
    """End the process as the interpreter would, but for taking all that is imported down, object by object.

    For PyTorch that takes a third of a second, and gives back nothing that the system would not. Threads inside of it
    cannot be joined, and the interpreter's end breaks them. After Ctrl-C in code that was executed from a string, as
    that of a dataclass, it would end by the signal in place of the code.
    """
    import atexit

    atexit._run_exitfuncs()
    _mute()
    os._exit(code)


def _occupy_streams() -> None:
    """Let standard streams that were closed lead nowhere: else the next file that is opened would be one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:  # libraries write to it without looking
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)


def _unwind_at_signals() -> None:
    """Let a signal to end unwind the process first, so that no unfinished file is left behind."""
    import signal

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _mute() -> None:
    """Send what could not be written (and was said so) nowhere: the interpreter would complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
