"""--output, --overlay and --mask of the commands: what goes where, and what is never lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import ONE_THREAD, PATIENCE, finish, mmcli, running_mmcli, until

from mmcli.batch.manifest import NAME as MANIFEST

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = ("--max-tokens", 3)
AUDIO = EXAMPLES / "jfk.flac"


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a photograph of a cat as photos/x.jpg, photos/x.png and photos/sub/y.jpg."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/sub").mkdir(parents=True)
    with Image.open(EXAMPLES / "cat.jpg") as cat:
        small = cat.resize((300, 200))
    for name in ("x.jpg", "x.png", "sub/y.jpg"):
        small.save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def files(folder) -> dict[str, bytes]:
    """What lies below a folder, without the manifest of the runs into it."""
    found = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != MANIFEST)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def nothing_unfinished(folder=".") -> bool:
    return not [path for path in Path(folder).rglob("*") if ".part" in path.name]


# -- what is never lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "task", "refused"), [("--overlay", "detect", {"x.jpg", "x.png"}), ("--mask", "segment", {"x.jpg"})]
)
def test_inputs_of_the_run_stay_and_the_others_go_on(photos, monkeypatch, option, task, refused):
    monkeypatch.chdir(photos)
    before = files(".")
    done = mmcli(task, "cat", "x.jpg", "x.png", "sub/y.jpg", option, ".")
    assert done.code == 1 and done.out.count("\tcat\t") == 3
    said = [line for line in done.err.splitlines() if "which is read in this run" in line]
    assert {line.split(":")[1].split()[0] for line in said} >= refused and len(said) >= len(refused)
    assert files(".") | before == files(".")


@pytest.mark.parametrize(
    "options", [("-o", "x.jpg", "--json"), ("-o", "folder/../x.jpg", "--json"), ("-o", "link.txt")]
)
def test_a_chat_does_not_answer_into_its_image(photos, monkeypatch, options):
    monkeypatch.chdir(photos)
    Path("folder").mkdir()
    Path("link.txt").symlink_to("x.jpg")
    before = files(".")
    done = mmcli("chat", "x.jpg", "-m", "what animal is this?", *options)
    assert done.code == 2 and "--output would write over x.jpg, which is read in this run" in done.err
    assert files(".") == before


@pytest.mark.parametrize("command", [("caption", "x.jpg"), ("chat", "x.jpg", "-m", "hm"), ("transcribe", "x.jpg")])
def test_nothing_is_written_behind_an_input(photos, monkeypatch, command):
    monkeypatch.chdir(photos)
    before = files(".")
    with open("x.jpg", "ab") as stdout, running_mmcli(*command, stdout=stdout) as run:
        _, err = finish(run)
    assert run.returncode == 2 and b"Standard output leads into x.jpg, which is read in this run" in err
    assert files(".") == before


def test_a_file_named_in_a_list_is_an_input_too(photos):
    Path("list").write_text("photos/x.jpg\nphotos/x.png\nphotos/nothere.png\n")
    before = files("photos")
    done = mmcli("segment", "cat", "--files-from", "list", "--mask", ".")
    assert done.code == 1 and files("photos") | before == files("photos")
    assert "photos/x.png is not written" in done.err
    assert mmcli("caption", "--files-from", "list", "--output", "list.txt", "--overlay", "list.txt").code == 2


def test_a_file_that_nobody_read_stays_unless_it_was_named(photos):
    Path("masks").mkdir()
    Path("masks/x.png").write_bytes(b"mine")
    done = mmcli("segment", "cat", "photos/x.jpg", "--mask", "masks")
    assert done.code == 1 and "exists already" in done.err and files("masks") == {"x.png": b"mine"}
    assert mmcli("segment", "cat", "photos/x.jpg", "--mask", "masks", "--overwrite").code == 0
    Path("masks/x.png").write_bytes(b"mine")
    assert mmcli("segment", "cat", "photos/x.jpg", "--mask", "masks/x.png").code == 0
    assert files("masks")["x.png"].startswith(b"\x89PNG")


def test_a_run_again_renews_its_results_and_does_not_read_them(photos):
    arguments = ("detect", "cat", "photos", "--overlay", "photos/boxes", "--json", "--output", "photos/boxes")
    first, again = mmcli(*arguments), mmcli(*arguments)
    assert first.code == again.code == 0 and re.fullmatch(r"mmcli: 3 pictures done \(.* a second\)\n", first.err)
    unread, done = again.err.splitlines()
    assert unread == "mmcli: 3 pictures are in a folder for results and not read"
    assert done == "mmcli: 0 pictures done, 3 done before"
    names = {"x.jpg", "x.png", "sub/y.jpg"}
    assert set(files("photos")) - names == {
        f"boxes/photos/{name}" for name in (*names, "x.jsonl", "x.png.jsonl", "sub/y.jsonl")
    }
    named = mmcli("caption", "photos/boxes", "--overlay", "photos/boxes")  # named itself, it is read
    assert "is not written" in named.err or named.code == 0


def test_nothing_leaves_the_folder_through_a_link(photos):
    Path("out").mkdir()
    Path("elsewhere").mkdir()
    Path("elsewhere/kept.jpg").write_bytes(b"old")
    Path("out/photos").mkdir()
    Path("out/photos/x.jpg").symlink_to(Path("elsewhere/kept.jpg").absolute())
    Path("out/photos/sub").symlink_to(Path("elsewhere").absolute())
    done = mmcli("detect", "cat", "photos", "--overlay", "out")
    assert done.code == 1 and done.err.count("is a link, which may lead out") == 2
    assert files("elsewhere") == {"kept.jpg": b"old"} and Path("out/photos/x.png").is_file()


# -- what goes where ---------------------------------------------------------------------------------------------


def test_a_file_named_singly_goes_flat(photos):
    done = mmcli("segment", "cat", "photos/sub/y.jpg", "--mask", "m/", "--overlay", "o/", "--output", "t/")
    assert (done.code, done.out) == (0, "")
    written = set(files("m")) | set(files("o")) | set(files("t"))
    assert written == {"y.png", "y.jpg", "y.txt"} and files("o").keys() == {"y.jpg"}


@pytest.mark.parametrize("command", [("caption",), ("detect", "cat"), ("transcribe",)], ids=lambda words: words[0])
def test_output_means_the_same_in_every_command(photos, tiny, tiny_audio, command):
    names = ["photos/x.jpg", "photos/sub/y.jpg"]
    if command == ("caption",):
        command = ("caption", "--model", tiny, *SHORT)
    if command == ("transcribe",):
        command = ("transcribe", "--model", tiny_audio)
        names = ["photos/a.flac", "photos/sub/b.flac"]
        for name in names:
            shutil.copy(AUDIO, name)
    stems = [Path(name).stem for name in names]
    printed = mmcli(*command, *names, "-o", "-").out
    alone = [  # without the names that come before them where there are several
        "".join(line.removeprefix(name).lstrip(":\t ") for line in printed.splitlines(True) if line.startswith(name))
        for name in names
    ]
    assert all(alone)
    assert mmcli(*command, *names, "-o", "all.txt").out == "" and Path("all.txt").read_text() == printed
    assert mmcli(*command, *names, "-o", "texts/").code == 0
    assert files("texts") == {
        f"photos/{stems[0]}.txt": alone[0].encode(), f"photos/sub/{stems[1]}.txt": alone[1].encode()
    }  # fmt: skip
    assert mmcli(*command, *names, "nothere", "-o", "all.jsonl").code == 1
    lines = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [*names, "nothere"] and "error" in lines[2]
    assert mmcli(*command, *names, "-o", "all.json").code == 2
    assert mmcli(*command, names[0], "-o", "one.json").code == 0 and json.loads(Path("one.json").read_text())
    assert mmcli(*command, names[0], "-o", "one.pdf").code == 2
    assert nothing_unfinished()


def test_stdout_and_devices_may_be_named(album, tiny):
    command = ("caption", "album/b.jpg", "--model", tiny, *SHORT)
    printed = mmcli(*command)
    assert mmcli(*command, "-o", "-") == mmcli(*command, "-o", "/dev/stdout") == printed
    assert mmcli(*command, "-o", "/dev/null").out == ""


def test_a_chat_answers_into_a_file(album, tiny):
    question = ("chat", "album/b.jpg", "-m", "what?", "--model", tiny, *SHORT)
    said = mmcli(*question).out
    assert mmcli(*question, "-o", "answer.txt").out == "" and Path("answer.txt").read_text() == said
    assert mmcli(*question, "-o", "answer.jsonl").out == ""
    assert json.loads(Path("answer.jsonl").read_text())["task"] == "chat"
    assert mmcli(*question, "-o", "answers/").code == 0 and files("answers") == {"b.txt": said.encode()}
    assert mmcli(*question, "album/sub/c.png", "-o", "answers/").code == 2
    interactive = mmcli("chat", "album/b.jpg", "--model", tiny, "-o", "answer.txt", stdin_tty=True)
    assert interactive.code == 2 and "/save" in interactive.err


def test_nothing_that_came_of_nothing_is_written_over_a_file(album, tiny):
    Path("old.txt").write_text("old")
    assert mmcli("caption", "nothere.jpg", "--model", tiny, "-o", "old.txt").code == 1
    assert Path("old.txt").read_text() == "old"


# -- when it cannot be written -----------------------------------------------------------------------------------


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(photos):
    """A limit on the size of files stands for the disk."""
    Path("old.png").write_bytes(b"old")
    command = f"ulimit -f 1; exec {sys.executable} -m mmcli detect cat photos/x.jpg --overlay old.png"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE, env=os.environ | ONE_THREAD
    )
    assert done.returncode == 4 and done.stdout.startswith("cat\t")  # the result itself is there
    assert done.stderr == "mmcli: old.png cannot be written (File too large). Choose another place.\n"
    assert Path("old.png").read_bytes() == b"old" and nothing_unfinished()


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_file_of_an_interrupted_run_holds_its_results_so_far(album, tiny, number):
    os.mkfifo("waiting.png")
    command = ("detect", "cat", "album", "waiting.png", "--model", tiny)
    args = ("--batch-size", 1, "--json", "-o", "all.jsonl", "--overlay", "drawn", *SHORT)
    # The pipe opens when its turn to be read comes, and holds it back.
    with running_mmcli(*command, *args) as child, open("waiting.png", "wb"):
        until(lambda: [p for p in Path().glob(".mmcli-*.part") if len(p.read_bytes().splitlines()) == 3], child)
        os.killpg(child.pid, number)
        _, err = finish(child)
    assert child.returncode == (130 if number == signal.SIGINT else 143)
    assert len([json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]) == 3
    assert nothing_unfinished() and re.search(rb"interrupted after [23] of 4 pictures", err)
