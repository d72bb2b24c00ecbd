"""Put back in int8 the matrices of a Whisper that bear 4-bit integers worst.

    python -m mmcli.training.recipes.whisper.sensitivity FLOAT16 QUANTISED --audio FOLDER --bytes 5900000 --folder NEW

QUANTISED is what `quantize` made of the checkpoint FLOAT16; FOLDER holds recordings as for `quantize`. How far rounding
a matrix moves the distribution of tokens is, to second order, half the mean of (∇ log p · Δ)², where Δ is the
change and log p that of tokens drawn from the model itself: its Fisher information. One pass backwards a window serves
all matrices. They are taken by what they win a byte, as long as there are bytes.
"""

import argparse
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcli.engine.kv_cache import KVCache
from mmcli.hub.resolve import resolve
from mmcli.hub.safetensors_files import SCALE
from mmcli.hub.weights import place
from mmcli.models.load import load
from mmcli.models.whisper.model import DecoderLayer, EncodedAudio, Whisper
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.weights import rules
from mmcli.output.tables import table
from mmcli.training.recipes.whisper.convert import int8_rows, sha256
from mmcli.training.recipes.whisper.quantize import Sample, samples

PROMPT = 3  # tokens that nobody predicts: the start, the language, the task

Change = Mapping[str, Tensor]  # of parameters, by our names


class _OneReading(KVCache):
    """A cache for one reading, through whose keys and values gradients pass: nothing is written over."""

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v


def divergences(
    model: Whisper, changes: Mapping[str, Change], speech: Iterable[tuple[Tensor, list[int]]]
) -> dict[str, float]:
    """How far each of some changes would move the distribution of a token, alone: Kullback-Leibler divergences.

    `speech` are log-mel windows [1, mels, 2F], and the tokens that the decoder reads for them, the prompt's first. The
    model is in float32 and not fused.
    """
    generator = torch.Generator().manual_seed(0)
    names = [name for change in changes.values() for name in change]
    parameters = [model.get_parameter(name).requires_grad_(True) for name in names]
    found, count = dict.fromkeys(changes, 0.0), 0
    for features, tokens in speech:
        logits = logits_behind(model, features, tokens)[PROMPT - 1 : -1]
        drawn = torch.multinomial(logits.detach().softmax(dim=-1), 1, generator=generator)
        likely = logits.log_softmax(dim=-1).gather(1, drawn).sum()
        slopes = dict(zip(names, torch.autograd.grad(likely, parameters), strict=True))
        for of, change in changes.items():
            found[of] += sum(float((slopes[name] * moved).sum()) for name, moved in change.items()) ** 2
        count += len(drawn)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return {of: value / 2 / count for of, value in found.items()}


def logits_behind(model: Whisper, features: Tensor, tokens: list[int]) -> Tensor:
    """Logits [T, V] behind each of the tokens [T]."""
    config, stack = model.config, model.config.decoder
    states = model.encoder(features)
    width = config.width // stack.heads
    cache = _OneReading(stack.depth, 1, len(tokens), stack.heads, width, states.dtype, states.device)
    layers = cast(Iterable[DecoderLayer], model.decoder.layers)
    cache.context = EncodedAudio([layer.cross.keys_values(states) for layer in layers])
    return model.logits(model.read(torch.tensor([tokens]), None, cache))[0]


def changes_of(exact: nn.Module, rounded: nn.Module, matrices: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """What rounding changed in each matrix and in the bias that makes up for it, by the matrix's name."""
    here, there = dict(exact.named_parameters()), dict(rounded.named_parameters())
    found = {}
    for name in matrices:
        both = (name, name.removesuffix("weight") + "bias")
        found[name] = {one: (there[one] - here[one]).detach() for one in both if one in here}
    return found


def chosen(worth: Mapping[str, float], costs: Mapping[str, int], budget: int) -> list[str]:
    """The names that win most a byte, as long as their costs stay within the budget."""
    taken, left = [], budget
    for name in sorted(worth, key=lambda name: worth[name] / costs[name], reverse=True):
        if costs[name] <= left:
            taken.append(name)
            left -= costs[name]
    return taken


def mended(exact: Mapping[str, Tensor], rounded: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The rounded checkpoint with some matrices in int8, their biases as they were."""
    found = dict(rounded)
    for name in names:
        found[name], found[name + SCALE] = map(torch.from_numpy, int8_rows(exact[name].numpy()))
        bias = name.removesuffix("weight") + "bias"
        if bias in found:
            found[bias] = exact[bias].half()
    return {name: value.contiguous() for name, value in found.items()}


def bytes_more(exact: Tensor, stored: Tensor, scale: Tensor) -> int:
    """What a matrix takes in int8, a float16 scale a row, beyond what it takes now."""
    return exact.numel() + 2 * len(exact) - stored.nbytes - scale.nbytes


def mend_folder(source: Path, quantised: Path, speech: list[Sample], budget: int, folder: Path) -> Path:
    """Write the checkpoint with the matrices chosen for `speech`; returns its weight file."""
    loaded, other = (load(resolve(str(one)), "cpu", torch.float32, fused=False) for one in (source, quantised))
    model, processor = loaded.model, loaded.processor
    assert isinstance(model, Whisper) and isinstance(processor, WhisperProcessor)
    exact, rounded = (load_file(one / "model.safetensors") for one in (source, quantised))
    matrices = {
        name: place(rules(model.config), name)[1] or "" for name, value in rounded.items() if value.dtype == torch.uint8
    }
    changes = changes_of(model, other.model, matrices.values())
    found = divergences(model, changes, [(processor.features([one.audio]), one.tokens) for one in speech])
    worth = {name: found[ours] for name, ours in matrices.items()}
    costs = {name: bytes_more(exact[name], rounded[name], rounded[name + SCALE]) for name in matrices}
    names = chosen(worth, costs, budget)
    rows = [(name, f"{worth[name]:.2e}", f"{costs[name]:,}", "int8" if name in names else "") for name in
            sorted(worth, key=lambda name: worth[name] / costs[name], reverse=True)]  # fmt: skip
    print(table([("matrix", "divergence a token", "bytes more", ""), *rows]), end="")
    folder.mkdir(parents=True, exist_ok=True)
    for path in quantised.glob("*.json"):
        shutil.copy(path, folder)
    path = folder / "model.safetensors"
    save_file(mended(exact, rounded, names), path, metadata={"format": "pt"})
    path.chmod(0o644)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the checkpoint in float16")
    parser.add_argument("quantised", type=Path, help="the same, quantised")
    parser.add_argument("--audio", type=Path, required=True, help="recordings in folders of their languages")
    parser.add_argument("--bytes", type=int, required=True, help="by how many the weight file may grow")
    parser.add_argument("--folder", type=Path, required=True, help="what to make")
    given = parser.parse_args()
    speech = samples(str(given.quantised), given.audio)
    print(f"{len(speech)} windows, {sum(len(sample.tokens) for sample in speech)} tokens")
    path = mend_folder(given.source, given.quantised, speech, given.bytes, given.folder)
    print(f"model.safetensors  sha256 {sha256(path)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
