"""How Gemma 3n is taught: its decoder, by conversations and recordings; the towers stay as they are."""

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from mmcli.example import Example
from mmcli.layers.attention import prefix_positions
from mmcli.models.chat_teaching import ChatTeaching
from mmcli.models.gemma3n.model import Gemma3n
from mmcli.models.gemma3n.prompts import transcription_prompt
from mmcli.models.teaching import Batch, seen_mask, within_window

if TYPE_CHECKING:
    from mmcli.engine.model import GenerativeModel
    from mmcli.models.loaded import Loaded


class KeysAndValues:
    """What a cache is to the layers while a batch is read once: each layer's keys and values, with their gradients."""

    fixed = False

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, entry: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `KVCache.append`."""
        self.entries[entry] = (k, v)
        return k, v

    def layer(self, entry: int) -> tuple[Tensor, Tensor]:
        """As `KVCache.layer`."""
        return self.entries[entry]


class Gemma3nTeaching(ChatTeaching):
    """Conversations; of a recording, its transcript."""

    modules = ("model.language_model.", "model.vision_tower.", "model.audio_tower.", "model.embed_", "model.")
    frozen = ("vision.", "audio.", "decoder.per_layer.table.", "decoder.embedding.")

    def prompt(self, loaded: "Loaded", example: Example) -> str:
        """As `ChatTeaching.prompt`; the words for recordings are the family's own."""
        if example.task == "transcribe":
            return transcription_prompt("transcribe", None, None)
        return super().prompt(loaded, example)

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """As `Teaching.states`."""
        own = cast(Gemma3n, model)
        mask, tokens = seen_mask(batch), batch.inputs.tokens
        sliding = within_window(mask, batch.prefix, own.config.text.window)
        rows = own.decoder.per_layer.table.rows(tokens, like=own.like)
        keys: Any = KeysAndValues()
        positions = prefix_positions(batch.inputs.valid)
        return own.decoder.read_all(
            own.embed_inputs(batch.inputs), rows, positions, (mask, mask if sliding is None else sliding), keys
        )
