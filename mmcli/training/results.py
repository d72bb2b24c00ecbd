"""What a run leaves: the best model, or the adapter on top of one, in a folder that every command loads."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcli.errors import WriteError
from mmcli.hub.draft import drafted
from mmcli.layers.lora import LoraConfig, LoraLinear
from mmcli.models.adapter import read_adapter, write_adapter
from mmcli.models.loaded import Loaded
from mmcli.models.saving import stored_type, write_model
from mmcli.training.shards import is_shared, put


class Results:
    """Where weights are written, and from where a run goes on."""

    def __init__(
        self, loaded: Loaded, output: Path, lora: LoraConfig | None, raw: dict[str, Any], resumed: Path | None
    ):
        """`lora` is None where whole weights are trained; `raw` is the config.json of the result."""
        self.loaded, self.output, self.lora, self.raw, self.resumed = loaded, output, lora, raw, resumed
        self.layers: dict[str, LoraLinear] = {}

    def held(self) -> dict[str, Tensor]:
        """What is written of the model, by its names in it; shared out where the model is."""
        if self.lora is None:
            return self.loaded.model.state_dict()
        return {f"{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() for part in "ab"}

    def write_checkpoint(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        """The weights as they are, whole, into a folder that is there. OSError."""
        self._write(folder, state, None)

    def write_result(self, state: Mapping[str, Tensor]) -> None:
        """The weights as the result so far, in the type in which the model's are stored, file by file. WriteError."""
        draft = self.output / ".result"
        shutil.rmtree(draft, ignore_errors=True)
        try:
            with drafted(draft) as folder:
                self._write(folder, state, stored_type(self.loaded.checkpoint.folder))
            for path in sorted(draft.iterdir()):
                os.replace(path, self.output / path.name)
            draft.rmdir()
        except OSError as error:
            what = f"{self.output} cannot be written ({error.strerror or error})"
            raise WriteError(what, "Free some space or choose another place") from error

    def _write(self, folder: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        loaded = self.loaded
        assert loaded.family is not None and loaded.family.teaching is not None
        if self.lora is None:
            write_model(loaded, folder, self.raw, dtype, state)
            return
        rules, modules = loaded.family.rules(loaded.config), loaded.family.teaching.modules
        write_adapter(folder, self.layers, self.lora, rules, modules, loaded.checkpoint.name, state)

    @torch.no_grad()
    def read(self, model: nn.Module, folder: Path) -> None:
        """Put the weights of a checkpoint of this run back."""
        loaded = self.loaded
        assert loaded.family is not None and loaded.family.teaching is not None
        if self.lora is None:
            from mmcli.hub.resolve import open_folder
            from mmcli.models.load import load

            device = torch.device("cpu") if is_shared(model) else loaded.device
            kept = load(open_folder(str(folder), folder), device, torch.float32, fused=False).model.state_dict()
            for name, tensor in model.state_dict().items():
                put(tensor, kept[name])
            return
        from mmcli.hub.weights import place

        table, found = loaded.family.rules(loaded.config), read_adapter(folder)
        for module, (a, b, _) in found.layers.items():
            name = (place(table, f"{module}.weight")[1] or "").removesuffix(".weight")
            put(self.layers[name].a, a)
            put(self.layers[name].b, b)
