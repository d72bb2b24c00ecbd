"""Whisper's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/whisper/configuration_whisper.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.errors import ModelError

ABSENT = {
    "vocab_size": 51865, "num_mel_bins": 80, "d_model": 384, "max_source_positions": 1500,
    "max_target_positions": 448, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
    "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "decoder_start_token_id": 50257,
    "eos_token_id": 50256,
}  # fmt: skip
REQUIRED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}


@dataclass(frozen=True)
class StackConfig:
    """The layers of one side, encoder or decoder."""

    depth: int
    heads: int
    mlp_width: int


@dataclass(frozen=True)
class WhisperConfig:
    """Everything about a Whisper checkpoint that its config.json says."""

    vocabulary: int
    mels: int  # bins of the log-mel picture
    width: int
    sound_positions: int  # F: frames after the encoder's convolutions
    text_positions: int
    encoder: StackConfig
    decoder: StackConfig
    start: int  # <|startoftranscript|>
    end: int  # <|endoftext|>
    norm_epsilon: float = 1e-5

    @property
    def frames(self) -> int:
        """Frames of a log-mel window: the second convolution halves them."""
        return 2 * self.sound_positions

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "WhisperConfig":
        """Read config.json. Raises ModelError for values that would change the computation but are not supported."""
        for key, value in REQUIRED.items():
            if raw.get(key, value) != value:
                raise ModelError(f"This Whisper's config.json sets {key} to {raw[key]!r}; supported is {value!r}")
        raw = ABSENT | {key: value for key, value in raw.items() if value is not None}
        wrong = [key for key in ABSENT if isinstance(raw[key], bool) or not isinstance(raw[key], int) or raw[key] < 1]
        if wrong:
            raise ModelError(f"This Whisper's config.json sets {wrong[0]} to {raw[wrong[0]]!r}, not to a number")
        for side in ("encoder", "decoder"):
            if raw["d_model"] % raw[f"{side}_attention_heads"]:
                heads = raw[f"{side}_attention_heads"]
                raise ModelError(f"The {side}'s {raw['d_model']} numbers cannot be split among {heads} heads")
        return cls(
            vocabulary=raw["vocab_size"],
            mels=raw["num_mel_bins"],
            width=raw["d_model"],
            sound_positions=raw["max_source_positions"],
            text_positions=raw["max_target_positions"],
            encoder=_stack(raw, "encoder"),
            decoder=_stack(raw, "decoder"),
            start=raw["decoder_start_token_id"],
            end=raw["eos_token_id"],
        )


def _stack(raw: dict[str, Any], side: str) -> StackConfig:
    return StackConfig(raw[f"{side}_layers"], raw[f"{side}_attention_heads"], raw[f"{side}_ffn_dim"])
