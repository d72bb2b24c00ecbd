"""Help pages: the same as the ones checked in, quick to come, and good without a manual."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import mmcli, process
from typer.main import get_command

from mmcli.cli import models
from mmcli.cli.app import app
from mmcli.cli.commands import COMMANDS as COMMAND_TABLE
from mmcli.cli.help import Group

SNAPSHOT = Path(__file__).parent / "help.txt"
COMMANDS = ["", *COMMAND_TABLE, "tune check"] + [f"models {name}" for name in get_command(models.app).commands]
HEAVY = ("torch", "transformers", "numpy", "PIL", "tokenizers", "safetensors", "huggingface_hub", "rich")


def page(command: str, monkeypatch, columns: int = 100) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = mmcli(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    return done.out


def test_help_is_what_was_checked_in(monkeypatch):
    """After a change on purpose: MMCLI_WRITE_HELP=1 pytest tests/cli/test_help.py, and read the difference."""
    pages = {" ".join(["mmcli", *command.split()]): page(command, monkeypatch) for command in COMMANDS}
    text = "\n".join(f"$ {command} --help\n{shown}" for command, shown in pages.items())
    if os.environ.get("MMCLI_WRITE_HELP"):
        SNAPSHOT.write_text(text, "utf-8")
    assert text == SNAPSHOT.read_text("utf-8")


def test_summaries_are_the_first_sentences_of_the_commands_help():
    whole: Any = get_command(app)
    for name, (_, summary) in COMMAND_TABLE.items():
        assert summary == Group.summary(whole, None, name)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", [60, 100])
def test_help_fits_its_width_and_has_examples(command, columns, monkeypatch):
    text = page(command, monkeypatch, columns)
    head = text.split("\nExamples:")[0]  # examples are kept as they would be typed
    assert all(len(line) <= columns for line in head.splitlines())
    assert "Examples:" in text or command.startswith("models ")


def test_the_exit_codes_are_in_the_help(monkeypatch):
    text = page("", monkeypatch)
    assert all(f"\n  {code:<4} " in text for code in (0, 1, 2, 3, 4, 130))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["-V"],
        ["help", "models", "pull"],
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


@pytest.mark.parametrize(
    ("arguments", "imported"),
    [
        (["--version"], []),
        (["--help"], []),
        (["captoin"], []),
        (["caption", "--help"], ["caption"]),
        (["caption", "nothere.jpg"], ["caption"]),
        (["help", "models", "pull"], ["explain", "models"]),
        (["tune", "--help"], ["tune"]),
    ],
)
def test_a_command_imports_no_other(arguments, imported):
    code = (
        "import sys\nfrom mmcli.cli.app import run\nfrom mmcli.cli.commands import COMMANDS\nrun(sys.argv[1:])\n"
        "places = [module for module, _ in COMMANDS.values()] + ['mmcli.cli.tune_check']\n"
        "sys.stderr.write('\\n' + ' '.join(place for place in places if place in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stderr.rpartition("\n")[2].split() == [f"mmcli.cli.{name}" for name in imported]


def test_a_missing_image_is_told_without_loading_a_model():
    code = (
        "import sys\nfrom mmcli.cli.app import run\ncode = run(['caption', 'nothere.jpg'])\n"
        "sys.stderr.write(repr((code, 'torch' in sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("(1, False)")


def test_the_version_is_the_packages():
    done = process("--version")
    assert done.code == 0 and done.out.startswith("mmcli ") and done.out.count(".") >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_as_a_command_says_the_same(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = mmcli("help", *command.split())
    assert (done.code, done.err) == (0, "") and done.out == page(command, monkeypatch)


@pytest.mark.parametrize("words", [["captoin"], ["models", "pul"], ["caption", "more"]])
def test_help_for_what_there_is_not_is_a_usage_error(words):
    done = mmcli("help", *words)
    assert done.code == 2 and words[-1] in done.err and not done.out


@pytest.mark.parametrize("command", ["caption", "detect", "segment", "chat", "transcribe"])
def test_the_model_has_a_short_option_everywhere(command, tmp_path):
    words = ["cat"] if command in ("detect", "segment") else []
    done = mmcli(command, *words, "-M", f"{tmp_path}/none", *(["-m", "what?"] if command == "chat" else ["x.jpg"]))
    assert done.code in (1, 3) and "No such option" not in done.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["caption", "x.jpg", "-m", "nano"], "with -M or --model; -m is a question, in mmcli chat only"),
        (["transcribe", "x.mp3", "-mnano"], "with -M or --model; -m is a question, in mmcli chat only"),
        (["inspect", "-M", "nano"], "without an option: mmcli inspect nano"),
        (["models", "info", "--model", "nano"], "without an option: mmcli models info nano"),
        (["doctor", "-m", "nano"], "mmcli caption photo.jpg -M nano"),
        (["-m", "nano", "caption", "x.jpg"], "mmcli caption photo.jpg -M nano"),
    ],
)
def test_an_option_that_other_tools_have_for_the_model_gets_a_hint(arguments, hint):
    done = mmcli(*arguments)
    assert done.code == 2 and hint in done.err


@pytest.mark.parametrize("columns", [24, 200])
def test_a_usage_error_is_wrapped_on_a_terminal_only(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = mmcli("models", "info", "nano", "--no-such").err.split("\n")
    assert lines[0] == "Usage: mmcli models info [OPTIONS] MODEL"
    assert lines[3].startswith("Error: No such option: --no-such")


@pytest.mark.parametrize("command", ["", "models"])
def test_without_a_command_the_help_comes_as_talk(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    done = mmcli(*command.split())
    assert (done.code, done.out) == (2, "") and done.err == page(command, monkeypatch)
