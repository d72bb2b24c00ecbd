"""A loaded model back into a folder that every command reads, and the reference too."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcli.hub.layout import PATTERNS
from mmcli.hub.safetensors_files import SINGLE
from mmcli.hub.save import save_weights
from mmcli.hub.weight_files import header_of, weight_files
from mmcli.models.loaded import MASK_DECODERS, Loaded

COMPANIONS = (*PATTERNS, "LICENSE*", "NOTICE*", *MASK_DECODERS)
WEIGHTS = ("*.index.json", "adapter_config.json")
TYPES = {"F32": torch.float32, "F64": torch.float32, "BF16": torch.bfloat16}  # others become float16


def stored_type(folder: Path) -> torch.dtype:
    """The type in which most of a checkpoint's numbers are stored; that of 8- and 4-bit integers is float16."""
    count: Counter[str] = Counter()
    for path in weight_files(folder):
        for info in header_of(path).values():
            count[info.dtype] += info.count
    return TYPES.get(count.most_common(1)[0][0], torch.float16)


def write_model(
    loaded: Loaded,
    folder: Path,
    raw: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model that was loaded without fusing into a folder that is there: its weights, and what belongs to them.

    `raw` is its config.json where that is to change, `dtype` the type of the floating-point weights where they are not
    to be written as they are; `state` are the weights where the model holds only its share of them. Raises OSError.
    """
    source = loaded.checkpoint.folder
    for path in sorted(source.iterdir()):
        if path.is_file() and _goes_along(path.name):
            shutil.copyfile(path, folder / path.name)
    config = dict(loaded.checkpoint.config if raw is None else raw)
    kind = str(dtype or loaded.dtype).removeprefix("torch.")
    for name in ("torch_dtype", "dtype"):
        if name in config:
            config[name] = kind
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    assert loaded.family is not None
    state = loaded.model.state_dict() if state is None else state
    save_weights(state, folder / SINGLE, loaded.family.rules(loaded.config), dtype)


def _goes_along(name: str) -> bool:
    weights = fnmatch(name, "*.safetensors") and name not in MASK_DECODERS
    weights = weights or any(fnmatch(name, one) for one in WEIGHTS)
    return not weights and any(fnmatch(name, one) for one in COMPANIONS)
