"""Where a training starts: the published towers, or the finished weights of an earlier nano as far as they fit."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcli.decode import LOCATIONS, MASK_CODES


def from_towers(nano: nn.Module, path: Path) -> None:
    """Take over the two published towers, as towers.py writes them."""
    towers = load_file(path)
    for name in ("features", "detector"):
        part = {key.removeprefix(name + "."): value for key, value in towers.items() if key.startswith(name + ".")}
        getattr(nano.tower, name).load_state_dict(part)


@torch.no_grad()
def from_earlier(nano: nn.Module, weights: dict[str, Tensor], old: Tokenizer, new: Tokenizer) -> list[str]:
    """Take over an earlier nano: what fits as it is, its grid stretched, its words by their names → names left alone.

    A word that was several tokens begins as their mean.
    """
    own, left = nano.state_dict(), []
    for name, value in own.items():
        before = weights.get(name)
        if before is None:
            left.append(name)
        elif name == "decoder.embedding.weight":
            value.copy_(_embedding(before.float(), value, old, new))
        elif name == "tower.grid_position" and before.shape != value.shape:
            side, wanted = int(len(before) ** 0.5), int(len(value) ** 0.5)
            plane = before.float().T.unflatten(1, (side, side))[None]
            plane = F.interpolate(plane, size=(wanted, wanted), mode="bilinear", align_corners=False)
            value.copy_(plane[0].flatten(1).T)
        elif before.shape == value.shape:
            value.copy_(before)
        else:
            left.append(name)
    return left


def _embedding(before: Tensor, fresh: Tensor, old: Tokenizer, new: Tokenizer) -> Tensor:
    table = fresh.clone()
    names = [f"<loc{i:04d}>" for i in range(LOCATIONS)] + [f"<seg{i:03d}>" for i in range(MASK_CODES)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *names]
    for name in special:
        table[new.token_to_id(name)] = before[old.token_to_id(name)]
    places = new.token_to_id("<loc0000>")
    assert places is not None, "the new tokenizer is nano's own"
    for number in range(4, places):
        text = new.decode([number], skip_special_tokens=False)
        if "\ufffd" in text or text.startswith("<unused"):
            continue
        ids = old.encode(text).ids
        if ids:
            table[number] = before[torch.tensor(ids)].mean(0)
    return table
