"""Run the commands of README.md and of the other pages: put what they print under them, and draw the images anew.

`python examples/refresh_readme.py`, with mmcli installed.

In `console` blocks lines that start with `$ ` are commands; the lines after one, up to the next command or the block's
end, are its output and are replaced. Output longer than a screen is cut, and says so. Commands elsewhere that draw into
examples/drawn are run as they are. The commands of pipelines.md are run one after another in a folder of their own, in
which `examples` is. In python_api.md the `python` blocks are one program; what each prints is the `text`
block behind it.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
DRAWING = re.compile(r"^mmcli .*--overlay examples/drawn/\S+$", re.MULTILINE)
PYTHON_PAGE = ROOT / "examples" / "python_api.md"
PIPELINES_PAGE = ROOT / "examples" / "pipelines.md"
PROGRAM = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
WIDTH, LINES = 160, 24


def session(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that stand under it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def drawing(text: str) -> list[str]:
    """The commands that draw the images of a page."""
    return DRAWING.findall(text)


def refreshed(text: str, folder: Path = ROOT) -> str:
    """A page with the output of its blocks' commands as it is today."""

    def block(match: re.Match[str]) -> str:
        lines = [line for command, _ in session(match[1]) for line in (f"$ {command}", *output(command, folder))]
        return "```console\n" + "\n".join(lines) + "\n```"

    return BLOCK.sub(block, text)


def output(command: str, folder: Path = ROOT) -> list[str]:
    """What a shell command prints on both streams, in the project's folder."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        executable="/bin/bash",
    )
    return cut(done.stdout)


def printed_by(blocks: Iterable[str]) -> list[str]:
    """What each of the blocks of a program prints, run one after another in the project's folder."""
    names: dict[str, object] = {}
    found = []
    with contextlib.chdir(ROOT):
        for block in blocks:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block, os.fspath(PYTHON_PAGE), "exec"), names)
            found.append(printed.getvalue())
    return found


def refreshed_program(text: str) -> str:
    """The Python page with what its blocks print today."""
    printed = iter(printed_by(block for block, _ in PROGRAM.findall(text)))

    def block(match: re.Match[str]) -> str:
        shown = next(printed)
        return f"```python\n{match[1]}```\n" + (f"\n```text\n{shown}```\n" if shown else "")

    return PROGRAM.sub(block, text)


def cut(printed: str) -> list[str]:
    """The lines of an output, as far as a page shows them."""
    lines: Iterable[str] = printed.splitlines()
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines]
    return shown if len(shown) <= LINES else [*shown[: LINES - 1], "…"]


def main() -> int:
    """Renew the pages and their images."""
    os.environ["MMCLI_CPU_NATIVE"] = "0"  # what every kind of CPU computes alike
    readme = ROOT / "README.md"
    text = readme.read_text("utf-8")
    readme.write_text(refreshed(text), "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        PIPELINES_PAGE.write_text(refreshed(PIPELINES_PAGE.read_text("utf-8"), Path(folder)), "utf-8")
    PYTHON_PAGE.write_text(refreshed_program(PYTHON_PAGE.read_text("utf-8")), "utf-8")
    for command in drawing(text):
        subprocess.run(command, shell=True, cwd=ROOT, check=True, executable="/bin/bash")
    return 0


if __name__ == "__main__":
    sys.exit(main())
