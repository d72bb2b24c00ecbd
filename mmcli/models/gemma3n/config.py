"""Gemma 3n's configuration, read from a checkpoint's config.json.

What a checkpoint leaves out has the value that transformers gives it (`models/gemma3n/configuration_gemma3n.py`).
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import (
    DEPTH,
    EPSILON,
    HEAD_WIDTH,
    HEADS,
    ID,
    INNER,
    ROWS,
    SOFT_TOKENS,
    WIDTH,
    Fields,
    shown,
)
from mmcli.models.gemma3n.audio import read_conformer
from mmcli.models.gemma3n.conformer import ConformerConfig
from mmcli.models.gemma3n.mobilenet_v5 import GRID
from mmcli.models.gemma3n.mobilenet_v5 import WIDTH as WIDTH_OF_TOWER

TEXT = {
    "vocab_size": 262_400, "hidden_size": 2048, "intermediate_size": 16_384, "num_hidden_layers": 35,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "rms_norm_eps": 1e-6, "sliding_window": 512,
    "final_logit_softcapping": 30.0, "vocab_size_per_layer_input": 262_144, "hidden_size_per_layer_input": 256,
    "altup_num_inputs": 4, "altup_correct_scale": True, "num_kv_shared_layers": 15, "laurel_rank": 64,
    "max_position_embeddings": 32_768, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
}  # fmt: skip
VISION = {"hidden_size": 2048, "vocab_size": 128, "vocab_offset": 262_144, "rms_norm_eps": 1e-6}
AUDIO = {"hidden_size": 1536, "vocab_size": 128, "vocab_offset": 262_272, "rms_norm_eps": 1e-6}
WHOLE = {
    "vision_soft_tokens_per_image": 256, "audio_soft_tokens_per_image": 188, "image_token_id": 262_145,
    "boi_token_id": 255_999, "eoi_token_id": 262_144, "audio_token_id": 262_273, "boa_token_id": 256_000,
    "eoa_token_id": 262_272,
}  # fmt: skip
TOWER = "mobilenetv5_300m_enc"
SOFTCAP = "final_logit_softcapping"
MOST_STREAMS = 16
ROPE_BASES = {"full_attention": ("rope_theta", 1e6), "sliding_attention": ("rope_local_base_freq", 1e4)}


@dataclass(frozen=True)
class LayerConfig:
    """What differs from layer to layer; a MatFormer slice is a model whose layers have narrower MLPs, or fewer."""

    sliding: bool  # attends to the window's last tokens only, its positions turn by `sliding_rope_base`
    mlp_width: int
    sparsity: float  # share of the MLP's gates that is closed; 0: none is on purpose
    source: int  # the layer whose keys and values this one attends to; itself, or an earlier one that shares its own

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
    window: int  # tokens that a sliding layer attends to, the own included
    rope_base: float
    sliding_rope_base: float
    norm_epsilon: float
    logit_softcap: float | None
    table_rows: int  # ids that have a row in the per-layer table; others have that of id 0
    table_width: int  # numbers a layer and token in it
    streams: int  # of AltUp
    corrects_scale: bool
    laurel_rank: int
    positions: int  # tokens that it was made to read

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def owners(self) -> tuple[int, ...]:
        """Layers with keys and values of their own: the cache holds one entry for each."""
        return tuple(i for i, layer in enumerate(self.layers) if layer.source == i)


@dataclass(frozen=True)
class ModalityConfig:
    """What images and recordings have in common on their way into the decoder."""

    width: int  # of the tower's vectors
    soft_tokens: int  # places that one image or recording takes
    token: int  # id that holds such a place
    begin: int  # id before the places
    end: int  # id behind them
    first: int  # the first id that the modality embeds itself (hard tokens)
    ids: int  # how many these are
    norm_epsilon: float

    @property
    def marks(self) -> tuple[int, int, int]:
        """The ids of a place, of what stands before the places, and of what stands behind them."""
        return self.token, self.begin, self.end


@dataclass(frozen=True)
class AudioConfig(ModalityConfig):
    """The audio encoder, and the ids that belong to it."""

    conformer: ConformerConfig


@dataclass(frozen=True)
class Gemma3nConfig:
    """Everything about a Gemma 3n checkpoint that its config.json says."""

    text: TextConfig
    vision: ModalityConfig | None  # None: a decoder published alone
    audio: AudioConfig | None
    pad: int
    bos: int
    stop_ids: frozenset[int]

    @classmethod
    def from_hf(cls, raw: dict[str, Any]) -> "Gemma3nConfig":
        """Read config.json. Raises ModelError for wrong values, and for those that mmcli does not support."""
        whole = Fields(raw, "This Gemma 3n's config.json", WHOLE)
        alone = raw.get("model_type") == "gemma3n_text"
        text = Fields(raw, whole.where, TEXT) if alone else whole.part("text_config", TEXT)
        for part in (whole, text):
            part.require("tie_word_embeddings", True, None)
        config = cls(
            text=_read_text(text),
            vision=None if alone else _read_vision(whole),
            audio=None if alone else _read_audio(whole),
            pad=text.whole("pad_token_id", 0, text.whole("vocab_size", *ROWS) - 1),
            bos=text.whole("bos_token_id", 0, text.whole("vocab_size", *ROWS) - 1),
            stop_ids=whole.ids("eos_token_id") or text.ids("eos_token_id"),
        )
        if config.vision and config.audio:
            _check_hard_tokens(config.vision, config.audio, config.text.vocabulary)
            whole.unlike("image_token_id", config.vision.token, [config.pad, config.bos, config.audio.token])
            whole.unlike("audio_token_id", config.audio.token, [config.pad, config.bos])
        return config


def _read_text(raw: Fields) -> TextConfig:
    raw.require("hidden_activation", "gelu_pytorch_tanh", None)
    raw.require("attention_bias", False, None)
    raw.require("use_bidirectional_attention", False, None)
    raw.require("altup_active_idx", 0, None)
    streams = raw.whole("altup_num_inputs", 1, MOST_STREAMS)
    if streams < 2:
        raise ModelError("This Gemma 3n has a single stream (altup_num_inputs); only several are supported")
    heads, keys = raw.whole("num_attention_heads", *HEADS), raw.whole("num_key_value_heads", *HEADS)
    if heads % keys:
        raise ModelError(f"This Gemma 3n's {heads} heads cannot be split among {keys} for keys and values")
    bases = {kind: _rope_base(raw, kind) for kind in ROPE_BASES}
    head_width = raw.whole("head_dim", *HEAD_WIDTH)
    if head_width % 2:
        raise raw.wrong("head_dim", "an even number")
    # Here, null is not the same as left out: it means no cap.
    cap = None if raw.raw.get(SOFTCAP, ...) is None else raw.positive(SOFTCAP)
    return TextConfig(
        vocabulary=raw.whole("vocab_size", *ROWS),
        width=raw.whole("hidden_size", *WIDTH),
        layers=_read_layers(raw),
        heads=heads,
        key_heads=keys,
        head_width=head_width,
        window=raw.whole("sliding_window", 1, 1 << 30),
        rope_base=bases["full_attention"],
        sliding_rope_base=bases["sliding_attention"],
        norm_epsilon=raw.number("rms_norm_eps", *EPSILON),
        logit_softcap=cap,
        table_rows=raw.whole("vocab_size_per_layer_input", *ROWS),
        table_width=raw.whole("hidden_size_per_layer_input", *WIDTH),
        streams=streams,
        corrects_scale=raw.flag("altup_correct_scale"),
        laurel_rank=raw.whole("laurel_rank", *WIDTH),
        positions=raw.whole("max_position_embeddings", 1, 1 << 20),
    )


def _read_layers(raw: Fields) -> tuple[LayerConfig, ...]:
    depth = raw.whole("num_hidden_layers", *DEPTH)
    sparse = 10 if depth > 10 else 0
    usual = {
        "layer_types": ["full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(depth)],
        "activation_sparsity_pattern": [0.95] * sparse + [0.0] * (depth - sparse),
    }
    given = {key: value for key, value in raw.raw.items() if value != []}  # an empty list is as good as none
    raw = Fields(given, raw.where, {**raw.otherwise, **usual}, raw.path)
    kinds = raw.items("layer_types", depth, length=depth)
    sparsity = raw.numbers("activation_sparsity_pattern", -1e9, 1e9, depth, length=depth)
    if isinstance(raw.get("intermediate_size"), list):
        widths = list(raw.wholes("intermediate_size", *INNER, longest=depth, length=depth))
    else:
        widths = [raw.whole("intermediate_size", *INNER)] * depth
    if not all(kind in list(ROPE_BASES) for kind in kinds) or not all(0 <= share < 1 for share in sparsity):
        raise ModelError("This Gemma 3n has layer_types beside full_ and sliding_attention, or sparsities beyond 0 … 1")
    sources = _sources(kinds, depth - raw.whole("num_kv_shared_layers", 0, depth))
    return tuple(
        LayerConfig(kind == "sliding_attention", width, share, source)
        for kind, width, share, source in zip(kinds, widths, sparsity, sources, strict=True)
    )


def _sources(kinds: list[str], owners: int) -> list[int]:
    """Whose keys and values each layer attends to: those behind the first `owners` at the last of these of their
    kind."""
    if not 0 < owners <= len(kinds) or not set(kinds[owners:]) <= set(kinds[:owners]):
        raise ModelError(
            f"Of this Gemma 3n's {len(kinds)} layers the last {len(kinds) - owners} look at the keys of earlier ones "
            "(num_kv_shared_layers), but there are none of their kind"
        )
    last = {kind: i for i, kind in enumerate(kinds[:owners])}
    return [i if i < owners else last[kind] for i, kind in enumerate(kinds)]


def _rope_base(raw: Fields, kind: str) -> float:
    """The base of one kind of layers: since transformers 5 in rope_parameters, kind by kind, before in two keys."""
    key, usual = ROPE_BASES[kind]
    both = raw.part("rope_parameters")
    if "rope_theta" in both or "rope_type" in both:
        raise ModelError("This Gemma 3n's rope_parameters do not tell its two kinds of layers apart")
    own = both.part(kind)
    scaling = raw.part("rope_scaling") if kind == "full_attention" else own
    for rope in (scaling, own):
        form = rope.get("rope_type") or rope.get("type") or "default"
        if form != "default":
            raise ModelError(
                f"This Gemma 3n stretches its positions ({shown(form)} rope); only the plain kind is supported"
            )
    for place, name in ((scaling, "rope_theta"), (own, "rope_theta"), (raw, key)):
        if place.get(name):
            return place.positive(name)
    return usual


def _read_vision(whole: Fields) -> ModalityConfig:
    vision = whole.part("vision_config", VISION)
    vision.require("architecture", TOWER, None)
    vision.require("model_args", None, {})
    vision.require("do_pooling", False, None)
    vision.require("hidden_size", WIDTH_OF_TOWER)
    whole.require("vision_soft_tokens_per_image", GRID * GRID)
    return ModalityConfig(**_modality(whole, vision, "vision", "image"))


def _read_audio(whole: Fields) -> AudioConfig:
    audio = whole.part("audio_config", AUDIO)
    return AudioConfig(**_modality(whole, audio, "audio", "audio"), conformer=read_conformer(dict(audio.raw)))


def _modality(whole: Fields, own: Fields, modality: str, place: str) -> dict[str, Any]:
    letter = place[0]
    return {
        "width": own.whole("hidden_size", *WIDTH),
        "soft_tokens": whole.whole(f"{modality}_soft_tokens_per_image", *SOFT_TOKENS),
        "token": whole.whole(f"{place}_token_id", *ID),
        "begin": whole.whole(f"bo{letter}_token_id", *ID),
        "end": whole.whole(f"eo{letter}_token_id", *ID),
        "first": own.whole("vocab_offset", *ID),
        "ids": own.whole("vocab_size", *ROWS),
        "norm_epsilon": own.number("rms_norm_eps", *EPSILON),
    }


def _check_hard_tokens(vision: ModalityConfig, audio: AudioConfig, end: int) -> None:
    """Every id from the first hard token on must be embedded by one of the modalities."""
    if not vision.first < audio.first <= vision.first + vision.ids or not audio.first < end <= audio.first + audio.ids:
        raise ModelError(
            f"This Gemma 3n's ids of pictures ({vision.ids} from {vision.first} on) and of recordings ({audio.ids} "
            f"from {audio.first} on) do not fill its vocabulary of {end} up"
        )
