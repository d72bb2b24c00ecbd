"""A model and a LoRA adapter into one folder."""

import os
from dataclasses import replace
from pathlib import Path

from mmcli.errors import UsageError, WriteError
from mmcli.hub.draft import drafted
from mmcli.hub.resolve import Checkpoint
from mmcli.models.load import load
from mmcli.models.saving import stored_type, write_model


def merge_into(checkpoint: Checkpoint, adapter: Path, target: Path) -> None:
    """Write `checkpoint` with the adapter merged into it as the folder `target`, whole or not at all.

    Products are added to float32 weights, which are rounded once. Raises ModelError for an adapter that does not fit,
    UsageError where `target` exists, WriteError where the disk does not take it.
    """
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already, and nothing is written over", "Name a folder that is not there")
    loaded = load(replace(checkpoint, adapter=adapter), "cpu", stored_type(checkpoint.folder), fused=False)
    try:
        with drafted(target) as draft:
            write_model(loaded, draft)
    except OSError as error:
        raise WriteError(f"{target} cannot be written ({error.strerror or error})", "Choose another place") from error
