"""What goes into PaliGemma and what comes out: squeezed pictures, prompts with soft-token places, text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from mmcli.decode import LOCATIONS, MASK_CODES, Vocabulary
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError, UsageError
from mmcli.hub.resolve import read_json
from mmcli.models.paligemma.config import PaliGemmaConfig

PROMPTS = {"caption": "caption en", "detect": "detect {}", "segment": "segment {}", "chat": "answer en {}"}


@dataclass(frozen=True)
class PictureSettings:
    """How a picture becomes numbers; from preprocessor_config.json or processor_config.json."""

    side: int  # pixels; the picture is squeezed to a square, whatever its shape
    resample: Image.Resampling = Image.Resampling.BICUBIC
    factor: float = 1 / 255
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def open(cls, folder: Path, config: PaliGemmaConfig) -> "PictureSettings":
        """Read a checkpoint's settings; keys left out have the values of transformers' SigLIP image processor.

        Raises ModelError where there are none or they do not suit the vision tower.
        """
        raw = read_json(folder, "processor_config.json") if (folder / "processor_config.json").is_file() else {}
        raw = raw.get("image_processor") or read_json(folder, "preprocessor_config.json")
        side = config.vision.image_size
        size = raw.get("size") or {"height": 224, "width": 224}
        if (size.get("height"), size.get("width")) != (side, side):
            raise ModelError(f"{folder} resizes pictures to {size}, but its vision tower takes {side} × {side} pixels")
        patches = config.vision.patches
        if raw.get("image_seq_length", patches) != patches:
            raise ModelError(
                f"{folder} expects {raw['image_seq_length']} soft tokens a picture (image_seq_length), "
                f"but its vision tower gives {patches}"
            )
        if raw.get("do_resize") is False or raw.get("do_center_crop") or raw.get("do_pad"):
            raise ModelError(f"{folder} crops or pads pictures, or leaves them as large as they are: not supported")
        normalize = raw.get("do_normalize", True)
        return cls(
            side=side,
            resample=Image.Resampling(raw.get("resample", Image.Resampling.BICUBIC)),
            factor=raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale", True) else 1.0,
            mean=_channels(raw.get("image_mean", 0.5)) if normalize else (0.0,) * 3,
            std=_channels(raw.get("image_std", 0.5)) if normalize else (1.0,) * 3,
        )

    def pixels(self, picture: Image.Image) -> Tensor:
        """RGB picture of any size → float32 [3, side, side]."""
        if picture.mode != "RGB":
            raise ValueError(f"expected an RGB picture, got {picture.mode}")
        squeezed = picture.resize((self.side, self.side), self.resample)  # Pillow antialiases when it shrinks
        numbers = (np.asarray(squeezed, dtype=np.float64) * self.factor).astype(np.float32)
        numbers = (numbers - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(np.ascontiguousarray(numbers.transpose(2, 0, 1)))


def _channels(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,) * 3


class PaliGemmaProcessor:
    """Prompt layout: every picture's soft tokens, then bos, the prompt, and a line break."""

    def __init__(
        self,
        config: PaliGemmaConfig,
        pictures: PictureSettings,
        tokenizer: Tokenizer,
        bos: int,
        stop_ids: frozenset[int],
    ):
        self.config = config
        self.pictures = pictures
        self.tokenizer = tokenizer
        self.bos = bos
        self.stop_ids = stop_ids
        self.image_size = pictures.side
        self.soft_tokens = config.vision.patches
        self.vocabulary = _vocabulary(tokenizer)
        self._control = stop_ids | {bos, config.pad, config.image_token}
        self._bos_text = tokenizer.id_to_token(bos) or ""

    @classmethod
    def open(cls, folder: Path, config: PaliGemmaConfig, raw: dict[str, Any]) -> "PaliGemmaProcessor":
        """Read tokenizer.json and the picture settings of a checkpoint. Raises ModelError."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            only = " (tokenizer.model alone is not enough)" if (folder / "tokenizer.model").is_file() else ""
            raise ModelError(f"{folder} has no tokenizer.json{only}", "Use a revision of the model that has it")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for every damage
            raise ModelError(f"{path} cannot be read ({error})", "Download the model again") from error
        # Padding and cutting are done here, whatever the file was last used for.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(
            config, PictureSettings.open(folder, config), tokenizer, _bos(folder, tokenizer, config.bos),
            _stop_ids(folder, config.stop_ids),
        )  # fmt: skip

    def inputs(self, pictures: Sequence[Sequence[Image.Image]], prompts: Sequence[str]) -> Inputs:
        """One row for each prompt, with its own pictures in front of it."""
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(pictures)} lists of pictures for {len(prompts)} prompts")
        soft = [self.config.image_token] * self.soft_tokens
        rows = [
            soft * len(own) + self._prompt_tokens(prompt) for own, prompt in zip(pictures, prompts, strict=True)
        ]
        tokens, valid = pad_left(rows, self.config.pad)
        pixels = [self.pictures.pixels(picture) for own in pictures for picture in own]
        return Inputs(tokens, valid, torch.stack(pixels) if pixels else None)

    def _prompt_tokens(self, prompt: str) -> list[int]:
        """bos, the prompt and the line break that ends it.

        Trailing white space is cut off: it could melt into one token with the line break, which models have not seen.
        The tokenizer reads bos as part of the text, since some put a space in front of whatever stands first.
        """
        text = self._bos_text + prompt.rstrip() + "\n"
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        ids = ids if ids[:1] == [self.bos] else [self.bos, *ids]
        if self.config.image_token in ids:
            raise UsageError("A prompt cannot hold the picture's own token <image>", "Leave it out")
        if max(ids) >= self.config.decoder.vocabulary:
            raise ModelError(
                f"The tokenizer has a token ({self.tokenizer.id_to_token(max(ids))}) that the model has no row for",
                "tokenizer.json and the weights are of different models; download the model again",
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, location and segment tokens by their names; bos, end, padding and <image> vanish."""
        return self.tokenizer.decode([i for i in ids if i not in self._control], skip_special_tokens=False)

    def task_prompt(self, task: str, words: str) -> str:
        """PaliGemma's own words for a task (big_vision's PaliGemma README)."""
        if task not in PROMPTS:
            raise UsageError(f"PaliGemma knows no task {task!r}", f"It knows {', '.join(PROMPTS)}")
        return PROMPTS[task].format(words.strip())


def _vocabulary(tokenizer: Tokenizer) -> Vocabulary | None:
    """Where the location and segment tokens are; None where the tokenizer lacks them or scatters them."""
    starts = []
    for name, digits, count in (("loc", 4, LOCATIONS), ("seg", 3, MASK_CODES)):
        first = tokenizer.token_to_id(f"<{name}{0:0{digits}}>")
        last = tokenizer.token_to_id(f"<{name}{count - 1:0{digits}}>")
        if first is None or last != first + count - 1:
            return None
        starts.append(first)
    return Vocabulary(*starts)


def _bos(folder: Path, tokenizer: Tokenizer, otherwise: int) -> int:
    """The token that begins a text: what tokenizer_config.json names, else what config.json numbers."""
    if not (folder / "tokenizer_config.json").is_file():
        return otherwise
    token = read_json(folder, "tokenizer_config.json").get("bos_token")
    text = token.get("content") if isinstance(token, dict) else token
    number = tokenizer.token_to_id(text) if text else None
    return otherwise if number is None else number


def _stop_ids(folder: Path, otherwise: frozenset[int]) -> frozenset[int]:
    """The tokens that end an answer: what generation_config.json says, else what config.json says."""
    if not (folder / "generation_config.json").is_file():
        return otherwise
    stop = read_json(folder, "generation_config.json").get("eos_token_id")
    return otherwise if stop is None else frozenset(stop if isinstance(stop, list) else [stop])
