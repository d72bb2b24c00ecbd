"""A Whisper of published size with random weights, made on the device, in mmcli and in transformers; needs no files.

    python tests/bench/speech.py --random large-v3-turbo --device cuda --batch 16

Both sides get the same weights and the same log-mel windows of 30 seconds, and write the same number of tokens, for
random weights never stop by themselves. Each is timed whole (windows to tokens), for encoding alone, and for a quarter
of the tokens: what the rest takes more is that of steps.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sides import finished
from tables import middle, ratio, seconds_text
from worker import copy_rate

from mmcli.output.tables import bytes_text, table

SECONDS = 30  # of a window
# width, encoder layers, decoder layers, heads, mels, rows of the vocabulary
SIZES = {
    "mini": (64, 2, 2, 2, 80, 51865), "tiny": (384, 4, 4, 6, 80, 51865), "base": (512, 6, 6, 8, 80, 51865),
    "small": (768, 12, 12, 12, 80, 51865), "medium": (1024, 24, 24, 16, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866), "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
}  # fmt: skip


def raw_config(size: str) -> dict[str, Any]:
    """config.json of a published size."""
    width, encoder, decoder, heads, mels, rows = SIZES[size]
    return {
        "model_type": "whisper", "d_model": width, "encoder_layers": encoder, "decoder_layers": decoder,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width, "num_mel_bins": mels, "vocab_size": rows, "max_source_positions": 1500,
        "max_target_positions": 448, "decoder_start_token_id": 50258, "eos_token_id": 50257, "bos_token_id": 50257,
        "pad_token_id": 50257,
    }  # fmt: skip


def special_tokens(rows: int) -> Any:
    """The ids of the published multilingual vocabulary; behind `no_times` come the 1501 times."""
    from mmcli.models.whisper.vocabulary import Special

    return Special(
        end=50257, start=50258, languages={"en": 50259}, translate=rows - 1508, transcribe=rows - 1507,
        previous=rows - 1504, no_speech=rows - 1503, no_times=rows - 1502, suppressed=(1, 2, 7, 50258),
        suppressed_first=(220, 50257), latest_first_time=50, alignment_heads=None,
    )  # fmt: skip


class Ours:
    """mmcli's Whisper and engine, with the rules for times and all."""

    def __init__(self, size: str, device: Any, dtype: Any):
        import torch

        from mmcli.layers.fusing import fuse
        from mmcli.models.load import build_empty
        from mmcli.models.whisper import FAMILY

        self.config = FAMILY.read_config(raw_config(size))
        self.model = build_empty(FAMILY, self.config).to(dtype).to_empty(device=device)
        self.model.eval().requires_grad_(False)
        generator = torch.Generator(device).manual_seed(0)
        for name, weight in self.model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.02, generator=generator)
            else:
                weight.fill_(float("norm" in name and name.endswith("weight")))
        self.weights = {name: weight.clone() for name, weight in self.model.named_parameters()}
        fuse(self.model)
        self.special = special_tokens(self.config.vocabulary)
        self.prompt = [self.config.start, self.special.languages["en"], self.special.transcribe]

    def encode(self, features: Any) -> Any:
        return self.model.encode(features)

    def answer(self, features: Any, tokens: int) -> list[list[int]]:
        import torch

        from mmcli.engine.generate import generate
        from mmcli.engine.inputs import Inputs
        from mmcli.models.whisper.recorded_rules import RecordedWritingRules
        from mmcli.models.whisper.rules import WritingRules

        rows = len(features)
        prompts = torch.tensor([self.prompt] * rows, device=features.device)
        inputs = Inputs(prompts, torch.ones_like(prompts, dtype=torch.bool), context=self.model.encode(features))
        rules = WritingRules(self.special, True, features.device, [SECONDS] * rows)
        recorded = RecordedWritingRules(rules, rows, self.config.vocabulary, features.device)
        steps = generate(
            self.model, inputs, stop_ids=frozenset(), max_tokens=tokens, rules=rules, drop_ended=True, recorded=recorded
        )
        written = [[event.id for event in step] for step in steps]
        return [list(row) for row in zip(*written, strict=True)]

    def read_each_step(self, rows: int, tokens: int) -> int:
        """Bytes that one step reads: the decoder's weights with its head, and the keys and values of audio and text."""
        decoder, config = self.model.decoder, self.config
        weights = sum(weight.numel() for name, weight in decoder.named_parameters() if name != "position")
        places = config.audio_positions + len(self.prompt) + tokens // 2
        pairs = 2 * config.decoder.depth * rows * places * config.width
        return (weights + pairs) * decoder.position.element_size()


class Theirs:
    """transformers, as it comes."""

    def __init__(self, size: str, device: Any, dtype: Any, weights: dict[str, Any]):
        import torch
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        from mmcli.hub.weights import place
        from mmcli.models.whisper import FAMILY

        raw = raw_config(size)
        config = WhisperConfig(**raw, suppress_tokens=None, begin_suppress_tokens=None)
        with torch.device("meta"):
            self.model = WhisperForConditionalGeneration(config)
        self.model = self.model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
        self.model.tie_weights()
        rules = FAMILY.rules(FAMILY.read_config(raw))
        for name, tensor in self.model.named_parameters():
            target = place(rules, name)[1]
            tensor.copy_(weights[target])

    def encode(self, features: Any) -> Any:
        return self.model.model.encoder(features.to(self.model.dtype)).last_hidden_state

    def answer(self, features: Any, tokens: int, prompt: list[int]) -> list[list[int]]:
        import torch
        from transformers import GenerationMixin

        start = torch.tensor([prompt] * len(features), device=features.device)
        written = GenerationMixin.generate(
            self.model, input_features=features.to(self.model.dtype), decoder_input_ids=start, do_sample=False,
            max_new_tokens=tokens, min_new_tokens=tokens, use_cache=True,
        )  # fmt: skip
        return written[:, len(prompt) :].tolist()


def write_folder(folder: Path, theirs: Theirs) -> None:
    """The same weights as a checkpoint, with a tokenizer that knows the first ids only."""
    from transformers import WhisperFeatureExtractor
    from whisper_folders import special_names, tiny_tokenizer

    theirs.model.save_pretrained(folder)
    tokenizer = tiny_tokenizer(multilingual=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    WhisperFeatureExtractor(feature_size=theirs.model.config.num_mel_bins).save_pretrained(folder)
    ids = {name: tokenizer.token_to_id(name) for name in special_names(multilingual=True)}
    languages = {"<|en|>": ids["<|en|>"]}
    settings = {"no_timestamps_token_id": ids["<|notimestamps|>"], "is_multilingual": True, "lang_to_id": languages}
    (folder / "generation_config.json").write_text(json.dumps(settings))


def loading(theirs: Theirs, device: Any, dtype: Any, repeats: int) -> dict[str, list[float]]:
    """Seconds of each side from a folder, which is in memory, to a model on the device."""
    from transformers import WhisperForConditionalGeneration

    from mmcli.hub.resolve import resolve
    from mmcli.models.load import load

    name = str(dtype).removeprefix("torch.")
    placed = {"device_map": device} if find_spec("accelerate") else {}
    with tempfile.TemporaryDirectory(prefix="mmcli-bench-") as folder:
        write_folder(Path(folder), theirs)
        works: dict[str, Callable[[], Any]] = {
            "mmcli": lambda: load(resolve(folder), device, name),
            "transformers": lambda: WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype, **placed).to(
                device
            ),
        }
        return {side: timed(device, work, repeats) for side, work in works.items()}


def timed(device: Any, work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each repetition after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = finished(device)
        work()
        times.append(finished(device) - start)
    return times


def main(given: argparse.Namespace) -> None:
    """Measure and print."""
    import torch

    from mmcli.engine.device import choose_device, choose_dtype

    device = choose_device(given.device)
    dtype = choose_dtype(given.dtype, device)
    if device.type == "cpu":
        torch.set_num_threads(given.threads)
    with torch.inference_mode():
        ours = Ours(given.random, device, dtype)
        sides: dict[str, Any] = {"mmcli": ours}
        try:
            sides["transformers"] = Theirs(given.random, device, dtype, ours.weights)
        except ImportError:
            print("transformers is not installed: mmcli alone")
        ours.weights = {}
        generator = torch.Generator(device).manual_seed(1)
        shape = given.batch, ours.config.mels, ours.config.frames
        features = torch.randn(shape, generator=generator, device=device) * 0.4
        samples: dict[str, Samples] = {}
        for name, side in sides.items():
            more = () if side is ours else (ours.prompt,)

            def write(tokens: int, side: Any = side, more: Any = more) -> Any:
                return side.answer(features, tokens, *more)

            encoding = timed(device, lambda side=side: side.encode(features), given.rounds)
            whole, part = (timed(device, partial(write, count), given.rounds) for count in counts(given))
            samples[name] = Samples(encoding, whole, part)
        copy = copy_rate(device)
    theirs = sides.get("transformers")
    loads = {} if theirs is None else loading(theirs, device, dtype, given.rounds)
    print(report(given, ours, device, samples, copy, loads))


class Samples(NamedTuple):
    """Seconds of each repetition."""

    encoding: list[float]
    whole: list[float]
    part: list[float]  # the same with fewer tokens


def counts(given: argparse.Namespace) -> tuple[int, int]:
    """Tokens of a whole answer and of a part."""
    return given.tokens, max(1, given.tokens // 4)


def report(
    given: argparse.Namespace,
    ours: Ours,
    device: Any,
    samples: dict[str, Samples],
    copy: float,
    loads: dict[str, list[float]],
) -> str:
    import torch

    whole = {side: own.whole for side, own in samples.items()}
    encoding = {side: own.encoding for side, own in samples.items()}

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {given.threads} threads"
    kind = str(ours.model.decoder.position.dtype).removeprefix("torch.")
    audio = given.batch * SECONDS
    steps = {
        side: [(total - statistics.median(own.part)) / (given.tokens - counts(given)[1]) for total in own.whole]
        for side, own in samples.items()
    }
    rates = {side: [given.batch / one for one in each] for side, each in steps.items()}
    speeds = {side: [audio / one for one in each] for side, each in whole.items()}
    rows = [("", *whole, *(["ratio"] if len(whole) == 2 else []))]
    for label, samples, form in (
        ("loading", loads, seconds_text),
        ("windows to tokens", whole, seconds_text),
        ("encoding alone", encoding, seconds_text),
        ("a step of decoding", steps, seconds_text),
        ("tokens/s while decoding", rates, lambda value: f"{value:,.0f}"),
        ("times real time", speeds, lambda value: f"{value:.0f}"),
    ):
        columns = [column for column in samples.values() if column]
        if not columns:
            continue
        rows.append((label, *(middle(each, form) for each in columns), *([ratio(*columns)] if columns[1:] else [])))
    read = ours.read_each_step(given.batch, given.tokens)
    shares = ", ".join(f"{side} {read / statistics.median(each) / copy:.0%}" for side, each in steps.items())
    return (
        f"Whisper {given.random}, random weights, on {name} in {kind}: batch {given.batch} windows of {SECONDS} s, "
        f"{given.tokens} tokens each\n\n{table(rows)}"
        f"a step must read {bytes_text(read)}; share of what a copy within the memory moves "
        f"({bytes_text(copy)}/s): {shares}"
    )
