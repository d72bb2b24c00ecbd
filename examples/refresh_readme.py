"""Run the commands in README.md's console blocks and put what they print under them.

`python examples/refresh_readme.py`, with mmcli installed.

Lines that start with `$ ` are commands; the lines after one, up to the next command or the block's end, are its
output and are replaced. Output longer than a screen is cut, and says so.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
WIDTH, LINES = 160, 24


def refreshed(block: str) -> str:
    """One block's commands with their output as it is today."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            lines.append(line)
            lines += output(line[2:])
    return "\n".join(lines) + "\n"


def output(command: str) -> list[str]:
    """What a shell command prints on both streams, in the project's folder."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        executable="/bin/bash",
    )
    lines = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in done.stdout.splitlines()]
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], "…"]


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    readme.write_text(BLOCK.sub(lambda m: f"```console\n{refreshed(m[1])}```", text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
