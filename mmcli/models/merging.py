"""A model and a LoRA adapter into one folder."""

import os
from dataclasses import replace
from pathlib import Path

from mmcli.errors import UsageError, WriteError
from mmcli.hub.draft import drafted
from mmcli.hub.quantized import QUANTIZED
from mmcli.hub.resolve import Checkpoint
from mmcli.models.load import load
from mmcli.models.saving import stored_type, write_model


def merge_into(checkpoint: Checkpoint, adapter: Path, target: Path) -> None:
    """Write `checkpoint` with the adapter merged into it as the folder `target`, whole or not at all.

    Products are added to float32 weights, which are rounded once. Integers are multiplied out for that, and the result
    has none: its weights would have to be rounded to them once more, which would cost some of what was learned. Raises
    ModelError for an adapter that does not fit, UsageError where `target` exists, WriteError where the disk does not
    take it.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already, and nothing is written over", "Name a folder that is not there")
    kind = stored_type(checkpoint.folder)
    loaded = load(replace(checkpoint, adapter=adapter), "cpu", kind, fused=False, quantize="none")
    config = {name: value for name, value in checkpoint.config.items() if name != QUANTIZED}
    try:
        with drafted(target) as draft:
            write_model(loaded, draft, config)
    except OSError as error:
        raise WriteError(f"{target} cannot be written ({error.strerror or error})", "Choose another place") from error
