"""The fingerprint of a folder's weights: whatever lies beside them, it is made, and tells what changed."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from mmcli.hub.fingerprint import _hash


def header(entry, size=None) -> bytes:
    text = json.dumps(entry).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text


BROKEN = [
    b"",
    b"abc",
    b"\xff" * 100,
    header({}, size=1 << 62),
    header({}, size=1 << 20),
    header([1, 2]),
    header({"a": 3}),
    header({"a": {"data_offsets": 5}}),
    header({"a": {"data_offsets": [1 << 80, 1 << 81]}}),
    header({"a": {"data_offsets": [-50, "x"]}}),
    struct.pack("<Q", 40_000) + b"[" * 40_000,
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_damaged_file_beside_the_weights_has_a_fingerprint_too(tmp_path, content):
    save_file({"a": torch.zeros(9)}, tmp_path / "model.safetensors")
    _hash.cache_clear()
    whole = _hash(tmp_path)
    (tmp_path / "mask_decoder.safetensors").write_bytes(content)
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "nowhere.safetensors").symlink_to(tmp_path / "none")
    _hash.cache_clear()
    beside = _hash(tmp_path)
    save_file({"a": torch.ones(9)}, tmp_path / "model.safetensors")
    _hash.cache_clear()
    assert len({whole, beside, _hash(tmp_path)}) == 3
