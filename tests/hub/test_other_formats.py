"""Folders and files that are named as a model and are none: each is called what it is, with what would work."""

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from command import mmcli

from mmcli.errors import ModelError
from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import resolve
from mmcli.hub.weight_files import weight_files

CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"
CONFIG = {"config.json": b"{}"}
ADAPTER = json.dumps({"base_model_name_or_path": "google/paligemma2-3b-pt-224", "peft_type": "LORA"}).encode()


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    "files, message",
    [
        ({"adapter_config.json": ADAPTER, "adapter_model.safetensors": b""},
         r"an adapter of google/paligemma2-3b-pt-224 .*or merge them"),
        (CONFIG | {"adapter_config.json": ADAPTER, "adapter_model.safetensors": b""}, "an adapter of google"),
        ({"adapter_config.json": b"\xef\xbb\xbf" + ADAPTER}, "an adapter of google/paligemma2-3b-pt-224"),
        ({"adapter_config.json": b"[" * 9999}, r"an adapter \(LoRA"),
        ({"model-Q4_K_M.gguf": b"GGUF"}, r"GGUF.*model-Q4_K_M.gguf.*does not read.*original repository"),
        ({"ggml-base.bin": b"lmgg"}, "weights in GGML"),
        (CONFIG | {"model.bin": b"", "vocabulary.txt": b""}, "in CTranslate2"),
        (CONFIG | {"training_args.bin": b""}, r"only as a pickle \(training_args.bin\).*pytorch_model.bin beside"),
        ({"pytorch_model.bin": b""}, r"only as a pickle \(pytorch_model.bin\).*beside config.json"),
        ({"tiny.en.pt": b""}, r"only as a pickle \(tiny.en.pt\)"),
        (CONFIG | {"flax_model.msgpack": b""}, "Flax.*Convert it"),
        (CONFIG | {"tf_model.h5": b""}, "TensorFlow's format.*Convert it"),
        (CONFIG | {"model.onnx": b""}, "in ONNX"),
        (CONFIG | {"onnx/model.onnx": b""}, "holds no weights"),
        ({"weights.npz": b""}, "NumPy arrays"),
        ({"model_index.json": b"{}"}, "a pipeline of diffusers"),
        (CONFIG | {"consolidated.safetensors": b""}, "under another name than model.safetensors"),
        ({"model.safetensors": b""}, r"weights \(model.safetensors\) without the config.json"),
        (CONFIG | {"model.safetensors.incomplete": b""}, "download that broke off"),
        (CONFIG | {".cache/huggingface/download/x=.4.incomplete": b""}, "download that broke off"),
        (CONFIG, "holds no weights: there is neither model.safetensors nor"),
        ({"a/config.json": b"{}", "b/config.json": b"{}"}, "holds models. Name .*/a or 1 more"),
        ({"snapshots/x/config.json": b"{}"}, "has no config.json"),
        ({}, "is an empty folder"),
    ],
)  # fmt: skip
def test_a_folder_is_called_what_it_is(tmp_path, files, message):
    with pytest.raises(ModelError, match=message) as caught:
        weight_files(resolve(str(fill(tmp_path, files))).folder)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_command_says_it_and_ends_with_3(tmp_path, monkeypatch):
    fill(tmp_path / "mine", CONFIG | {"adapter_config.json": ADAPTER})
    monkeypatch.chdir(tmp_path)  # a long name of the folder would be shortened in the sentence, and perhaps more
    done = mmcli("caption", CAT, "--model", "./mine")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert "an adapter of google/paligemma2-3b-pt-224" in done.err


def test_one_level_too_deep(tmp_path):
    fill(tmp_path, CONFIG | {"onnx/readme.md": b"", "snapshots/x/config.json": b"{}"})
    with pytest.raises(ModelError, match=rf"part of a model's folder\. Name {tmp_path}\.$"):
        resolve(str(tmp_path / "onnx"))
    with pytest.raises(ModelError, match=rf"is no model itself, but holds one\. Name {tmp_path}/snapshots/x\.$"):
        resolve(str(tmp_path / "snapshots"))


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("config.json", "{}")
    else:
        with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as file:
            file.add(BUNDLED["nano"] / "config.json", "config.json")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("model.zip", archive("zip"), "is a zip archive. Unpack it"),
        ("model.tar", archive(""), "is a tar archive. Unpack it"),
        ("model.tgz", archive("gz"), "is a gzip archive"),
        ("checkpoint", archive("xz"), "is an xz archive"),
        ("tiny.pt", archive("zip"), "pickled weights"),
        ("model.safetensors", b"", "a file of weights alone.*the folder that holds config.json"),
        ("model.gguf", b"GGUF", "GGUF.*does not read"),
        ("notes.txt", b"", "is a file. Name the folder"),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path, name, data, message):
    with pytest.raises(ModelError, match=message):
        resolve(str(fill(tmp_path, {name: data}) / name))


def test_a_pickle_beside_its_config_leads_to_its_folder(tmp_path):
    fill(tmp_path, CONFIG | {"pytorch_model.bin": archive("zip"), "other.bin": archive("zip")})
    with pytest.raises(ModelError, match=rf"is a file of weights\. Name its folder, {tmp_path}\.$"):
        resolve(str(tmp_path / "pytorch_model.bin"))
    with pytest.raises(ModelError, match="pickled weights, which can run code"):
        resolve(str(tmp_path / "other.bin"))


def test_a_file_of_a_model_leads_to_its_folder(tmp_path):
    fill(tmp_path, CONFIG | {"model.safetensors": b""})
    with pytest.raises(ModelError, match=rf"is a file\. Name its folder, {tmp_path}, "):
        resolve(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("https://huggingface.co/google/paligemma2-3b-mix-448", "Name it as google/paligemma2-3b-mix-448"),
        ("hf.co/google/gemma-3n-E2B-it/tree/v2/onnx", "Name it as google/gemma-3n-E2B-it --revision v2"),
        ("https://example.com/model", "is an address.*owner/name"),
        ("google/gemma-3n-E2B-it@v2", "google/gemma-3n-E2B-it --revision v2"),
        ("google/gemma-3n-E2B-it:v2", "google/gemma-3n-E2B-it --revision v2"),
        ("~nobody-of-this-name/model", "There is no folder ~nobody"),
        ("m" * 5000, "There is no folder m+ "),
    ],
)
def test_names_that_are_addresses_or_nobodys(name, message):
    with pytest.raises(ModelError, match=message):
        resolve(name)


def test_a_whole_file_wins_over_an_index_whose_shards_are_gone(tmp_path):
    """As after merging the shards, with the index left behind."""
    for file in BUNDLED["nano"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    index = {"metadata": {}, "weight_map": {"gone.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    done = mmcli("caption", CAT, "--model", tmp_path)
    assert (done.code, done.out) == (0, mmcli("caption", CAT).out), done.err
    assert mmcli("models", "verify", tmp_path).code == 0


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize(
    "data, message",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>Log in</html>" + b" " * 99, "web page that was saved in its place"),
    ],
    ids=["pointer", "page"],
)
def test_what_was_saved_in_place_of_a_file_is_said(tmp_path, name, data, message):
    for file in BUNDLED["nano"].iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(data)
    done = mmcli("caption", CAT, "--model", tmp_path)
    assert done.code == 3 and name in done.err
    assert re.search(message, done.err)
