"""The pages' commands, run: what they print, and the images they draw, are what stands there.

`python examples/refresh_readme.py` writes both anew.
"""

import glob
import importlib.util
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command import environment
from forked import write_command
from PIL import Image
from spoken import assert_alike

from mmcli.cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
_spec = importlib.util.spec_from_file_location("refresh_readme", ROOT / "examples" / "refresh_readme.py")
refresh_readme = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(refresh_readme)

SHOWN = [pair for block in refresh_readme.BLOCK.findall(README) for pair in refresh_readme.session(block)]
DRAWN = refresh_readme.drawing(README)
TALKS = re.findall(r"^```text\n\$ (mmcli chat [^\n]*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
OF_A_SHELL = re.compile("[|;&<>$`]")
ERASED = re.compile(r".*\x1b\[2K", re.DOTALL)  # what a progress display wrote and took away again
OWN = re.compile(r'("timings": ?\{)[^}]*|("key": ?")\w+')  # times, and a hash of when a file was made
NUMBER = re.compile(r"-?\d+\.\d+")


@pytest.fixture(autouse=True)
def examples(tmp_path, monkeypatch):
    """A folder to work in that has the examples, as the repository has."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMCLI_CPU_NATIVE", "0")  # as when the pages were made


def said(words: list[str], typed: str = "", **terminal: bool) -> str:
    """What a command says on both streams together."""
    words = [name for word in words for name in (sorted(glob.glob(word)) if "*" in word else [word])]
    streams = environment(typed.encode(), **terminal)
    streams.stderr = streams.stdout
    run(words[1:], streams)
    return streams.stdout.getvalue()


def assert_same(found: str, expected: str) -> None:
    """Word for word; what was measured or depends on the clone is any, other numbers are right to a thousandth."""
    found, expected = (OWN.sub(r"\1\2", text.replace("\n", " ")) for text in (found, expected))
    assert NUMBER.sub("0.0", found).split() == NUMBER.sub("0.0", expected).split()
    numbers, wanted = ([float(number) for number in NUMBER.findall(text)] for text in (found, expected))
    assert numbers == pytest.approx(wanted, rel=1e-3, abs=2e-3)


def installed(monkeypatch) -> None:
    """For a shell, mmcli is the one beside this Python."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    if shutil.which("mmcli") is None:
        pytest.skip("mmcli is not installed beside this Python")


@pytest.mark.parametrize(("command", "printed"), SHOWN, ids=[command for command, _ in SHOWN])
def test_commands_print_what_is_shown_under_them(command, printed, monkeypatch):
    if OF_A_SHELL.search(command):
        installed(monkeypatch)
        found = refresh_readme.output(command, Path.cwd())
    else:
        found = refresh_readme.cut(said(shlex.split(command)))
    compare = assert_alike if command.startswith("mmcli transcribe") else assert_same
    compare("\n".join(found), "\n".join(printed))


def test_commands_in_a_row_print_what_is_shown_under_them(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("bin")
    write_command(place / "mmcli")
    monkeypatch.setenv("PATH", str(place), prepend=":")
    page = refresh_readme.PIPELINES_PAGE.read_text("utf-8")
    shown = [pair for block in refresh_readme.BLOCK.findall(page) for pair in refresh_readme.session(block)]
    assert len(shown) > 8 and sum(" | " in command for command, _ in shown) > 3
    for command, printed in shown:
        assert_same("\n".join(refresh_readme.output(command, Path.cwd())), "\n".join(printed))
    assert (
        "examples/cat.jpg" in Path("found.html").read_text("utf-8") and Path("stamps/examples/cat-1-cat.png").is_file()
    )


@pytest.mark.parametrize("command", DRAWN)
def test_images_that_are_shown_are_those_that_are_drawn(command):
    words = shlex.split(command)
    image = Path(words[-1])
    said([*words[:-1], "drawn.png"])
    drawn, shown = (np.asarray(Image.open(path).convert("RGB"), float) for path in ("drawn.png", image))
    assert drawn.shape == shown.shape
    difference = np.abs(drawn - shown)
    assert difference.mean() < 3 and (difference > 60).mean() < 0.005  # what JPEG loses; a box elsewhere is more


@pytest.mark.parametrize(("command", "shown"), TALKS, ids=[command for command, _ in TALKS])
def test_a_conversation_goes_as_it_is_shown(command, shown):
    typed = "".join(line[2:] + "\n" for line in shown.splitlines() if line.startswith("> "))
    found = said(shlex.split(command), typed, stdin_tty=True, stdout_tty=True, stderr_tty=True)
    assert typed and ERASED.sub("", found) == re.sub("^> .*\n", "> ", shown, flags=re.MULTILINE) + "> "


def test_each_kind_of_block_is_found():
    assert len(SHOWN) > 10 and len(DRAWN) == 3 and len(TALKS) == 1
