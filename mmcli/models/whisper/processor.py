"""What goes into Whisper and what comes out: log-mel windows, the prompt's tokens, text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcli.errors import ModelError, UsageError
from mmcli.hub.fields import Fields, shown
from mmcli.hub.json_files import read_json
from mmcli.hub.tokenizer import Tokenizer
from mmcli.models.family import Processor
from mmcli.models.whisper.capabilities import capabilities
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.features import FFT, HOP, RATE, log_mel
from mmcli.models.whisper.vocabulary import TIME_STEP, Special, read_special, read_tokenizer

TASKS = ("transcribe", "translate")


class WhisperProcessor(Processor):
    """Recordings → features, tasks and hints → prompts, ids → text."""

    rate = RATE

    def __init__(self, config: WhisperConfig, tokenizer: Tokenizer, special: Special):
        self.config = config
        self.tokenizer = tokenizer
        self.special = special
        self.multilingual = bool(special.languages)
        self.capabilities = replace(
            capabilities(config),
            languages=tuple(special.languages) or ("en",),
            translates=self.multilingual and special.translate is not None,
        )
        self.stop_ids = frozenset({special.end})

    @classmethod
    def open(cls, folder: Path, config: WhisperConfig, raw: dict[str, Any]) -> "WhisperProcessor":
        """Read the tokenizer and the settings of a checkpoint. Raises ModelError."""
        path = folder / "preprocessor_config.json"
        settings = Fields(read_json(path) if path.is_file() else {}, str(path))
        for key, expected in (
            ("feature_size", config.mels), ("sampling_rate", RATE), ("n_fft", FFT), ("hop_length", HOP),
        ):  # fmt: skip
            if settings.get(key) not in (None, expected):
                raise ModelError(f"{path} sets {key} to {shown(settings.get(key))}; this model needs {expected}")
        tokenizer = read_tokenizer(folder)
        return cls(config, tokenizer, read_special(folder, tokenizer, config, raw))

    def features(self, audios: Sequence[np.ndarray], device: torch.device | None = None) -> Tensor:
        """Mono audio at 16 kHz, each at most `max_audio_seconds` → log-mel float32 [B, mels, 2F]; silence fills up.

        A GPU that they are for computes them.
        """
        return log_mel(audios, self.config.mels, self.config.frames, device)

    def prompt(self, task: str, language: str | None, hint: str | None, times: bool) -> list[int]:
        """The tokens before the text: the hint, as if said before, then what to do. Raises UsageError.

        `language` is required of multilingual checkpoints and may be only "en" for the others.
        """
        special = self.special
        ids = self._hint(hint) + [special.start]
        if task not in TASKS:
            raise UsageError(f"Whisper knows no task {task!r}", f"It knows {', '.join(TASKS)}")
        if self.multilingual:
            ids.append(self.language_token(language))
            order = special.translate if task == "translate" else special.transcribe
            if order is None:
                raise UsageError(f"This Whisper cannot {task}: it has no token for it")
            ids.append(order)
        elif task == "translate" or language not in (None, "en"):
            raise UsageError("This Whisper knows only English", "Choose a multilingual one (without .en in its name)")
        return ids if times else [*ids, special.no_times]

    def language_token(self, language: str | None) -> int:
        """The token of a language such as "de"."""
        if language not in self.special.languages:
            raise UsageError(
                f"This Whisper knows no language {language!r}",
                f"Give one of {len(self.special.languages)} codes, such as {', '.join([*self.special.languages][:8])}",
            )
        return self.special.languages[language]

    def _hint(self, hint: str | None) -> list[int]:
        """<|startofprev|> and the hint's last tokens: as many as leave half of the places to the answer."""
        words = (hint or "").strip()
        if not words:
            return []
        if self.special.previous is None:
            raise UsageError("This Whisper takes no hint: it has no <|startofprev|>")
        ids = self.tokenizer.encode(" " + words).ids
        ids = [id for id in ids if id < self.special.end]
        return [self.special.previous, *ids[-(self.config.text_positions // 2 - 1) :]]

    def is_text(self, id: int) -> bool:
        """Whether an id is text, and no end, order, language or time."""
        return id < self.special.end

    def is_time(self, id: int) -> bool:
        """Whether an id is a time token."""
        return id >= self.special.times

    def seconds(self, id: int) -> float:
        """The time that a time token stands for."""
        return (id - self.special.times) * TIME_STEP
