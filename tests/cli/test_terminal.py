"""On a real terminal: a conversation, the progress bar, Ctrl-C."""

import json
import subprocess
import sys

import pytest
from command import Terminal

pytest.importorskip("pty")


def test_a_conversation(album, tiny):
    terminal = Terminal("chat", "album/b.jpg", "--model", tiny, "--max-tokens", "8")
    terminal.until("> ")
    terminal.type("what is it?\n")
    shown = terminal.until("raise --max-tokens")
    assert "<loc" in shown
    terminal.until("\n> ", times=2)
    terminal.type("/picture nothere.jpg\n")
    terminal.until("nothere.jpg does not exist")  # and the conversation goes on
    terminal.type("/picture album/sub/c.png\n/help\n")
    terminal.until("Ctrl-D ends", times=2)
    terminal.type("and now?\n")
    terminal.until("raise --max-tokens", times=2)
    terminal.until("\n> ", times=6)
    terminal.type("\x04")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.screen


def test_questions_asked_before_can_be_called_back(album, tiny):
    terminal = Terminal("chat", "album/b.jpg", "--model", tiny, "--max-tokens", "2")
    terminal.until("> ")
    terminal.type("what colour?\n")
    terminal.until("\n> ", times=2)
    terminal.type("\x1b[A")  # arrow up
    terminal.until("what colour?", times=2)
    terminal.type("\n/quit\n")
    assert terminal.end() == 0


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_conversation(album, tiny):
    terminal = Terminal(
        "chat", "album/b.jpg", "--model", tiny, "--max-tokens", "3500", "--temperature", "9", "--seed", "0"
    )
    terminal.until("> ")
    terminal.type("what is it?\n")
    terminal.until("<loc")
    terminal.type("\x03")
    terminal.until("\n> ", times=2)
    terminal.type("/help\n")  # it still listens
    terminal.until("Ctrl-D ends", times=2)
    terminal.until("\n> ", times=3)
    assert terminal.end("\x03") == 130
    assert b"Traceback" not in terminal.screen


def test_an_answer_on_a_terminal_comes_word_by_word(album, tiny):
    terminal = Terminal(
        "chat",
        "album/b.jpg",
        "-m",
        "what?",
        "--model",
        tiny,
        "--max-tokens",
        "3000",
        "--temperature",
        "9",
        "--seed",
        "0",
    )
    terminal.until("<loc")
    assert terminal.process.poll() is None  # it is still writing
    terminal.type("\x03")
    assert terminal.end() == 130


def test_the_progress_bar_is_on_the_terminal_and_not_in_the_results(album, tiny, tmp_path):
    with open(tmp_path / "out.jsonl", "w+b") as out:
        terminal = Terminal(
            "caption",
            "album",
            "--model",
            tiny,
            "--json",
            "--max-tokens",
            "300",
            "--batch-size",
            "1",
            stdout=out.fileno(),
        )
        terminal.until("/3")
        assert terminal.end() == 0
        out.seek(0)
        assert [json.loads(line)["task"] for line in out] == ["caption"] * 3


def test_no_progress_bar_with_quiet(album, tiny):
    terminal = Terminal("caption", "album", "--model", tiny, "--max-tokens", "2", "--quiet")
    assert terminal.end() == 0
    assert b"\x1b[" not in terminal.screen and terminal.screen.count(b"album/") == 3


def test_results_and_the_bar_share_a_terminal_without_mixing(album, tiny):
    terminal = Terminal("caption", "album", "--model", tiny, "--max-tokens", "2", "--batch-size", "1")
    assert terminal.end() == 0
    lines = terminal.screen.decode().replace("\r", "\n").split("\n")
    for name in ("album/a[red].png", "album/b.jpg", "album/sub/c.png"):
        assert any(line.split("\x1b[2K")[-1].startswith(f"{name}: <loc") for line in lines), lines


def test_a_question_through_a_pipe(album, tiny):
    command = [sys.executable, "-m", "mmcli", "chat", "album/b.jpg", "--model", tiny, "--max-tokens", "3", "-q"]
    done = subprocess.run(command, input="what is it?\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
