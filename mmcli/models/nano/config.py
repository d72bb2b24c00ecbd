"""Sizes of the bundled model, read from its config.json."""

from dataclasses import dataclass

from mmcli.errors import ModelError
from mmcli.layers.gemma import DecoderConfig

LOCATIONS = 1024
MASK_CODES = 128
CELL = 16  # pixels of the feature tower's input that one grid token stands for


@dataclass(frozen=True)
class NanoConfig:
    """One picture side for the detector, one for the feature tower, and a small Gemma decoder behind them."""

    image_size: int  # pixels; what the processor makes and the detector reads
    feature_size: int  # pixels; the feature tower reads the picture reduced to this
    proposals: int  # soft tokens made from the detector's best boxes
    image_token: int
    loc_token: int  # id of <loc0000>
    seg_token: int  # id of <seg000>
    pad_token: int
    eos_token: int
    bos_token: int
    finding_tokens: tuple[int, ...]  # first words of the prompts that look for things: "detect", "segment"
    absent_bias: float  # taken from the logit of an empty answer to those
    decoder: DecoderConfig

    @property
    def grid(self) -> int:
        """Side of the grid of soft tokens."""
        return self.feature_size // CELL

    @property
    def soft_tokens(self) -> int:
        return self.grid**2 + self.proposals

    @classmethod
    def from_json(cls, raw: dict) -> "NanoConfig":
        """Read config.json; ModelError if something is missing or unknown."""
        try:
            own = {k: v for k, v in raw.items() if k not in ("model_type", "decoder", "architectures")}
            decoder = dict(raw["decoder"])
            decoder["query_scale"] = decoder["head_width"] ** -0.5
            own["finding_tokens"] = tuple(own.get("finding_tokens", ()))
            own.setdefault("absent_bias", 0.0)
            return cls(decoder=DecoderConfig(**decoder), **own)
        except (KeyError, TypeError) as error:
            raise ModelError(f"the configuration of this nano model does not fit: {error}") from error
