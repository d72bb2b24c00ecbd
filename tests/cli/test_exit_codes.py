"""Exit codes are part of the interface: 0 done, 1 some failed, 2 usage, 3 model, 4 machine, 130 interrupted."""

import errno
import json
import os
import signal
import sys

import pytest
from command import finish, held_back, mmcli, process, running, running_mmcli

SHORT = ("--max-tokens", 4)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["caption", "album/b.jpg", "--model", "TINY"], 0, ""),
        (["caption", "album", "--model", "TINY"], 0, ""),
        (["caption", "album", "nothere.jpg", "--model", "TINY"], 1, "nothere.jpg does not exist"),
        (["caption", "nothere.jpg"], 1, "nothere.jpg does not exist"),
        (["caption", "album/*.tif"], 1, "matches no file"),
        (["chat", "nothere.jpg", "-m", "what?", "--model", "TINY"], 1, "nothere.jpg does not exist"),
        (["caption"], 2, "No picture was named"),
        (["captoin"], 2, "Did you mean 'caption'"),
        (["detect", "", "album"], 2, "it is empty"),
        (["detect", "album/b.jpg", "cat"], 2, "name what to find first"),  # arguments the wrong way round
        (["caption", "album", "--temperature", "-1"], 2, "--temperature"),
        (["caption", "album", "--top-p", "0"], 2, "--top-p"),
        (["caption", "album", "--device", "tpu"], 2, "'tpu' is none of auto, cpu, cuda, cuda:N, mps"),
        (["caption", "album", "--dtype", "int8"], 2, "'int8' is none of"),
        (["caption", "album", "--loc-divisor", "1000"], 2, "neither 1023 nor 1024"),
        (["caption", "-", "-"], 2, "only once"),
        (["caption", "--files-from", "nothere.txt"], 2, "nothere.txt does not exist"),
        (["caption", "album", "--overlay", "one.png"], 2, "names one file, but there are several pictures"),
        (["segment", "cat", "album/b.jpg", "--mask", "mask.jpg"], 2, "no suffix that can be written"),
        (["caption", "album/b.jpg", "--device", "cuda:99", "--model", "TINY"], 2, "CUDA"),
        (["chat", "-", "--model", "TINY"], 2, "cannot be both what the question is about and the question"),
        (["chat", "album/b.jpg", "--model", "TINY"], 2, "The question is empty"),
        (["caption", "album", "--model", "./nofolder"], 3, "There is no folder ./nofolder"),
        (["caption", "album", "--model", "owner/unheard-of-model", "--offline"], 3, "not in the cache"),
        (["chat", "album/b.jpg", "-m", "what?", "--system", "be kind", "--model", "TINY"], 3, "takes no --system text"),
        (["inspect", "./nofolder"], 3, "There is no folder ./nofolder"),
        (["models", "remove", "nano"], 2, "bundled"),
    ],
)
def test_exit_codes(album, tiny, arguments, code, words):
    arguments = [tiny if argument == "TINY" else argument for argument in arguments]
    done = mmcli(*arguments, *(SHORT if tiny in arguments else ()))
    assert done.code == code, done.err
    assert words in done.err
    assert "Traceback" not in done.err


def test_one_bad_image_stops_neither_those_before_nor_those_after_it(album, tiny):
    (album / "b.jpg").write_bytes(b"no picture at all")
    done = mmcli("caption", "album", "--model", tiny, *SHORT)
    assert done.code == 1
    assert [line.split(": ")[0] for line in done.out.splitlines()] == ["album/a[red].png", "album/sub/c.png"]
    assert done.err.count("album/b.jpg") == 1


@pytest.mark.skipif(os.name == "nt", reason="a folder that somebody is in cannot be removed")
def test_a_folder_that_is_gone_is_said_to_be(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = mmcli("caption", tmp_path / "nothere.jpg")
    assert done.code == 4
    assert done.err == "mmcli: The folder that you are in does not exist any more. Change to another folder.\n"


@pytest.mark.parametrize("command", ["caption", "transcribe"])
def test_a_pipe_of_nothing_is_no_file_to_get_again(command):
    done = mmcli(command, "-")
    assert (done.code, done.err) == (1, "mmcli: Standard input (-) is empty. See what the command before it says.\n")


def test_debug_shows_where(album):
    assert "Traceback" in mmcli("caption", "nothere.jpg", "--debug").err


def test_a_fault_of_mmcli_itself_is_a_sentence_too(album, tiny):
    (tiny_copy := album.parent / "copy").mkdir()
    for file in tiny.iterdir():
        (tiny_copy / file.name).write_bytes(file.read_bytes())
    (tiny_copy / "tokenizer.json").write_text("{}")
    done = mmcli("caption", "album/b.jpg", "--model", tiny_copy)
    assert done.code == 3 and "Traceback" not in done.err and done.err.startswith("mmcli: ")


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_an_interruption_keeps_what_is_done_and_says_130(album, tiny):
    """A pipe holds the second image back; Ctrl-C comes while it is waited for."""
    command = ("caption", "album/b.jpg", "waiting.png", "--model", tiny, "--json", "--batch-size", "1", *SHORT)
    with held_back("waiting.png"), running_mmcli(*command) as child:
        first = child.stdout.readline()
        child.send_signal(signal.SIGINT)
        rest, err = finish(child)
    assert child.returncode == 130
    assert json.loads(first)["source"] == "album/b.jpg" and rest == b""
    assert b"Traceback" not in err and b"Exception" not in err


@pytest.mark.parametrize("module", ["signal", "typer", "mmcli.cli.app", "json", "numpy", "torch._utils", "torch.nn"])
def test_an_interruption_while_modules_load_is_130_too(module, album, tiny):
    """The interpreter tells on stderr what it imports, from the first milliseconds on; Ctrl-C comes right after.

    A second image in a pipe that is given nothing keeps the command from ending before.
    """
    command = [sys.executable, "-X", "importtime", "-m", "mmcli", "caption", "album/b.jpg", "waiting.png"]
    with held_back("waiting.png"), running(*command, "--model", tiny, *SHORT) as child:
        while line := child.stderr.readline():
            if line.split(b"|")[-1].strip() == module.encode():
                break
        child.send_signal(signal.SIGINT)
        _, err = finish(child)
    assert line and child.returncode == 130
    assert b"Traceback" not in err and b"KeyboardInterrupt" not in err


def test_an_interruption_that_a_library_turns_into_another_error_is_130_too(monkeypatch, album, tiny):
    def fail(*arguments, **options):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemError("an import failed") from None

    monkeypatch.setattr("mmcli.cli.start.report_size", fail)
    done = mmcli("caption", "album/b.jpg", "--model", tiny, stderr_tty=True)
    assert done.code == 130 and done.err.endswith("mmcli: interrupted\n")


@pytest.mark.parametrize(
    ("error", "sentence", "todo"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "Check the disk and the paths"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "PermissionError: ", "Check the disk and the paths"),
        (KeyError("x"), "An unexpected error: KeyError", "This is a fault of mmcli"),
        (MemoryError(), "There is not enough memory", "Close other programs"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "There is not enough memory", "Close other programs"),
    ],
    ids=repr,
)
def test_what_the_machine_refuses_is_4(monkeypatch, album, tiny, error, sentence, todo):
    """An error that nothing foresaw, from wherever the system raises it."""

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("mmcli.cli.start.report_size", fail)
    done = mmcli("caption", "album/b.jpg", "--model", tiny, stderr_tty=True)
    assert done.code == 4 and sentence in done.err and todo in done.err and "Traceback" not in done.err


def test_the_code_of_the_process_is_that_of_the_command(album):
    assert process("caption", "nothere.jpg").code == 1
    assert process("caption").code == 2


@pytest.mark.parametrize("value", ["", "soon", "-1"])
def test_a_timeout_of_the_hub_that_is_no_number(value):
    """huggingface_hub turns it into a number as it is imported."""
    done = mmcli("models", "list", variables={"HF_HUB_ETAG_TIMEOUT": value})
    assert done.code == 2 and f"HF_HUB_ETAG_TIMEOUT is {value!r}" in done.err
