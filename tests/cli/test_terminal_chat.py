"""Conversations on a real terminal: commands, keys, what is remembered of them."""

import json
import os
import stat

import pytest
from command import Terminal

pytest.importorskip("pty")

LONG = ("--max-tokens", "3500", "--temperature", "9", "--seed", "0")


def chat(tiny, *arguments: object, **settings) -> Terminal:
    """A conversation about an image, at its first prompt."""
    terminal = Terminal("chat", "album/b.jpg", "--model", tiny, *(arguments or ("--max-tokens", "4")), **settings)
    terminal.until("> ")
    return terminal


def test_a_conversation(album, tiny):
    terminal = chat(tiny, "--max-tokens", "8")
    terminal.type("what is it?\n")
    assert "<loc" in terminal.until("raise --max-tokens")
    terminal.until("\n> ", times=2)
    terminal.type("/image nothere.jpg\n")
    terminal.until("nothere.jpg does not exist")  # and the conversation goes on
    terminal.type("/image album/sub/c.png\n")
    terminal.until("album/sub/c.png: used from now on")
    terminal.type("and now?\n")
    terminal.until("raise --max-tokens", times=2)
    terminal.until("\n> ", times=5)
    terminal.type("\x04")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.screen


def test_every_command_does_what_the_help_says(album, tiny):
    terminal = chat(os.path.relpath(tiny))  # a short name: sentences with it stay on one line
    terminal.type("/help\n")
    shown = terminal.until("leaves at once")
    for name in ("/image", "/audio", "/clear", "/save", "/help", "/quit"):
        assert f"\n  {name}" in shown
    terminal.type("/save talk.md\n")
    terminal.until("nothing to save yet")
    terminal.type("what?\n")
    terminal.until("raise --max-tokens")
    terminal.type("/picture 'album/a[red].png'\n")  # the old name
    terminal.until("album/a[red].png: used from now on")
    terminal.type("and this\\\none?\n")
    terminal.until("raise --max-tokens", times=2)
    terminal.type("/save talk.md\n/save talk.jsonl\n")
    terminal.until("2 answers are written to", times=2)
    terminal.type("/audio album/b.jpg\n")
    terminal.until(f"{tiny.name} takes no audio")
    terminal.type("/clear\n")
    terminal.until("is forgotten")
    terminal.type("/save talk.md\n")
    terminal.until("nothing to save yet", times=2)
    assert terminal.end("/quit\n") == 0
    assert b"Traceback" not in terminal.screen
    records = [json.loads(line) for line in (album.parent / "talk.jsonl").read_text().splitlines()]
    assert [record["source"] for record in records] == ["album/b.jpg", "album/a[red].png"]
    text = (album.parent / "talk.md").read_text()
    assert "**You** (`album/b.jpg`)\n\nwhat?" in text and "**You** (`album/a[red].png`)\n\nand this\none?" in text


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_conversation(album, tiny):
    terminal = chat(tiny, *LONG)
    terminal.type("what is it?\n")
    terminal.until("<loc")
    terminal.type("\x03")
    terminal.until("\n> ", times=2)
    terminal.type("/save talk.json\n")  # it still listens, and knows what was written
    terminal.until("1 answer is written")
    terminal.until("\n> ", times=3)
    assert terminal.end("\x03") == 130
    assert b"Traceback" not in terminal.screen
    [record] = json.loads((album.parent / "talk.json").read_text())
    assert record["truncated"] and "<loc" in record["text"]
    assert 0 < record["timings"]["tokens"] < 3500


def test_lines_typed_before_can_be_called_back_another_day_too(album, tiny, tmp_path):
    history = tmp_path / "state" / "mmcli" / "history"
    variables = {"MMCLI_HISTORY": str(history)}
    terminal = chat(tiny, variables=variables)
    terminal.type("what colour?\n")
    terminal.until("\n> ", times=2)
    terminal.type("\x1b[A")  # arrow up
    terminal.until("what colour?", times=2)
    assert terminal.end("\n/quit\n") == 0
    assert history.read_text() == "what colour?\n/quit\n"  # nothing twice in a row
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    terminal = chat(tiny, variables=variables)
    terminal.type("\x1b[A\x1b[A")
    terminal.until("what colour?")
    terminal.type("\x15")  # away with the line
    assert terminal.end("/quit\n") == 0


def test_a_history_that_cannot_be_written_is_no_trouble(album, tiny, tmp_path):
    (tmp_path / "file").touch()
    terminal = chat(tiny, variables={"MMCLI_HISTORY": str(tmp_path / "file" / "history")})
    terminal.type("what colour?\n")
    terminal.until("\n> ", times=2)
    assert terminal.end("/quit\n") == 0
    assert terminal.screen.count(b"the history cannot be kept") == 1 and b"Traceback" not in terminal.screen


def test_commands_and_names_are_completed(album, tiny):
    (album / "my cat.jpg").write_bytes((album / "b.jpg").read_bytes())
    terminal = chat(tiny)
    terminal.type("/im\talb\tmy\t")
    terminal.until("/image album/my\\ cat.jpg")
    terminal.type("\n")
    terminal.until("album/my cat.jpg: used from now on")
    assert terminal.end("/quit\n") == 0
