"""The history of lines typed in conversations, which the arrow keys recall, also in later sessions."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from mmcli.cli.user_folders import state_folder
from mmcli.media.addresses import masked

LINES = 1000  # kept; the file may have twice as many before the older ones go
VARIABLE = "MMCLI_HISTORY"


def history_path(variables: Mapping[str, str], platform: str = sys.platform) -> Path | None:
    """Where the history is: the file that MMCLI_HISTORY names (none if it is empty), else one in the user's state."""
    if VARIABLE in variables:
        return Path(os.path.expanduser(variables[VARIABLE])) if variables[VARIABLE] else None
    return state_folder(variables, platform) / "history"


class History:
    """The lines in a file that only its owner can read, one after the other; several terminals may write to it.

    Raises OSError where it cannot be read or written; nothing depends on it.
    """

    def __init__(self, path: Path):
        self._path = path
        self._last = ""

    def lines(self) -> list[str]:
        """The last lines, oldest first; those before them are removed from a file that has grown long."""
        try:
            text = self._path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return []
        lines = text.replace("\0", "").split("\n")[:-1]
        if len(lines) > 2 * LINES:
            target = Path(os.path.realpath(self._path))
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
            try:
                self._write(temporary, "".join(f"{line}\n" for line in lines[-LINES:]), os.O_EXCL)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        return lines[-LINES:]

    def add(self, line: str) -> None:
        """Put a line behind the others unless it is the last one again; passwords in its addresses are left out."""
        line = masked(line.replace("\n", " "))
        if line.strip() and line != self._last:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._path, line + "\n")
            self._last = line

    @staticmethod
    def _write(path: Path, text: str, flags: int = 0) -> None:
        number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | flags, 0o600)
        with open(number, "a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            file.write(text)
