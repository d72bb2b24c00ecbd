"""The key of a record: the same whenever the same is asked of the same, and another one otherwise."""

import os
import shutil
from pathlib import Path

import pytest
from command import mmcli

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "cat.jpg", "cat.jpg")


def key(*arguments, **more) -> str | None:
    [record] = mmcli(*arguments, "--json", **more).records
    return record["key"]


def test_a_key_is_that_of_the_question_and_not_of_the_run():
    asked = ("detect", "cat", "cat.jpg")
    first = key(*asked)
    assert first and first == key(*asked, "--batch-size", "4", "--token-ids", "--seed", "3")  # nothing is drawn
    others = [
        key("detect", "dog", "cat.jpg"),
        key("segment", "cat", "cat.jpg"),
        key(*asked, "--min-score", "0.9"),
        key(*asked, "--loc-divisor", "1024"),
        key(*asked, "--temperature", "0.5", "--seed", "3"),
        key(*asked, "--temperature", "0.5", "--seed", "4"),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_a_key_changes_with_the_file():
    first = key("caption", "cat.jpg")
    os.utime("cat.jpg", (1, 1))
    assert key("caption", "cat.jpg") != first
    assert key("caption", "-", stdin=Path("cat.jpg").read_bytes()) is None  # what comes through a pipe has no name


def test_a_transcripts_key_changes_with_the_part_that_is_transcribed(tiny_audio):
    shutil.copy(EXAMPLES / "jfk.flac", "talk.flac")
    asked = ("transcribe", "talk.flac", "--model", tiny_audio)
    first = key(*asked, "--duration", "2")
    assert first and first == key(*asked, "--duration", "2", "--batch-size", "2")
    assert first != key(*asked, "--duration", "2", "--hint", "Kennedy")
    assert first != key(*asked, "--duration", "3")


def test_weights_that_change_change_the_fingerprint(tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    from mmcli.hub.fingerprint import weights_of
    from mmcli.hub.resolve import BUNDLED, resolve

    def copy(name):
        shutil.copytree(BUNDLED["nano"], tmp_path / name, copy_function=shutil.copyfile)
        return tmp_path / name

    same, other = copy("same"), copy("other")
    weights = load_file(other / "model.safetensors")
    last = sorted(weights)[-1]
    weights[last] = weights[last] + torch.ones_like(weights[last])
    save_file(weights, other / "model.safetensors")
    bundled = weights_of(resolve("nano"))
    assert weights_of(resolve(str(same))) == bundled != weights_of(resolve(str(other)))


def test_the_fingerprint_passes_over_what_is_no_file(tmp_path):
    from mmcli.hub.fingerprint import weights_of
    from mmcli.hub.resolve import BUNDLED, resolve

    folder = shutil.copytree(BUNDLED["nano"], tmp_path / "nano", copy_function=shutil.copyfile)
    (folder / "folder.json").mkdir()
    (folder / "nowhere.json").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.json")
    with (folder / "large.json").open("wb") as file:
        file.truncate(9 << 30)  # it takes no place on the disk
    assert weights_of(resolve(str(folder))) == weights_of(resolve("nano"))
