"""Help pages: the same as the ones checked in, quick to come, and good without a manual."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import mmcli, process

SNAPSHOT = Path(__file__).parent / "help.txt"
COMMANDS = ["", "caption", "detect", "segment", "chat", "transcribe", "inspect", "doctor", "models"]
COMMANDS += [f"models {name}" for name in ("list", "pull", "info", "remove", "verify")]
HEAVY = ("torch", "transformers", "numpy", "PIL", "tokenizers", "safetensors", "huggingface_hub", "rich")


def page(command: str, monkeypatch, capsys, columns: int = 100) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert mmcli(*command.split(), "--help").code == 0
    return capsys.readouterr().out


def test_help_is_what_was_checked_in(monkeypatch, capsys):
    """After a change on purpose: MMCLI_WRITE_HELP=1 pytest tests/cli/test_help.py, and read the difference."""
    pages = {" ".join(["mmcli", *command.split()]): page(command, monkeypatch, capsys) for command in COMMANDS}
    text = "\n".join(f"$ {command} --help\n{shown}" for command, shown in pages.items())
    if os.environ.get("MMCLI_WRITE_HELP"):
        SNAPSHOT.write_text(text, "utf-8")
    assert text == SNAPSHOT.read_text("utf-8")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 100])
def test_help_fits_its_width_and_has_examples(command, columns, monkeypatch, capsys):
    text = page(command, monkeypatch, capsys, columns)
    head = text.split("\nExamples:")[0]  # examples are kept as they would be typed
    assert all(len(line) <= columns for line in head.splitlines())
    assert "Examples:" in text or command.startswith("models ")


def test_the_exit_codes_are_in_the_help(monkeypatch, capsys):
    text = page("", monkeypatch, capsys)
    assert all(f"\n  {code:<4} " in text for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["caption", "--help"],
        ["caption", "--top-p", "2", "x.jpg"],  # a usage error
        ["caption", "--no-such-option"],
        ["caption"],
        ["transcribe", "--help"],
        ["transcribe", "--start", "soon", "x.wav"],
        ["detect", " ; ", "x.jpg"],
        ["models", "--help"],
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom mmcli.cli.app import run\nrun(sys.argv[1:])\n"
        f"sys.stderr.write(repr([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.endswith("[]")


def test_a_missing_picture_is_told_without_loading_a_model():
    code = (
        "import sys\nfrom mmcli.cli.app import run\ncode = run(['caption', 'nothere.jpg'])\n"
        "sys.stderr.write(repr((code, 'torch' in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("(1, False)")


def test_the_version_is_the_packages():
    done = process("--version")
    assert done.code == 0 and done.out.startswith("mmcli ") and done.out.count(".") >= 2
