"""What a folder or file is that was named as a model and is none: an adapter, another format, the wrong level.

Everything here ends in a ModelError that says what is there and what would work.
"""

import json
import os
from fnmatch import fnmatch
from itertools import islice
from pathlib import Path

from mmcli.errors import ModelError
from mmcli.hub.files import below

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ADAPTER = "adapter_config.json"
LOCAL = Path(".cache", "huggingface", "download")  # where `hf download --local-dir` keeps what is not yet whole
_MOST = 5000  # entries of a folder that are looked at

_ORIGINAL = "Name the model's original repository or folder, the one with model.safetensors"
_CONVERT = "Convert it to safetensors with transformers (save_pretrained), or use a revision that has model.safetensors"
_PICKLE = "Of pickles mmcli reads the tensors in those that transformers wrote: pytorch_model.bin beside config.json"

# Checked in this order: pattern of a name, what such a file holds, what to do.
FORMATS = (
    ("*.gguf", "weights in GGUF, the format of llama.cpp and Ollama", _ORIGINAL),
    ("ggml-*.bin", "weights in GGML, the format that went before GGUF", _ORIGINAL),
    ("vocabulary.*", "a model in CTranslate2's format", _ORIGINAL),
    ("*.onnx", "a model in ONNX", _ORIGINAL),
    ("openvino_model*.xml", "a model in OpenVINO's format", _ORIGINAL),
    ("*.tflite", "a model in TensorFlow Lite's format", _ORIGINAL),
    ("*.task", "a model in MediaPipe's format", _ORIGINAL),
    ("*.litertlm", "a model in LiteRT's format", _ORIGINAL),
    ("*.mlpackage", "a model in Core ML's format", _ORIGINAL),
    ("*.mlmodelc", "a model in Core ML's format", _ORIGINAL),
    ("*.engine", "a model that TensorRT built for one graphics card", _ORIGINAL),
    ("*.msgpack", "weights in Flax's format", _CONVERT),
    ("*.h5", "weights in TensorFlow's format", _CONVERT),
    ("saved_model.pb", "a model in TensorFlow's format", _CONVERT),
    ("*.ckpt.index", "a training state of TensorFlow", _CONVERT),
    ("*.npz", "weights as NumPy arrays, the format of JAX and MLX programs", _ORIGINAL),
    (
        "model_index.json",
        "a pipeline of diffusers",
        "mmcli reads pictures and speech, it draws nothing: choose another",
    ),
)
ARCHIVES = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"(\xb5/\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh", "a bzip2 archive"),
)
UNFINISHED = (".incomplete", ".part", ".aria2", ".crdownload", ".download", ".!qb")


def not_a_checkpoint(folder: Path, otherwise: str) -> ModelError:
    """Why `folder`, which lacks config.json or weights, is no checkpoint; `otherwise` where nothing of it is known."""
    try:
        with os.scandir(folder) as listing:
            names = sorted(entry.name for entry in islice(listing, _MOST))
    except OSError as error:
        return ModelError(f"{folder} cannot be read ({error.strerror})", "Check its permissions")
    if ADAPTER in names:
        return _adapter(folder)
    if not names:
        return ModelError(
            f"{folder} is an empty folder: it {otherwise}", "Download the model again, or name another folder"
        )
    gone = [name for name in names if not (folder / name).exists()]
    if gone:
        what = f"{folder} holds links whose content is gone ({', '.join(gone[:3])})"
        return ModelError(what, "Download the model again, or copy its folder anew with cp -rL")
    unfinished = [name for name in names if name.lower().endswith(UNFINISHED)]
    if ".cache" in names:
        unfinished += [file.name for file in below(folder / LOCAL) if file.suffix == ".incomplete"]
    if unfinished:
        return ModelError(f"{folder} holds a download that broke off ({unfinished[0]})", "Download the model again")
    return (
        _elsewhere(folder, names)
        or _other_format(folder, names)
        or ModelError(f"{folder} {otherwise}", "Download the model again, or name another folder")
    )


def _adapter(folder: Path) -> ModelError:
    base: object = ""
    try:
        with (folder / ADAPTER).open("rb") as file:
            settings = json.loads(file.read(1 << 20))
        base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else ""
    except (OSError, ValueError, RecursionError):
        pass
    of = f" of {base[:200]}" if isinstance(base, str) and base else ""
    return ModelError(
        f"{folder} holds an adapter{of} (LoRA or the like, see {ADAPTER}), not a whole model",
        "Name its base model with --model and this folder with --adapter, or merge them: "
        f"mmcli models merge BASE {folder} -o FOLDER",
    )


def _elsewhere(folder: Path, names: list[str]) -> ModelError | None:
    """The checkpoint is one level down or up."""
    below = [name for name in names if (folder / name / "config.json").is_file()]
    if below:
        others = f" or {len(below) - 1} more" if len(below) > 1 else ""
        what = f"{folder} is no model itself, but holds {'models' if others else 'one'}"
        return ModelError(what, f"Name {folder / below[0]}{others}")
    if not (folder / "config.json").is_file() and (folder.resolve().parent / "config.json").is_file():
        return ModelError(f"{folder} is a part of a model's folder", f"Name {folder.resolve().parent}")
    return None


def _other_format(folder: Path, names: list[str]) -> ModelError | None:
    for pattern, what, do in FORMATS:
        found = next((name for name in names if fnmatch(name.lower(), pattern)), None)
        if found:
            return ModelError(f"{folder} holds {what} ({found}), which mmcli does not read", do)
    pickle = next((name for name in names if any(fnmatch(name.lower(), pattern) for pattern in PICKLES)), None)
    if pickle:
        return ModelError(
            f"{folder} holds its weights only as a pickle ({pickle}), which can run code when it is opened", _PICKLE
        )
    weights = [name for name in names if name.endswith(".safetensors") and name != "mask_decoder.safetensors"]
    if weights:
        what = f"{folder} holds weights under another name than model.safetensors ({weights[0]})"
        if not (folder / "config.json").is_file():
            what = f"{folder} holds weights ({weights[0]}) without the config.json that belongs to them"
        return ModelError(what, "Name the folder as it was published, or as save_pretrained writes it")
    return None


def not_the_content(head: bytes) -> str:
    """What a file that begins with `head` is instead of what its name promises, in words; "" where that is unknown."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer and not the content, which `git lfs pull` fetches"
    if head.lstrip()[:15].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page that was saved in its place"
    return ""


def not_a_folder(path: Path) -> ModelError:
    """Why a file that was named as a model is none, and what to name instead."""
    if not path.is_file():  # a pipe or a device, which might never come to an end
        return ModelError(f"{path} is neither a folder nor a file", "Name the folder that holds config.json")
    try:
        with path.open("rb") as file:
            head = file.read(265)
    except OSError as error:
        return ModelError(f"{path} cannot be read ({error.strerror})", "Check its permissions")
    archive = next((what for magic, what in ARCHIVES if head.startswith(magic)), None)
    archive = "a tar archive" if head[257:262] == b"ustar" else archive
    name = path.name.lower()
    if archive and not any(fnmatch(name, pattern) for pattern in (*PICKLES, "*.npz")):  # which may be archives inside
        return ModelError(
            f"{path} is {archive}", "Unpack it and name the folder that holds config.json and the weights"
        )
    for pattern, what, do in FORMATS:
        if fnmatch(name, pattern):
            return ModelError(f"{path} holds {what}, which mmcli does not read", do)
    if any(fnmatch(name, pattern) for pattern in PICKLES):
        if name.startswith("pytorch_model") and (path.absolute().parent / "config.json").is_file():
            return ModelError(f"{path} is a file of weights", f"Name its folder, {path.parent}")
        return ModelError(f"{path} is a file of pickled weights, which can run code when it is opened", _PICKLE)
    if (path.absolute().parent / "config.json").is_file():
        return ModelError(
            f"{path} is a file", f"Name its folder, {path.parent}, which holds config.json and the weights"
        )
    kind = "a file of weights alone" if name.endswith(".safetensors") else "a file"
    return ModelError(f"{path} is {kind}", "Name the folder that holds config.json and the weights")
