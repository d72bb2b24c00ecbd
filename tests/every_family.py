"""A small checkpoint of every family, with random weights."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

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


# Sizes with which all of a decoder's weights can be kept in integers: 32 columns share a scale.
LLAMA = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
BART = {"d_model": 64, "decoder_attention_heads": 4, "decoder_ffn_dim": 96}
GROUPED: dict[str, dict[str, Any]] = {
    "paligemma": LLAMA,
    "paligemma 2": LLAMA,
    "gemma3n": {"hidden_size": 64, "intermediate_size": [64, 96, 64, 96, 64, 32, 64], "laurel_rank": 32}
    | {"hidden_size_per_layer_input": 32},
    "whisper": BART,
    "mllama": LLAMA,
    "smolvlm": LLAMA | {"head_dim": 16},
    "fuyu": LLAMA,
    "florence2": BART | {"projection_dim": 64},
}


def write_family(folder: Path, name: str, grouped: bool = False) -> Path:
    """Write one as `transformers` saves it, where that knows the family; nano is not made anew.

    With `grouped` it has the sizes that integers of weights need.
    """
    sizes = GROUPED.get(name, {}) if grouped else {}
    if name == "gemma3n":
        gemma3n_folders.write_checkpoint(folder, gemma3n_models.tiny_reference(**sizes))
        gemma3n_folders.write_processor(folder, side=128)  # the tower has weights of one shape for all sizes
    elif name == "florence2":
        florence2_folders.write_checkpoint(folder, florence2_folders.tiny_reference(**sizes))
    elif name == "fuyu":
        fuyu_folders.write_checkpoint(folder, fuyu_folders.tiny_reference(fuyu_folders.tiny_config(**sizes)))
    elif name == "minicpmv":
        minicpmv_folders.write_folder(folder, "2.0")
    elif name == "omnilmm":
        omnilmm_folders.write_folder(folder, 1)
    elif name == "mllama":
        mllama_folders.write_checkpoint(folder, mllama_folders.tiny_reference(**sizes))
    elif name == "smolvlm":
        smolvlm_folders.write_checkpoint(folder, "smolvlm", smolvlm_folders.tiny_reference("smolvlm", **sizes))
    elif name == "whisper":
        whisper_folders.write_checkpoint(folder, seed=3, **sizes)  # its answers depend on the audio
    else:
        support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(name == "paligemma 2", **sizes)))
    return folder


def load_family(folder: Path, name: str, device: str, dtype: str = "float32") -> Loaded:
    """Write one and load it: Gemma 3n's image tower has fewer blocks than configurations can say."""
    checkpoint = resolve(str(write_family(folder, name)))
    with gemma3n_models.shallow_tower() if name == "gemma3n" else nullcontext():
        return load(checkpoint, device, dtype)
