"""Folders that hold anything: deep ones, links, pipes."""

import os
import subprocess

import pytest
from command import mmcli

from mmcli.errors import ModelError
from mmcli.hub.files import DEEPEST, below
from mmcli.hub.safetensors_files import read_header


def test_folders_deeper_than_python_calls_itself_are_walked_as_far_as_models_go(tmp_path):
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=at)
        under = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = under
    os.close(at)
    try:
        assert len(list(below(tmp_path))) == DEEPEST + 1
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_links_to_folders_are_named_and_not_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "round").symlink_to("round")
    assert {path.name for path in below(tmp_path)} == {"a", "file", "up", "round"}
    assert list(below(tmp_path / "absent")) == []


def test_a_pipe_in_the_place_of_weights_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="model.safetensors is no file"):
        read_header(tmp_path / "model.safetensors")


def test_a_model_with_a_link_to_itself_in_it_is_one_sentence(tmp_path):
    (tmp_path / "config.json").symlink_to("config.json")
    for arguments in (("caption", "examples/cat.jpg", "--model", tmp_path), ("inspect", tmp_path)):
        done = mmcli(*arguments)
        assert done.code == 3 and done.err.count("\n") == 1 and str(tmp_path) in done.err
