"""How Whisper is taught: the text behind the tokens that say what to do, and its end."""

import hashlib
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mmcli.errors import InputError
from mmcli.example import Example
from mmcli.layers.attention import prefix_positions
from mmcli.models.teaching import Batch, Row, Teaching, open_audio, seen_mask
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import DecoderLayer, Whisper
from mmcli.models.whisper.processor import WhisperProcessor
from mmcli.models.whisper.vocabulary import TIME_STEP
from mmcli.speech.languages import code_of

if TYPE_CHECKING:
    from mmcli.engine.model import GenerativeModel
    from mmcli.models.loaded import Loaded

MOST_KEPT = 1 << 29  # bytes of encoded recordings that are kept from one epoch to the next
SILENCE = 0.03  # of the loudest sample: 30 dB below it
# The highest learning rates of pretraining by width, of tiny to large (Radford et al., arXiv:2212.04356, table 17).
PRETRAINED = {384: 1.5e-3, 512: 1e-3, 768: 5e-4, 1024: 2.5e-4, 1280: 1.75e-4}
SHARE = 1 / 20  # of those, by the losses on training clips set aside while tiny.en and base learned to write digits
TIMED = 0.5  # share of the recordings whose text is learned between its times, as it is written in use


class WhisperTeaching(Teaching):
    """A recording and its text. In half of the rows the text stands between times: that of the end is where the
    recording falls silent, since a manifest does not tell it."""

    adapted = ("attention.q", "attention.v", "cross.q", "cross.v")
    adapted_in = ("encoder.", "decoder.")
    head = ("decoder.norm.", "decoder.layers.")
    frozen = ("encoder.",)  # words are new far more often than sounds
    modules = ("model.",)
    checkpointed = ("encoder.layers.",)
    shared = False  # its largest fits every GPU
    lora_rate = 1e-3

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Whisper, OrderedDict[bytes, Tensor]] = WeakKeyDictionary()

    def usual_rate(self, config: WhisperConfig, lora: bool) -> float:
        """As `Teaching.usual_rate`: small models take larger steps, as when they were made."""
        return super().usual_rate(config, lora) if lora else SHARE * _rate_of_pretraining(config.width)

    def rows(self, loaded: "Loaded", example: Example, rng: random.Random, *, vary: bool = False) -> Sequence[Row]:
        """As `Teaching.rows`."""
        processor = cast(WhisperProcessor, loaded.processor)  # the family's own
        if example.task != "transcribe":
            raise InputError(f"{example.where} is for {example.task}, but this model only transcribes")
        audios = open_audio(example, processor.capabilities.max_audio_seconds)
        if len(audios) != 1 or len(example.exchanges) != 1:
            raise InputError(
                f"{example.where} has {len(audios)} recordings and {len(example.exchanges)} texts, not one"
            )
        times = rng.random() < TIMED
        prompt = processor.prompt("transcribe", _language(processor, example), None, times)
        special, text = processor.special, example.exchanges[0].answer.strip()
        words = [id for id in processor.tokenizer.encode(f" {text}" if text else "").ids if id < special.end]
        answer, learned = [*words, special.end], [True] * (len(words) + 1)
        if times:
            end = special.times + int(_spoken(audios[0]) / processor.rate / TIME_STEP)
            answer, learned = [special.times, *words, end, special.end], [True] * (len(words) + 3)
        tokens = (*prompt, *answer)
        if len(tokens) > processor.config.text_positions:
            raise InputError(
                f"The text of {example.where} is {len(words)} tokens long, more than the model writes of one recording",
                "Cut the recording into shorter ones",
            )
        features = processor.features(audios)
        return [Row(tokens, (*[False] * len(prompt), *learned), audio=(features[0],))]

    def states(self, model: "GenerativeModel", batch: Batch) -> Tensor:
        """As `Teaching.states`."""
        own = cast(Whisper, model)
        decoder, tokens = own.decoder, batch.inputs.tokens
        assert batch.inputs.audio is not None
        frames = self._encoded(own, batch.inputs.audio)
        mask = seen_mask(batch)
        x = decoder.embedding(tokens) + decoder.position[prefix_positions(batch.inputs.valid)]
        for layer in cast(Iterable[DecoderLayer], decoder.layers):
            x = x + layer.attention(layer.norm_attention(x), mask)
            x = x + layer.cross(layer.norm_cross(x), layer.cross.keys_values(frames))
            x = x + layer.mlp(layer.norm_mlp(x))
        return decoder.norm(x)

    def _encoded(self, own: Whisper, audio: Tensor) -> Tensor:
        """Log-mel windows [B, mels, 2F] → the encoder's states [B, F, D]; each once if the encoder is not trained."""
        if any(parameter.requires_grad for parameter in own.encoder.parameters()):
            return own.encoder(audio)
        kept: OrderedDict[bytes, Tensor] = self._kept.setdefault(own, OrderedDict())
        keys = [hashlib.sha256(one.float().cpu().numpy().tobytes()).digest() for one in audio]
        missing = [place for place, key in enumerate(keys) if key not in kept]
        with torch.no_grad():
            found = own.encoder(audio[missing]) if missing else audio.new_empty(0)
        kept |= {keys[place]: states for place, states in zip(missing, found, strict=True)}
        frames = torch.stack([kept[key] for key in keys])
        room = MOST_KEPT // (frames[0].numel() * frames.element_size())
        while len(kept) > room:
            kept.popitem(last=False)
        return frames

    def logits(self, model: "GenerativeModel", states: Tensor) -> Tensor:
        """As `Teaching.logits`."""
        return cast(Whisper, model).logits(states)


def _rate_of_pretraining(width: int) -> float:
    """That of the published model whose width is nearest."""
    return PRETRAINED[min(PRETRAINED, key=lambda own: abs(own - width))]


def _spoken(samples: np.ndarray) -> int:
    """How many samples there are up to the last one that is no silence beside the loudest."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max(initial=0.0))
    return int(loud[-1]) + 1 if len(loud) else 0


def _language(processor: WhisperProcessor, example: Example) -> str | None:
    """The language that an example names; English where it names none."""
    named = example.language or "en"
    return code_of(named, processor.capabilities.languages) if processor.multilingual else None
