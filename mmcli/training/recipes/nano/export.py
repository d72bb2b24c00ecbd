"""Make the bundled model of a finished training.

    python -m mmcli.training.recipes.nano.export --run FOLDER --out FOLDER

FOLDER of the run holds checkpoint.safetensors, whose parts for training alone are left out, and the model's other
files, which are copied. Matrices and kernels are kept in int8 with a scale for each row (an output channel of a
convolution), all else in float16.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmcli.hub.safetensors_files import SCALE

PREFIX = "nano."
OTHERS = ("config.json", "tokenizer.json", "mask_decoder.safetensors")
LARGEST = 127
SMALLEST = 4096  # numbers of a tensor: below this the saving is not worth the rounding
# The detector's boxes are copied by the decoder, digit by digit; it is small.
EXACT = ("tower.detector.",)


def stored(state: dict[str, Tensor], storage: str) -> dict[str, Tensor]:
    """The tensors as they are kept."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if storage == "int8" and tensor.dim() > 1 and tensor.numel() >= SMALLEST and not name.startswith(EXACT):
            rows = tensor.float().flatten(1)
            scale = (rows.abs().amax(1).clamp(min=1e-12) / LARGEST).half()
            whole = (rows / scale.float()[:, None]).round().clamp(-LARGEST, LARGEST)
            out[name], out[name + SCALE] = whole.to(torch.int8).view_as(tensor), scale
        else:
            out[name] = tensor.half()
    return {name: tensor.contiguous() for name, tensor in out.items()}


def unpacked(kept: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `stored` keeps, in floating point again."""
    out = {}
    for name, tensor in kept.items():
        if tensor.dtype == torch.int8 and name + SCALE in kept:
            scale = kept[name + SCALE].float()
            out[name] = tensor.float() * scale.view(-1, *[1] * (tensor.dim() - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in kept):
            out[name] = tensor.float()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="folder that a training wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--storage", choices=("float16", "int8"), default="int8")
    args = parser.parse_args()
    state = load_file(args.run / "checkpoint.safetensors")
    state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "model.safetensors"
    save_file(stored(state, args.storage), path)
    for name in OTHERS:
        shutil.copyfile(args.run / name, args.out / name)
    count = sum(tensor.numel() for tensor in state.values())
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {count / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
