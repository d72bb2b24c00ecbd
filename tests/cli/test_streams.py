"""stdout is the result and nothing else; stderr is the talk."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import support
from command import (
    ONE_THREAD,
    PATIENCE,
    Done,
    environment,
    finish,
    forked,
    mmcli,
    process,
    running_mmcli,
    through_head,
)

from mmcli.cli.app import run
from mmcli.cli.environment import Environment, OutputError, ReaderGone

SHORT = ("--max-tokens", 4)


def test_a_caption_of_one_image_is_one_line(album, tiny):
    done = mmcli("caption", "album/b.jpg", "--model", tiny, *SHORT)
    assert done.out.count("\n") == 1 and "album/b.jpg" not in done.out


def test_several_images_have_their_names_before_their_captions(album, tiny):
    done = mmcli("caption", "album/b.jpg", "album/sub/c.png", "--model", tiny, *SHORT)
    assert [line.split(": ")[0] for line in done.out.splitlines()] == ["album/b.jpg", "album/sub/c.png"]


def test_a_folder_is_several_images_even_with_one_in_it(album, tiny):
    assert mmcli("caption", "album/sub", "--model", tiny, *SHORT).out.startswith("album/sub/c.png: ")


def test_names_that_look_like_markup_are_printed_as_they_are(album, tiny):
    (album / "bad[bold].png").write_bytes(b"nothing")
    done = mmcli("caption", "album", "--model", tiny, *SHORT, stderr_tty=True)
    assert "album/a[red].png: " in done.out and "album/bad[bold].png" in done.err


def test_names_that_are_no_valid_text_come_out_as_the_bytes_they_are(album, tiny):
    name = b"album/\xff\xfe.png"
    support.random_image(0).save(os.fsdecode(name))
    done = forked("caption", "--model", tiny, *SHORT, "album/b.jpg", name, variables=os.environ | ONE_THREAD)
    assert done.code == 0 and f"\n{os.fsdecode(name)}: " in done.out


def test_an_output_that_cannot_say_a_character_escapes_it(album, tiny):
    support.random_image(0).save("album/наука.png")
    done = process(
        "caption", "album", "--model", tiny, *map(str, SHORT), env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.code == 0 and r"album/\u043d\u0430\u0443\u043a\u0430.png: " in done.out


def test_json_is_one_record_a_line_and_a_failure_is_one_too(album, tiny):
    (album / "b.jpg").write_bytes(b"no picture")
    done = mmcli("caption", "album", "--model", tiny, "--json", "--token-ids", *SHORT)
    sources = [record["source"] for record in done.records]
    assert sources == ["album/a[red].png", "album/b.jpg", "album/sub/c.png"]
    assert "error" in done.records[1] and "album/b.jpg" in done.err
    assert len(done.records[0]["token_ids"]) == 4


def test_each_result_is_written_as_soon_as_it_is_there(album, tiny):
    streams = environment()
    flushed = []
    streams.stdout.flush = lambda: flushed.append(streams.stdout.getvalue().count("\n"))
    run(["caption", "album", "--model", str(tiny), "--batch-size", "1", "--max-tokens", "2"], streams)
    assert flushed == [1, 2, 3]


def test_what_the_text_does_not_tell_goes_to_stderr(album, tiny):
    frames = [support.random_image(i) for i in range(3)]
    frames[0].save("album/moving.gif", save_all=True, append_images=frames[1:])
    done = mmcli("caption", "album/moving.gif", "--model", tiny, *SHORT)
    assert "mmcli: album/moving.gif: the answer was cut off; raise --max-tokens to let it end\n" in done.err
    assert "of 3 frames" in done.err and done.out.count("\n") == 1


def test_quiet_leaves_only_errors(album, tiny):
    done = mmcli("caption", "album", "nothere.jpg", "--model", tiny, "--quiet", *SHORT, stderr_tty=True)
    assert done.err == "mmcli: nothere.jpg does not exist. Check the name and the folder you are in.\n"


def test_logs_are_for_terminals(album, tiny):
    def talk(tty):
        return mmcli("caption", "album/b.jpg", "--model", tiny, *SHORT, stderr_tty=tty).err

    assert "loading" in talk(True) and "loading" not in talk(False)


def test_nothing_found_prints_nothing(album, tiny):
    done = mmcli("detect", "cat", "album/b.jpg", "--model", tiny, "--max-tokens", "1")
    assert (done.code, done.out) == (0, "")


def test_head_ends_quietly(album, tiny):
    names = ["album/b.jpg"] * 40
    line, code, err = through_head("caption", *names, "--model", tiny, "-q", "--batch-size", "1")
    assert line.startswith(b"album/b.jpg: ") and (code, err) == (141, b"")


def shell(command: str) -> Done:
    """A command line of a shell, in which `mmcli` is ours."""
    command = f'mmcli() {{ {sys.executable} -m mmcli "$@"; }}; {command}'
    environment = os.environ | ONE_THREAD
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, timeout=PATIENCE)
    return Done(done.returncode, done.stdout, done.stderr)


FULL = "Standard output cannot be written: No space left on device. Check the disk."
CLOSED = "Standard output cannot be written: it is closed. Send it somewhere else."


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("redirection", "sentence"), [(">/dev/full", FULL), (">&-", CLOSED)])
@pytest.mark.parametrize(
    "command",
    ["caption album/b.jpg -q --max-tokens 2 --model", "--help", "models list --help", "--version", "models list"],
)
def test_a_stdout_that_takes_nothing_is_said_in_a_sentence(album, tiny, command, redirection, sentence):
    done = shell(f"mmcli {command.replace('--model', f'--model {tiny}')} {redirection}")
    assert done == Done(4, "", f"mmcli: {sentence}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-"])
def test_other_streams_may_be_closed_or_full(album, tiny, redirection):
    done = shell(f"mmcli caption album/b.jpg nothere.jpg --max-tokens 2 --model {tiny} {redirection}")
    assert done.code == 1 and done.out.startswith("album/b.jpg: ") and done.out.count("\n") == 1
    assert shell(f"mmcli captoin {redirection}").code == 2


def test_a_file_is_never_mistaken_for_a_stream_that_was_closed(album, tiny):
    """The first file that is opened gets the number of a closed stream, and with it what others write there."""
    code = "import os, sys; from mmcli.__main__ import _occupy_streams; _occupy_streams(); print(os.open('f', 65))"
    done = shell(f'{sys.executable} -c "{code}" 3>&1 >&3 2>&- <&-')
    assert int(done.out) > 2


def test_a_reader_that_is_gone_before_the_help_is_no_trouble():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "mmcli", "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_images_come_through_stdin_and_lists(album, tiny):
    data = (album / "b.jpg").read_bytes()
    plain = mmcli("caption", "album/b.jpg", "--model", tiny, "--json", *SHORT).records[0]["text"]
    [piped] = mmcli("caption", "-", "--model", tiny, "--json", *SHORT, stdin=data).records
    assert (piped["source"], piped["text"]) == ("-", plain)
    listed = mmcli("caption", "--files-from", "-", "--model", tiny, *SHORT, stdin=b"album/b.jpg\n")
    assert listed.out == f"album/b.jpg: {plain}\n"


@pytest.fixture
def cats(album) -> Path:
    """The album, full of cats."""
    from PIL import Image

    cat = Image.open(Path(__file__).parents[2] / "examples" / "cat.jpg")
    for path in (path for path in album.rglob("*") if path.is_file()):
        cat.save(path)
    return album


def test_overlays_and_masks_go_where_they_are_named(cats):
    assert mmcli("detect", "cat", "album", "--overlay", "drawn/").code == 0
    assert sorted(str(p) for p in (cats.parent / "drawn").rglob("*.*")) == [
        str(cats.parent / "drawn" / "album" / name) for name in ("a[red].png", "b.jpg", "sub/c.png")
    ]
    assert mmcli("segment", "cat", "album/b.jpg", "--mask", "one.png").code == 0
    from PIL import Image

    assert Image.open("one.png").size == Image.open("album/b.jpg").size


def test_an_overlay_that_cannot_be_written_fails_its_image_but_not_its_result(cats):
    (cats.parent / "file").write_text("in the way")
    done = mmcli("detect", "cat", "album/b.jpg", "--overlay", "file/x.png", "--json")
    assert done.code == 1 and len(done.records) == 1 and "file/x.png cannot be written" in done.err


def test_an_environment_tells_a_reader_that_left_from_a_disk_that_is_full():
    class Failing(io.StringIO):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def flush(self):
            raise OSError(self.number, os.strerror(self.number))

    def writing(number):
        return Environment(io.BytesIO(), Failing(number), io.StringIO()).write

    with pytest.raises(ReaderGone):
        writing(errno.EPIPE)("text")
    with pytest.raises(OutputError, match="No space left"):
        writing(errno.ENOSPC)("text")


def test_records_stay_valid_json_whatever_the_name(album, tiny):
    name = os.fsdecode(b"album/\xff[x].png")
    support.random_image(0).save(name)
    with running_mmcli("caption", name, "--model", tiny, "--json", *SHORT) as child:
        out, _ = finish(child)
    assert json.loads(out)["source"] == name
