"""Whisper's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/whisper/configuration_whisper.py`).
"""

from dataclasses import dataclass
from typing import Any

from mmcli.hub.fields import DEPTH, HEADS, INNER, ROWS, WIDTH, Fields
from mmcli.models.stacks import StackConfig, read_stacks

ABSENT = {
    "vocab_size": 51865, "num_mel_bins": 80, "d_model": 384, "max_source_positions": 1500,
    "max_target_positions": 448, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536,
    "decoder_layers": 4, "decoder_attention_heads": 6, "decoder_ffn_dim": 1536, "decoder_start_token_id": 50257,
    "eos_token_id": 50256,
}  # fmt: skip
BOUNDS = {
    "vocab_size": ROWS, "num_mel_bins": (1, 512), "d_model": WIDTH, "max_source_positions": (1, 15_000),
    "max_target_positions": (8, 1 << 14), "encoder_layers": DEPTH, "encoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER, "decoder_layers": DEPTH, "decoder_attention_heads": HEADS, "decoder_ffn_dim": INNER,
}  # fmt: skip
REQUIRED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}


@dataclass(frozen=True)
class WhisperConfig:
    """Everything about a Whisper checkpoint that its config.json says."""

    vocabulary: int
    mels: int  # bins of the log-mel spectrogram
    width: int
    audio_positions: int  # F: frames after the encoder's convolutions
    text_positions: int
    encoder: StackConfig
    decoder: StackConfig
    start: int  # <|startoftranscript|>
    end: int  # <|endoftext|>
    norm_epsilon: float = 1e-5

    @property
    def frames(self) -> int:
        """Frames of a log-mel window: the second convolution halves them."""
        return 2 * self.audio_positions

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "WhisperConfig":
        """Read config.json. Raises ModelError for values that would change the computation but are not supported."""
        fields = Fields(raw, "This Whisper's config.json", ABSENT)
        for key, value in REQUIRED.items():
            fields.require(key, value, None)
        sizes = {key: fields.whole(key, *bounds) for key, bounds in BOUNDS.items()}
        encoder, decoder = read_stacks(sizes, "This Whisper")
        for key in ("decoder_start_token_id", "eos_token_id"):
            sizes[key] = fields.whole(key, 0, sizes["vocab_size"] - 1)
        return cls(
            vocabulary=sizes["vocab_size"],
            mels=sizes["num_mel_bins"],
            width=sizes["d_model"],
            audio_positions=sizes["max_source_positions"],
            text_positions=sizes["max_target_positions"],
            encoder=encoder,
            decoder=decoder,
            start=sizes["decoder_start_token_id"],
            end=sizes["eos_token_id"],
        )
