"""The two stacks of a Transformer with encoder and decoder, as a config.json of BART's or Whisper's kind has them."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmcli.errors import ModelError


@dataclass(frozen=True)
class StackConfig:
    """The layers of one side, encoder or decoder."""

    depth: int
    heads: int
    mlp_width: int


def read_stacks(sizes: Mapping[str, int], owner: str) -> tuple[StackConfig, StackConfig]:
    """Encoder and decoder of `owner`. Raises ModelError where the width cannot be split among the heads of one."""
    stacks = []
    for side in ("encoder", "decoder"):
        width, heads = sizes["d_model"], sizes[f"{side}_attention_heads"]
        if width % heads:
            raise ModelError(f"{owner}'s {width} numbers cannot be split among {heads} heads ({side})")
        stacks.append(StackConfig(sizes[f"{side}_layers"], heads, sizes[f"{side}_ffn_dim"]))
    encoder, decoder = stacks
    return encoder, decoder
