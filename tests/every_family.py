"""A small checkpoint of every family, with random weights."""

from contextlib import nullcontext
from pathlib import Path

import florence2_folders
import fuyu_folders
import gemma3n_folders
import gemma3n_models
import minicpmv_folders
import mllama_folders
import omnilmm_folders
import smolvlm_folders
import support
import whisper_folders

from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.models.loaded import Loaded

FAMILIES = (
    "paligemma",
    "paligemma 2",
    "gemma3n",
    "whisper",
    "nano",
    "minicpmv",
    "omnilmm",
    "mllama",
    "smolvlm",
    "fuyu",
    "florence2",
)


def write_family(folder: Path, name: str) -> Path:
    """Write one as `transformers` saves it, where that knows the family; nano is not made anew."""
    if name == "gemma3n":
        gemma3n_folders.write_checkpoint(folder, gemma3n_models.tiny_reference())
        gemma3n_folders.write_processor(folder, side=128)  # the tower has weights of one shape for all sizes
    elif name == "florence2":
        florence2_folders.write_checkpoint(folder, florence2_folders.tiny_reference())
    elif name == "fuyu":
        fuyu_folders.write_checkpoint(folder, fuyu_folders.tiny_reference(fuyu_folders.tiny_config()))
    elif name == "minicpmv":
        minicpmv_folders.write_folder(folder, "2.0")
    elif name == "omnilmm":
        omnilmm_folders.write_folder(folder, 1)
    elif name == "mllama":
        mllama_folders.write_checkpoint(folder, mllama_folders.tiny_reference())
    elif name == "smolvlm":
        smolvlm_folders.write_checkpoint(folder, "smolvlm", smolvlm_folders.tiny_reference("smolvlm"))
    elif name == "whisper":
        whisper_folders.write_checkpoint(folder, seed=3)  # its answers depend on the audio
    else:
        support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(name == "paligemma 2")))
    return folder


def load_family(folder: Path, name: str, device: str, dtype: str = "float32") -> Loaded:
    """Write one and load it: Gemma 3n's image tower has fewer blocks than configurations can say."""
    checkpoint = resolve(str(write_family(folder, name)))
    with gemma3n_models.shallow_tower() if name == "gemma3n" else nullcontext():
        return load(checkpoint, device, dtype)
