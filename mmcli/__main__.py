"""The `mmcli` command: `python -m mmcli` and the console script."""

import os
import signal
import sys
import threading


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        from mmcli.cli.app import run

        code = run(sys.argv[1:])
        for stream in (sys.stdout, sys.stderr):
            if stream:
                stream.flush()
    except KeyboardInterrupt:  # while modules were still loading
        code = 130
    except OSError:  # stdout is closed or full: said already, or nobody listens
        code = 141
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not change how this ends
    if code not in (0, 2):
        _mute()
        if threading.active_count() > 1:  # at work in PyTorch: taken down by the interpreter, they would cry out
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
