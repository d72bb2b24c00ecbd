"""Strict loading: every tensor of the checkpoint is used or declared dropped, every parameter is filled."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mmcli.errors import ModelError
from mmcli.hub.device_tensors import DeviceTensors
from mmcli.hub.quantized import meant_in, multiplied
from mmcli.hub.safetensors_files import ITEM_BYTES, SCALE, TensorInfo, damaged
from mmcli.hub.weight_files import header_of, index_of, names_in_index, open_weights, weight_files

HELD = 16 << 20  # bytes read of a mapped file, and kept in another form, until it is opened anew
COMPARED_ROWS = 64  # of a tied tensor: enough to find a head that was trained on its own


class MakesBuffers(Protocol):
    """A module whose buffers follow from its configuration."""

    def reset_buffers(self, device: torch.device) -> None:
        """Make them on `device`."""
        ...


@dataclass(frozen=True)
class Rule:
    """One line of a family's table: a checkpoint name → our name.

    `{}` stands for one part of the dotted path (a layer's number) and is filled into `target` in order.
    A `target` of None drops the tensor on purpose. `copy_of` drops it too, but only where it has the shape and the
    values of that parameter: the tied head that some checkpoints store twice. `refused` says what a checkpoint with
    such a tensor is, and what to do: none of them loads.
    """

    pattern: str
    target: str | None
    copy_of: str | None = None
    refused: tuple[str, str] | None = None

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.pattern).replace(r"\{\}", r"([^.]+)"))

    def match(self, name: str) -> tuple[str, ...] | None:
        """What stands in the places of `{}`, or None where the rule does not apply."""
        found = self._expression.fullmatch(name)
        return found.groups() if found else None


def load_strict(
    module: nn.Module,
    folder: Path,
    rules: Iterable[Rule],
    device: torch.device,
    dtype: torch.dtype,
    mapped: frozenset[str] = frozenset(),
) -> None:
    """Fill `module`, which was built on the meta device, from the weight files in `folder`.

    Files are memory-mapped and tensors are assigned one by one, cast once, so there is never a second copy of the
    whole. Those named in `mapped` (see `kept_mapped`) stay in the file as they are, mapped into the CPU's memory.
    Quantised tensors (see `mmcli.hub.quantized`) are multiplied out. Raises ModelError where names, shapes or files do
    not fit, before anything is read where possible.
    """
    table = list(rules)
    wanted = module.state_dict()
    filled: dict[str, str] = {}  # our name → name in the checkpoint
    copies: list[tuple[Path, str, str]] = []
    plan: list[tuple[Path, str, str]] = []
    unknown: list[str] = []
    for path, name, info in _tensors(folder):
        rule, target = place(table, name)
        if rule is not None and rule.refused is not None:
            what, remedy = rule.refused
            raise ModelError(f"{folder} {what}", remedy)
        if rule is None or (target is not None and target not in wanted):
            unknown.append(name)
        elif rule.copy_of is not None:
            _check_fit(name, info, rule.copy_of, wanted, folder)
            copies.append((path, name, rule.copy_of))
        elif target is not None:
            _check_fit(name, info, target, wanted, folder)
            if target in filled:
                raise ModelError(f"{folder} holds {target} twice, as {filled[target]} and as {name}")
            filled[target] = name
            plan.append((path, name, target))
    if unknown:
        raise ModelError(f"{folder} holds {_some(unknown)}, for which its config.json leaves no place")
    missing = [name for name in wanted if name not in filled]
    if missing:
        raise ModelError(f"{folder} lacks the weights of {_some(missing)}", "Download the model again")
    _read(module, [line for line in plan if line[2] not in mapped], device, dtype)
    _read(module, [line for line in plan if line[2] in mapped], torch.device("cpu"), None)
    _check_copies(copies, {target: (path, name) for path, name, target in plan})
    _settle(module, device)


class Mapped(nn.Module):
    """A part whose tensors stay in the file, mapped into memory, unless the loader is asked not to.

    It suits large tables of which a step reads some rows; such a part reads them wherever they lie, in any type.
    """


class TakesWeights(nn.Module):
    """A part that keeps the weights it is given in a form of its own."""

    def take(self, name: str, tensor: Tensor, scale: Tensor | None, dtype: torch.dtype) -> None:
        """Take what a file holds for the parameter `name`, on the device already: with a `scale` it is in integers.

        `dtype` is the type of the model's other weights.
        """
        raise NotImplementedError


def kept_mapped(module: nn.Module) -> frozenset[str]:
    """Our names of what should stay in the file: the tensors of all parts that are `Mapped`."""
    return frozenset(
        f"{name}.{own}"
        for name, part in module.named_modules()
        if isinstance(part, Mapped)
        for own in part.state_dict()
    )


def _tensors(folder: Path) -> Iterator[tuple[Path, str, TensorInfo]]:
    """(file, name, type and shape) of every tensor, quantised ones as what they mean.

    An index that names what is not there raises ModelError.
    """
    seen: set[str] = set()
    files = weight_files(folder)
    for path in files:
        header = header_of(path)
        seen.update(header)
        for name, info in meant_in(path, header):
            yield path, name, info
    index = index_of(files)
    absent = sorted(names_in_index(index) - seen) if index else []
    if index and absent:
        raise ModelError(f"{folder} lists {_some(absent)} in {index.name}, but no file holds it")


def place(table: list[Rule], name: str) -> tuple[Rule | None, str | None]:
    """The first rule that applies to a checkpoint's tensor, and the name it gives it (None: dropped)."""
    for rule in table:
        parts = rule.match(name)
        if parts is not None:
            return rule, None if rule.target is None else rule.target.format(*parts)
    return None, None


def _check_fit(name: str, info: TensorInfo, target: str, wanted: dict[str, Tensor], folder: Path) -> None:
    expected = tuple(wanted[target].shape)
    if info.shape != expected:
        raise ModelError(
            f"In {folder}, {name} has the shape {list(info.shape)}, but {target} needs {list(expected)} "
            "by its config.json"
        )
    if info.is_floating_point != wanted[target].is_floating_point():
        raise ModelError(f"In {folder}, {name} is of the type {info.dtype}, in which {target} cannot be")


def _read(
    module: nn.Module, plan: list[tuple[Path, str, str]], device: torch.device, dtype: torch.dtype | None
) -> None:
    for path in dict.fromkeys(path for path, _, _ in plan):
        own_plan = [line[1:] for line in plan if line[0] == path]
        try:
            for piece in _pieces(module, own_plan, header_of(path), device, dtype):
                with open_weights(path, device) as file:
                    names = set(file.keys())
                    if isinstance(file, DeviceTensors):
                        file.expect(name for name, _ in piece)
                    for name, target in piece:
                        _read_one(module, file, name, target, name + SCALE in names, dtype)
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from error


def _pieces(
    module: nn.Module,
    plan: list[tuple[str, str]],
    header: dict[str, TensorInfo],
    device: torch.device,
    dtype: torch.dtype | None,
) -> Iterator[list[tuple[str, str]]]:
    """(name in the file, our name) of the tensors that are read before the file is opened anew.

    What was read of a mapped file counts as this process's memory until it is closed: where a CPU's weights are kept in
    a form of their own, the file and these would be held side by side.
    """
    piece: list[tuple[str, str]] = []
    held = 0
    for name, target in plan:
        piece.append((name, target))
        part = module.get_submodule(target.rpartition(".")[0])
        if device.type == "cpu" and dtype is not None and isinstance(part, TakesWeights):
            held += header[name].count * ITEM_BYTES[header[name].dtype]
        if held >= HELD:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


def _read_one(module: nn.Module, file: Any, name: str, target: str, has_scale: bool, dtype: torch.dtype | None) -> None:
    tensor = file.get_tensor(name)
    scale = file.get_tensor(name + SCALE) if has_scale and not tensor.is_floating_point() else None
    owner, _, own = target.rpartition(".")
    part = module.get_submodule(owner)
    if isinstance(part, TakesWeights) and dtype is not None:
        part.take(own, tensor, scale, dtype)
    else:
        _assign(part, own, tensor if scale is None else multiplied(tensor, scale), dtype)


def _assign(part: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype | None) -> None:
    """Put one tensor in the place of a parameter or buffer; only floating-point ones are cast (None: none)."""
    tensor = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    if name in part._parameters:
        part._parameters[name] = nn.Parameter(tensor, requires_grad=False)
    else:
        part._buffers[name] = tensor


def _check_copies(copies: list[tuple[Path, str, str]], sources: dict[str, tuple[Path, str]]) -> None:
    """Compare evenly spread rows of what is dropped as a copy with what was kept, as they stand in the files."""
    for path, name, target in copies:
        kept_path, kept_name = sources[target]
        with open_weights(path) as file, open_weights(kept_path) as kept_file:
            copy, kept = file.get_slice(name), kept_file.get_slice(kept_name)
            rows = copy.get_shape()[0]
            same = all(torch.equal(copy[row], kept[row]) for row in range(0, rows, max(1, rows // COMPARED_ROWS)))
        if not same:
            raise ModelError(
                f"{name} in {path} differs from {kept_name}, of which it should be a copy",
                "Models with a head of their own (untied) are not supported",
            )


def _settle(module: nn.Module, device: torch.device) -> None:
    """Fill buffers that checkpoints do not store (a module that has some makes them), and switch training off."""
    for part in module.modules():
        if any(buffer is not None and buffer.is_meta for buffer in part._buffers.values()):
            cast(MakesBuffers, part).reset_buffers(device)
    module.eval().requires_grad_(False)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + rest
