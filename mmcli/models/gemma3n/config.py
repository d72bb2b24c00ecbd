"""Gemma 3n's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/gemma3n/configuration_gemma3n.py`).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from mmcli.errors import ModelError
from mmcli.layers.conformer import ConformerConfig
from mmcli.layers.mobilenet_v5 import GRID, WIDTH
from mmcli.models.gemma3n.audio import read_conformer

TEXT = {
    "vocab_size": 262_400, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 35,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "rms_norm_eps": 1e-6, "sliding_window": 512,
    "final_logit_softcapping": 30.0, "vocab_size_per_layer_input": 262_144, "hidden_size_per_layer_input": 256,
    "altup_num_inputs": 4, "altup_correct_scale": True, "num_kv_shared_layers": 15, "laurel_rank": 64,
    "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
VISION = {"hidden_size": 2048, "vocab_size": 128, "vocab_offset": 262_144, "rms_norm_eps": 1e-6}
AUDIO = {"hidden_size": 1536, "vocab_size": 128, "vocab_offset": 262_272, "rms_norm_eps": 1e-6}
WHOLE = {
    "vision_soft_tokens_per_image": 256, "audio_soft_tokens_per_image": 188, "image_token_id": 262_145,
    "boi_token_id": 255_999, "eoi_token_id": 262_144, "audio_token_id": 262_273, "boa_token_id": 256_000,
    "eoa_token_id": 262_272,
}  # fmt: skip
TOWER = "mobilenetv5_300m_enc"
ROPE_BASES = {"full_attention": ("rope_theta", 1e6), "sliding_attention": ("rope_local_base_freq", 1e4)}


@dataclass(frozen=True)
class LayerConfig:
    """What differs from layer to layer; a MatFormer slice is a model whose layers have narrower MLPs, or fewer."""

    sliding: bool  # looks at the window's last tokens only, its positions turn by `sliding_rope_base`
    mlp_width: int
    sparsity: float  # share of the MLP's gates that is closed; 0: none is on purpose
    source: int  # the layer whose keys and values this one looks at; itself, or an earlier one that shares its own

    @property
    def deviations(self) -> float:
        """How many standard deviations above the mean a gate must be to stay open."""
        return NormalDist().inv_cdf(self.sparsity)


@dataclass(frozen=True)
class TextConfig:
    """Sizes and switches of the decoder."""

    vocabulary: int
    width: int
    layers: tuple[LayerConfig, ...]
    heads: int
    key_heads: int
    head_width: int
    window: int  # tokens that a sliding layer sees, the own included
    rope_base: float
    sliding_rope_base: float
    norm_epsilon: float
    logit_softcap: float | None
    table_rows: int  # ids that have a row in the per-layer table; others have that of id 0
    table_width: int  # numbers a layer and token in it
    streams: int  # of AltUp
    corrects_scale: bool
    laurel_rank: int

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def owners(self) -> tuple[int, ...]:
        """Layers with keys and values of their own: the cache holds one entry for each."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.source == i)


@dataclass(frozen=True)
class SenseConfig:
    """What pictures and sounds have in common on their way into the decoder."""

    width: int  # of the tower's vectors
    soft_tokens: int  # places that one picture or sound takes
    token: int  # id that holds such a place
    begin: int  # id before the places
    end: int  # id behind them
    first: int  # the first id that the sense embeds itself (hard tokens)
    ids: int  # how many these are
    norm_epsilon: float


@dataclass(frozen=True)
class AudioConfig(SenseConfig):
    """The sense of hearing."""

    conformer: ConformerConfig


@dataclass(frozen=True)
class Gemma3nConfig:
    """Everything about a Gemma 3n checkpoint that its config.json says."""

    text: TextConfig
    vision: SenseConfig | None  # None: a decoder published alone
    audio: AudioConfig | None
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "Gemma3nConfig":
        """Read config.json. Raises ModelError for values that would change the computation but are not supported."""
        try:
            return cls._from_hf(raw)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise ModelError(f"This Gemma 3n's config.json has a value of a wrong type ({error})") from error

    @classmethod
    def _from_hf(cls, raw: dict[str, Any]) -> "Gemma3nConfig":
        alone = raw.get("model_type") == "gemma3n_text"
        text = TEXT | _set(raw if alone else raw.get("text_config") or {})
        _require(raw, "tie_word_embeddings", (True, None))
        _require(text, "tie_word_embeddings", (True, None))
        stop = raw.get("eos_token_id") or text["eos_token_id"]
        config = cls(
            text=_read_text(text),
            vision=None if alone else _read_vision(raw),
            audio=None if alone else _read_audio(raw),
            pad=text["pad_token_id"],
            bos=text["bos_token_id"],
            stop_ids=frozenset(stop if isinstance(stop, list) else [stop]),
        )
        if not alone:
            _check_hard_tokens(config)
        return config


def _read_text(raw: dict[str, Any]) -> TextConfig:
    _require(raw, "hidden_activation", ("gelu_pytorch_tanh", None))
    _require(raw, "attention_bias", (False, None))
    _require(raw, "use_bidirectional_attention", (False, None))
    _require(raw, "altup_active_idx", (0, None))
    if raw["altup_num_inputs"] < 2:
        raise ModelError("This Gemma 3n has a single stream (altup_num_inputs); only several are supported")
    if raw["num_attention_heads"] % raw["num_key_value_heads"]:
        heads, keys = raw["num_attention_heads"], raw["num_key_value_heads"]
        raise ModelError(f"This Gemma 3n's {heads} heads cannot be split among {keys} for keys and values")
    bases = {kind: _rope_base(raw, kind) for kind in ROPE_BASES}
    return TextConfig(
        vocabulary=raw["vocab_size"],
        width=raw["hidden_size"],
        layers=_read_layers(raw),
        heads=raw["num_attention_heads"],
        key_heads=raw["num_key_value_heads"],
        head_width=raw["head_dim"],
        window=raw["sliding_window"],
        rope_base=bases["full_attention"],
        sliding_rope_base=bases["sliding_attention"],
        norm_epsilon=raw["rms_norm_eps"],
        logit_softcap=raw["final_logit_softcapping"],
        table_rows=raw["vocab_size_per_layer_input"],
        table_width=raw["hidden_size_per_layer_input"],
        streams=raw["altup_num_inputs"],
        corrects_scale=raw["altup_correct_scale"],
        laurel_rank=raw["laurel_rank"],
    )


def _read_layers(raw: dict[str, Any]) -> tuple[LayerConfig, ...]:
    depth = raw["num_hidden_layers"]
    kinds = raw.get("layer_types") or [
        "full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(depth)
    ]
    sparse = 10 if depth > 10 else 0
    sparsity = raw.get("activation_sparsity_pattern") or [0.95] * sparse + [0.0] * (depth - sparse)
    widths = raw["intermediate_size"]
    widths = widths if isinstance(widths, list) else [widths] * depth
    lists = {"layer_types": kinds, "activation_sparsity_pattern": sparsity, "intermediate_size": widths}
    for key, values in lists.items():
        if not isinstance(values, list) or len(values) != depth:
            raise ModelError(f"This Gemma 3n's config.json sets {key} to {values!r}; expected a list of {depth}")
    if not set(kinds) <= ROPE_BASES.keys() or not all(0 <= share < 1 for share in sparsity):
        raise ModelError("This Gemma 3n has layer_types beside full_ and sliding_attention, or sparsities beyond 0 … 1")
    sources = _sources(kinds, depth - raw["num_kv_shared_layers"])
    return tuple(
        LayerConfig(kind == "sliding_attention", width, float(share), source)
        for kind, width, share, source in zip(kinds, widths, sparsity, sources, strict=True)
    )


def _sources(kinds: list[str], owners: int) -> list[int]:
    """Whose keys and values each layer looks at: those behind the first `owners` at the last of these of their kind."""
    if not 0 < owners <= len(kinds) or not set(kinds[owners:]) <= set(kinds[:owners]):
        raise ModelError(
            f"Of this Gemma 3n's {len(kinds)} layers the last {len(kinds) - owners} look at the keys of earlier ones "
            "(num_kv_shared_layers), but there are none of their kind"
        )
    last = {kind: i for i, kind in enumerate(kinds[:owners])}
    return [i if i < owners else last[kind] for i, kind in enumerate(kinds)]


def _rope_base(raw: dict[str, Any], kind: str) -> float:
    """The base of one kind of layers: since transformers 5 in rope_parameters, kind by kind, before in two keys."""
    key, usual = ROPE_BASES[kind]
    rope = raw.get("rope_parameters") or {}
    if "rope_theta" in rope or "rope_type" in rope:
        raise ModelError("This Gemma 3n's rope_parameters do not tell its two kinds of layers apart")
    rope = (rope.get(kind) or {}) | ((raw.get("rope_scaling") or {}) if kind == "full_attention" else {})
    form = rope.get("rope_type", rope.get("type", "default"))
    if form != "default":
        raise ModelError(f"This Gemma 3n stretches its positions ({form!r} rope); only the plain kind is supported")
    return float(rope.get("rope_theta") or raw.get(key) or usual)


def _read_vision(raw: dict[str, Any]) -> SenseConfig:
    vision = VISION | _set(raw.get("vision_config") or {})
    _require(vision, "architecture", (TOWER, None))
    _require(vision, "model_args", (None, {}))
    _require(vision, "do_pooling", (False, None))
    _require(vision, "hidden_size", (WIDTH,))
    _require(WHOLE | _set(raw), "vision_soft_tokens_per_image", (GRID * GRID,))
    return SenseConfig(**_sense(raw, vision, "vision", "image"))


def _read_audio(raw: dict[str, Any]) -> AudioConfig:
    own = raw.get("audio_config") or {}
    return AudioConfig(**_sense(raw, AUDIO | _set(own), "audio", "audio"), conformer=read_conformer(own))


def _sense(raw: dict[str, Any], own: dict[str, Any], sense: str, place: str) -> dict[str, Any]:
    whole = WHOLE | _set(raw)
    letter = place[0]
    return {
        "width": own["hidden_size"],
        "soft_tokens": whole[f"{sense}_soft_tokens_per_image"],
        "token": whole[f"{place}_token_id"],
        "begin": whole[f"bo{letter}_token_id"],
        "end": whole[f"eo{letter}_token_id"],
        "first": own["vocab_offset"],
        "ids": own["vocab_size"],
        "norm_epsilon": own["rms_norm_eps"],
    }


def _check_hard_tokens(config: Gemma3nConfig) -> None:
    """Every id from the first hard token on must be embedded by one of the senses."""
    vision, audio, end = config.vision, config.audio, config.text.vocabulary
    if not vision.first < audio.first <= vision.first + vision.ids or not audio.first < end <= audio.first + audio.ids:
        raise ModelError(
            f"This Gemma 3n's ids of pictures ({vision.ids} from {vision.first} on) and of sounds ({audio.ids} from "
            f"{audio.first} on) do not fill its vocabulary of {end} up"
        )


def _require(raw: dict[str, Any], key: str, accepted: tuple) -> None:
    if raw.get(key) not in accepted:
        raise ModelError(f"This Gemma 3n's config.json sets {key} to {raw[key]!r}; supported is {accepted[0]!r}")


def _set(raw: dict[str, Any]) -> dict[str, Any]:
    """What is given; a key set to null counts as left out, but for the soft-cap, where null means none."""
    return {key: value for key, value in raw.items() if value is not None or key == "final_logit_softcapping"}
