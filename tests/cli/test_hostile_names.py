"""Names, fields and options that hold what a terminal obeys: none of it gets there, and no line of ours is forged."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata

import pytest
import support
from command import Terminal, environment, mmcli
from safetensors.numpy import load_file, save_file

from mmcli.cli.app import run
from mmcli.cli.libraries import Guarded
from mmcli.cli.progress import AudioProgress

BAD = "\x1b]0;t\x07\x1b[2J\rmmcli: all is well\nmmcli: forged\x9b31m\x85\u202egnp\u200b\u2028mmcli: forged"
LONG = "x" * 5000
SHORT = ("--max-tokens", "4")


def is_raw(character: str) -> bool:
    """Whether a terminal would obey or hide it; a line break is ours."""
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def check(text: str, longest: int = 400) -> None:
    assert not [character for character in text if is_raw(character)], text
    assert not re.search("^mmcli: (forged|all is well)", text, re.MULTILINE), text
    assert max(map(len, text.split("\n"))) <= longest, text


def without_bar(text: str) -> str:
    """What is on a terminal besides the progress bar, whose sequences are few and known."""
    return re.sub(r"\x1b\[(?:[0-9;]*m|\?25[lh]|1A|2K)|\r", "\n", text)


# A model folder of each kind of damage that its words are quoted for; the fields are changed in the tiny checkpoint.
DAMAGE = {
    "model type": ("config.json", {"model_type": BAD}),
    "activation": ("config.json", {"text_config": {"model_type": BAD, "hidden_activation": BAD}}),
    "projection": ("config.json", {"projection_dim": BAD}),
    "token": ("config.json", {"image_token_index": BAD}),
    "means": ("preprocessor_config.json", {"image_mean": BAD}),
    "size": ("preprocessor_config.json", {"size": {BAD: BAD}}),
    "processor": ("processor_config.json", {"image_processor": {"resample": BAD, "size": BAD}}),
    "tokenizer": ("tokenizer.json", {"model": {"type": BAD}}),
    "long": ("config.json", {"model_type": LONG}),
}


@pytest.fixture
def place(album, tiny):
    """A folder to work in, with a good and a bad image of such a name, and models with such fields, one of them so
    called."""
    support.random_image(1).save(f"album/{BAD}.png")
    with open(f"album/{BAD}.jpg", "wb") as file:
        file.write(b"no picture")
    os.mkdir(BAD)
    for name, (file, change) in DAMAGE.items():
        shutil.copytree(tiny, name)
        path = album.parent / name / file
        support.edit_json(path, **change) if path.exists() else path.write_text(json.dumps(change))
    shutil.copytree(tiny, "tensors")
    weights = load_file("tensors/model.safetensors")
    weights[BAD] = next(iter(weights.values()))
    save_file(weights, "tensors/model.safetensors", metadata={"format": "pt"})
    shutil.copytree(tiny, f"model{BAD}")
    with open("list.txt", "wb") as file:
        file.write(f"{BAD}.jpg\0{LONG}\0album/{BAD}.jpg\0".encode())
    return album.parent


COMMANDS = [
    ["caption", BAD],
    ["caption", "album", f"{BAD}.jpg", "--model", "TINY"],
    ["caption", "album", f"{BAD}.jpg", "--model", "TINY", "--json"],
    ["caption", f"{BAD}/*.jpg"],
    ["caption", f"http://{BAD}/"],
    ["caption", f"{BAD}://x/"],
    ["caption", "album/b.jpg", "--model", BAD],
    ["caption", "album/b.jpg", "--model", f"./{BAD}"],
    ["caption", "album/b.jpg", "--model", "album/b.jpg"],
    ["caption", "album/b.jpg", "--model", f"model{BAD}"],
    ["caption", "album/b.jpg", "--model", f"./no{BAD}"],
    ["caption", "album/b.jpg", "--model", "owner/name", "--revision", BAD, "--offline"],
    *(["caption", "album/b.jpg", "--model", name, *SHORT] for name in (*DAMAGE, "tensors")),
    ["caption", "--files-from", "list.txt"],
    ["caption", "--files-from", BAD],
    ["caption", "--files-from", f"no{BAD}"],
    ["caption", "album/b.jpg", "--device", BAD],
    ["caption", "album/b.jpg", "--device", LONG],
    ["caption", "album/b.jpg", "--dtype", BAD],
    ["caption", "album/b.jpg", "--table", BAD],
    ["caption", "album/b.jpg", "--max-tokens", BAD],
    ["caption", "album/b.jpg", "--top-p", BAD],
    ["caption", "album/b.jpg", "--loc-divisor", BAD],
    ["caption", "album/b.jpg", "--overlay", f"x.{BAD}"],
    ["caption", "album", "--overlay", f"{BAD}.png"],
    ["caption", "album/b.jpg", "--overlay", f"list.txt/{BAD}.png", "--model", "TINY"],
    ["caption", "album/b.jpg", "--prompt", f"<image>{BAD}", "--model", "TINY"],
    ["caption", "album/b.jpg", f"--{BAD}"],
    ["caption", f"--{LONG}"],
    ["caption", f"-{BAD}"],
    ["caption", LONG],
    [BAD],
    [LONG],
    ["help", BAD],
    ["models", BAD],
    ["detect", BAD, "album/b.jpg", "--model", "TINY"],
    ["detect", f"album/{BAD}.jpg", "cat"],
    ["segment", BAD, "album/b.jpg", "--mask", f"{BAD}.jpg"],
    ["segment", "cat", "album/b.jpg", "--mask-decoder", f"{BAD}.npz", "--model", "TINY"],
    ["chat", f"album/{BAD}.png", "-m", BAD, "--model", "TINY"],
    ["chat", f"album/{BAD}.jpg", "-m", "what?", "--json"],
    ["chat", "album/b.jpg", "-m", "what?", "--system", BAD, "--model", "TINY"],
    ["transcribe", f"album/{BAD}.png"],
    ["transcribe", f"album/{BAD}.jpg", "--json"],
    ["transcribe", f"album/{BAD}.jpg", "--format", BAD],
    ["transcribe", f"album/{BAD}.jpg", "--start", BAD],
    ["transcribe", f"album/{BAD}.jpg", "--task", BAD],
    ["transcribe", f"album/{BAD}.jpg", "--language", BAD],
    ["transcribe", "album", "--output", f"{BAD}.srt"],
    *(["inspect", name] for name in (BAD, f"./no{BAD}", f"model{BAD}", *DAMAGE, "tensors")),
    ["inspect", f"model{BAD}", "--json"],
    *(["models", "verify", name] for name in (f"./{BAD}", f"./model{BAD}", "./tensors", "./model type")),
    ["models", "verify", BAD],
    ["models", "info", f"model{BAD}"],
    ["models", "info", f"model{BAD}", "--json"],
    ["models", "info", BAD, "--offline"],
    ["models", "pull", f"./{BAD}"],
    ["models", "remove", f"./{BAD}"],
    ["models", "remove", "owner/name", "--revision", BAD],
]


def test_no_command_lets_them_through(place, tiny, monkeypatch):
    """To a terminal and with the traceback, which quotes more than anything else does."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for arguments in COMMANDS:
        given = [str(tiny) if argument == "TINY" else argument for argument in arguments]
        given += SHORT if "TINY" in arguments else ()
        last = [] if arguments[0] in (BAD, LONG, "help") else ["--debug"]
        done = mmcli(*given, *last, stdout_tty=True, stderr_tty=True)
        try:
            check(done.out, sys.maxsize)
            check(without_bar(done.err))
        except AssertionError as error:
            pytest.fail(f"{arguments}: {error}")


def test_in_a_pipe_talk_is_safe_and_results_are_whole(place, tiny):
    done = mmcli("caption", "album", "--model", tiny, "--json", *SHORT)
    check(done.err)
    assert {record["source"] for record in done.records} >= {f"album/{BAD}.png", f"album/{BAD}.jpg"}
    assert not [character for character in done.out if is_raw(character)]  # JSON can say it all in other words


def test_a_conversation_lets_none_through(place, tiny):
    lines = [f"/image album/{BAD}.jpg", f"/{BAD}", f"/image '{BAD}", f"/save {BAD}.md", f"/image {BAD}", BAD]
    lines = [line.replace("\n", " ") for line in lines]
    lines += ["/image album/*.png", "what?", *2 * ["/save talk\x1b[2J.md"], "/clear", "/help", "/help x"]
    streams = environment("\n".join(lines).encode(), stdin_tty=True, stdout_tty=True, stderr_tty=True)
    assert run(["chat", "album/b.jpg", "--model", str(tiny), "--max-tokens", "4", "--debug"], streams) == 0
    check(without_bar(streams.stderr.getvalue()))
    check(streams.stdout.getvalue())
    assert r"talk\x1b[2J.md" in streams.stderr.getvalue()


def test_a_terminal_gets_none_while_a_bar_is_drawn(place, tiny):
    terminal = Terminal("caption", "album", f"no{BAD}.jpg", "--model", tiny, *SHORT, "--batch-size", "1")
    assert terminal.end() == 1
    check(without_bar(terminal.screen.decode()))
    assert rb"album/\x1b]0;t" in terminal.screen


def test_what_libraries_say_is_made_safe_too():
    code = (
        "import logging, sys, threading, warnings\n"
        "from mmcli.cli import app, caption\n"
        "bad = sys.argv[1]\n"
        "def fault(context):\n"
        "    warnings.warn(bad); logging.warning(bad); print(bad, file=sys.stderr)\n"
        "    thread = threading.Thread(target=lambda: 1 / 0, name=bad); thread.start(); thread.join()\n"
        "    raise RuntimeError(bad)\n"
        "app.app.command('fault')(lambda: fault(None))\n"
        "sys.exit(app.run(['fault']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, BAD], capture_output=True, text=True)
    check(done.stderr)
    assert all(word in done.stderr for word in ("UserWarning", "ZeroDivisionError", "An unexpected error")), done.stderr


def test_a_librarys_progress_bar_stays_one():
    """tqdm's own, as huggingface_hub draws it while it downloads files of such names."""
    from tqdm import tqdm

    kept = io.StringIO()
    stream = Guarded(kept)
    with tqdm(total=2, desc=BAD, file=stream, mininterval=0) as outer, tqdm(total=2, file=stream) as inner:
        for bar in (outer, inner, inner, outer):
            bar.update()
    text = kept.getvalue()
    assert text.count("\r") > 4 and "\x1b[A" in text and r"\x1b]0;t" in text and "2/2" in text
    check(re.sub("\r|\x1b\\[A", "\n", text))


def test_the_bar_of_a_recording_shows_its_name_safely():
    streams = environment(stderr_tty=True)
    with AudioProgress(streams) as progress:
        progress.reach(BAD[-20:] + "\x1b[2J", 1.0, None)
    check(without_bar(streams.stderr.getvalue()))
    assert r"\x1b[2J" in streams.stderr.getvalue()
