"""The `mmcli` command: `python -m mmcli` and the console script."""

import _signal  # all of signal that is needed so early, without its import of enum
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

    try:
        from mmcli.engine.cpu import settle_threads

        settle_threads(os.environ)
        from mmcli.cli.app import run

        if callable(signal.getsignal(signal.SIGINT)):  # else it is ignored, as for a job in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError:  # stdout is closed or full: said already, or nobody listens
        code = 141
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not change how this ends
    if code not in (0, 2):
        import threading

        _mute()
        if threading.active_count() > 1:  # threads inside PyTorch cannot be joined; the interpreter's end breaks them
            os._exit(code)
    sys.exit(code)


def _mute() -> None:
    """Send what is still in the buffers nowhere, so that the interpreter does not complain about it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
