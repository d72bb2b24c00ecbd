"""A whole command line on a hostile input, in this process: what its exit code and its words say about it."""

import io

from mmcli.cli.app import run
from mmcli.cli.environment import Environment
from mmcli.errors import ExitCode, MmcliError

REFUSED = (ExitCode.SOME_FAILED, ExitCode.USAGE, ExitCode.MODEL)


def command(*arguments: object, stdin: bytes = b"") -> str:
    """Run `mmcli ARGUMENTS` → "answered". MmcliError: refused in words; AssertionError: it failed in another way."""
    out, err = io.StringIO(), io.StringIO()
    code = run([str(argument) for argument in arguments], Environment(io.BytesIO(stdin), out, err, variables={}))
    words = err.getvalue()
    said = f"exit {int(code)}, stderr: {words[-4000:]}"
    assert "Traceback (most recent call last)" not in words, said
    assert "fault of mmcli" not in words and "unexpected error" not in words.lower(), said
    assert "\x1b" not in words, said
    if code == ExitCode.OK:
        return "answered"
    assert code in REFUSED, said
    assert words.startswith(("mmcli: ", "Usage: ")) and words.count("\n") <= 12, said
    raise MmcliError(words.strip())
