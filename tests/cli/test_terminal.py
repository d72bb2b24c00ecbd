"""On a real terminal: an answer as it comes, the progress bar, Ctrl-C."""

import json
import os
import subprocess

import pytest
from command import PATIENCE, Terminal, running_mmcli

pytest.importorskip("pty")


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


def test_no_progress_bar_where_results_go_into_a_pipe(album, tiny):
    """Whoever reads them (head, less) writes on the same terminal."""
    reading, writing = os.pipe()
    terminal = Terminal("caption", "album", "--model", tiny, "--max-tokens", "2", "--batch-size", "1", stdout=writing)
    os.close(writing)
    assert terminal.end() == 0
    with open(reading) as results:
        assert len(results.readlines()) == 3
    assert b"\x1b[" not in terminal.screen


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
    command = ("chat", "album/b.jpg", "--model", tiny, "--max-tokens", 3, "-q")
    with running_mmcli(*command, stdin=subprocess.PIPE) as child:
        out, err = child.communicate(b"what is it?\n", timeout=PATIENCE)
    assert (child.returncode, err, out.count(b"\n")) == (0, b"", 1)
