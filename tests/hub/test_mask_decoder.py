"""Fetching the published mask decoder: from a cache laid out as huggingface_hub does it, and without a network."""

import hashlib
import os
import socket
import subprocess
import sys

import pytest

from mmcli.errors import ModelError
from mmcli.hub import mask_decoder


@pytest.fixture
def cache(tmp_path):
    folder = tmp_path / "spaces--big-vision--paligemma-hf"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "vae-oid.npz").write_bytes(b"codebook")
    return tmp_path


def test_a_cached_file_is_used_without_a_download(cache, monkeypatch):
    monkeypatch.setattr(mask_decoder, "SHA256", hashlib.sha256(b"codebook").hexdigest())
    assert mask_decoder.fetch_vae_oid(cache).read_bytes() == b"codebook"


def test_another_file_is_refused(cache):
    with pytest.raises(ModelError, match="SHA-256 differs.*--mask-decoder"):
        mask_decoder.fetch_vae_oid(cache)


def test_offline_the_error_says_what_to_do(tmp_path):
    code = "from mmcli.hub.mask_decoder import fetch_vae_oid; fetch_vae_oid()"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "mmcli.errors.ModelError" in done.stderr
    assert "is not in the cache" in done.stderr and "--mask-decoder PATH" in done.stderr


def test_a_hub_out_of_reach_is_asked_once(tmp_path):
    code = "from mmcli.hub.mask_decoder import fetch_vae_oid; fetch_vae_oid()"
    with socket.socket() as nobody:  # bound, but not listening: connections to it are refused
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
        environment |= {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "is not in the cache and cannot be downloaded" in done.stderr
    assert "Retrying" not in done.stderr  # as the hub's library says before it tries again, for half a minute in all
