"""Conversations with a model that knows turns, images and audio, without a terminal: what goes in, what is said."""

import os
from dataclasses import replace

import numpy as np
import pytest
from audio_files import save
from command import environment
from PIL import Image
from records import read
from turns import turn_model

from mmcli.cli.attachments import load_attachments
from mmcli.cli.chat_prompt import Commands, run_prompt, split
from mmcli.cli.chat_runner import ChatRunner
from mmcli.cli.options import OutputOptions
from mmcli.cli.render import Renderer
from mmcli.errors import InputError, ModelError, UsageError
from mmcli.tasks.attachments import names_of
from mmcli.tasks.chat import ChatRequest


@pytest.fixture
def folder(album, monkeypatch):
    """The album with recordings beside it, one of them longer than the model reads at once."""
    noise = np.random.default_rng(0).standard_normal(16_000 * 26, np.float32) / 9
    save("short.wav", noise[:32_000], rate=16_000)
    save("long.flac", noise, rate=16_000)
    os.rename("short.wav", "short")  # a recording without a suffix
    return album.parent


def talk(lines, names=(), *, context: int | None = None, json: bool = True, system: str = "", able: dict | None = None):
    """Lead a conversation by these lines → (records or text, what was said on stderr, the runner)."""
    streams = environment(lines.encode(), stdin_tty=True, stderr_tty=False)
    renderer = Renderer(streams, OutputOptions(json=json), None, several=False)
    loaded = turn_model(context)
    loaded.processor.capabilities = replace(loaded.processor.capabilities, **able or {})
    request = ChatRequest(max_tokens=8)
    runner = ChatRunner(lambda: loaded, request, system, load_attachments(streams, list(names)), renderer=renderer)
    assert run_prompt(runner) == 0
    return streams.stdout.getvalue(), streams.stderr.getvalue(), runner


def records(out: str) -> list[dict]:
    return list(read(out))


def test_images_and_recordings_go_with_the_next_question_and_are_remembered(folder):
    lines = "what?\n/image album/sub/c.png\n/audio short\nand now?\nsure?\n"
    out, _, runner = talk(lines, ["album/b.jpg"])
    first, second, third = records(out)
    assert first["source"] == "album/b.jpg" and first["width"] == 50
    assert second["source"] == third["source"] == ["album/b.jpg", "album/sub/c.png", "short"]
    assert second["width"] is None
    kinds = [
        ["Image" if isinstance(part, Image.Image) else type(part).__name__ for part in turn.parts]
        for turn in runner.conversation.turns
    ]
    assert kinds == [["Image", "str"], ["str"], ["Image", "Audio", "str"], ["str"], ["str"], ["str"]]
    assert list(first) == list(third)


def test_an_image_without_an_answer_still_goes_with_the_next_question(folder):
    out, err, runner = talk(f"/image album/b.jpg\n{'long ' * 50}\nshort\n", context=90)
    [record] = records(out)
    assert "tokens, and small reads 90 at most" in err and record["source"] == "album/b.jpg"


def test_a_long_recording_is_read_in_parts_and_nothing_is_lost(folder):
    out, err, runner = talk("what is said?\n", ["long.flac"])
    note = "read in 2 parts of at most 20 s, cut at pauses; all 0:26 are used"
    assert f"mmcli: long.flac: {note}" in err
    [record] = records(out)
    assert record["source"] == "long.flac" and record["notes"] == [note]
    audios = runner.conversation.turns[0].audios()
    assert len(audios) == 2 and sum(map(len, audios)) == 16_000 * 26


def test_what_was_not_asked_about_yet_can_be_taken_back(folder):
    out, _, _ = talk("/audio short\n/image\nwhat?\n/image album/b.jpg\n/image\n/audio\nand now?\n", ["album/b.jpg"])
    assert [record["source"] for record in records(out)] == ["short", "short"]


def test_clear_forgets_all(folder):
    out, _, runner = talk("what?\n/clear\nand now?\n", ["album/b.jpg"])
    assert [record["source"] for record in records(out)] == ["album/b.jpg", None]
    assert len(runner.conversation.turns) == 2 and len(runner.exchanges) == 1


def test_a_full_context_is_said_and_clear_helps(folder):
    lines = f"{'a' * 60}\n{'b' * 20}\n/clear\n{'c' * 10}\n"
    out, err, _ = talk(lines, context=100, json=False)
    assert "mmcli: That would make " in err and "/clear" in err
    assert out.count("\n") == 2


def test_an_answer_that_fills_the_context_says_so(folder):
    _, err, _ = talk("a" * 60 + "\n", context=80)
    assert "the 80 tokens that small reads are full; /clear begins another" in err


def test_what_the_system_says_is_in_the_text_that_is_saved(folder):
    talk("what?\n/save talk.txt\n", system="be brief")
    assert (folder / "talk.txt").read_text().startswith("System: be brief\n\nYou: what?\n\nsmall: ")


def test_a_file_is_written_over_by_its_own_conversation_only(folder):
    (folder / "other.md").write_text("mine")
    lines = "what?\n/save other.md\n/save new.md\nand?\n/save new.md\n/clear\nagain\n/save new.md\n"
    _, err, _ = talk(lines)
    assert (folder / "other.md").read_text() == "mine"
    assert err.count("exists already and is left as it is") == 2
    assert (folder / "new.md").read_text().count("**You**") == 2


@pytest.mark.parametrize(
    ("able", "image", "audio"),
    [
        ({}, "show pictures with the next question", "play recordings with the next question"),
        ({"turns": False}, "ask about these pictures from now on", "ask about these recordings from now on"),
        ({"turns": False, "audio": False}, "ask about these pictures from now on", "(this model takes no audio)"),
        ({"images": False}, "(this model takes no pictures)", "play recordings with the next question"),
    ],
)
def test_help_goes_by_what_the_model_can_do(able, image, audio):
    _, err, _ = talk("/help\n", able=able)
    said = {line.split()[0]: line for line in err.splitlines() if line.startswith("  /")}
    assert image in said["/image"] and audio in said["/audio"]


def test_a_question_may_have_several_lines(folder):
    out, _, _ = talk("one\\\ntwo\\\n\n/quit\nnever\n")
    assert [record["prompt"] for record in records(out)] == ["one\ntwo"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/nonsense", "There is no command /nonsense; the commands are /image, /audio, /clear, /save, /help, /quit"),
        ("/image nothere.jpg", "nothere.jpg does not exist"),
        ("/image short", "short is audio, not a picture"),
        ("/audio album/b.jpg", "is a JPEG picture, not a recording"),
        ("/image 'a", "A quote is opened and not closed"),
        ("/clear all", "/clear takes no argument"),
        ("/save a b", "/save takes one name"),
        ("/save x.md", "There is nothing to save yet"),
        ("/save", "/save takes one name"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_conversation_goes_on(folder, line, said):
    out, err, _ = talk(f"{line}\nwhat?\n")
    assert said in err and "Traceback" not in err and len(records(out)) == 1


def test_images_and_recordings_are_told_apart_by_what_is_in_them(folder):
    os.rename("long.flac", "long.jpg")
    os.rename("album/b.jpg", "b.mp3")
    streams = environment((folder / "album/sub/c.png").read_bytes())
    found = load_attachments(streams, ["long.jpg", "b.mp3", "short", "-", "album"])
    assert names_of(found) == ["long.jpg", "b.mp3", "short", "-", "album/a[red].png", "album/sub/c.png"]
    assert [one.kind == "recording" for one in found] == [True, False, True, False, False, False]
    with pytest.raises(InputError, match="nothere does not exist"):
        load_attachments(streams, ["nothere"])
    (folder / "odd.mp3").write_bytes(b"\0" * 5000)
    with pytest.raises(InputError, match="not a recording of a known kind"):
        load_attachments(streams, ["odd.mp3"])  # where the content does not tell, the suffix does


def test_a_model_without_ears_says_so_before_it_is_asked(folder, loaded):
    streams = environment()
    renderer = Renderer(streams, OutputOptions(), None, several=False)
    runner = ChatRunner(lambda: loaded, ChatRequest(), "", load_attachments(streams, ["short"]), renderer=renderer)
    with pytest.raises(ModelError, match="takes no audio"):
        runner.ready()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("a b", ["a", "b"]),
        ("'a b' c\\ d", ["a b", "c d"]),
        ('"it\'s.jpg" #1.jpg', ["it's.jpg", "#1.jpg"]),
        ("~/x '*.jpg'", [f"{os.path.expanduser('~')}/x", "*.jpg"]),
    ],
)
def test_names_are_parted_as_in_a_shell(line, names):
    assert split(line) == names
    with pytest.raises(UsageError):
        split(line + " 'open")


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("/s", ["/save "]),
        ("/", ["/image ", "/audio ", "/clear ", "/save ", "/help ", "/quit "]),
        ("what", []),
        ("/help a", []),
        ("/nonsense a", []),
        ("/image alb", ["/image album/"]),
        ("/picture album/", ["/picture album/a[red].png", "/picture album/b.jpg", "/picture album/sub/"]),
        ("/image x.jpg album/a[", ["/image x.jpg album/a[red].png"]),
        ("/audio it\\'s\\ m", ["/audio it\\'s\\ mine.wav"]),
        ("/audio ~/it", ["/audio ~/it\\'s\\ mine.wav"]),
    ],
)
def test_what_a_line_may_become(album, monkeypatch, line, choices):
    (album.parent / "it's mine.wav").touch()
    monkeypatch.setenv("HOME", str(album.parent))
    renderer = Renderer(environment(), OutputOptions(), None, several=False)
    runner = ChatRunner(lambda: None, ChatRequest(), renderer=renderer)
    assert Commands(runner).complete(line) == choices
