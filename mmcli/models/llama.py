"""Checkpoints of Llama-type decoders, as families share them: what their config.json says, and their tensors' names."""

from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, EPSILON, HEAD_WIDTH, HEADS, INNER, ROWS, WIDTH, Fields, shown
from mmcli.hub.weights import Rule
from mmcli.layers.decoder import LlamaConfig
from mmcli.layers.rope import Llama3Scaling

LONGEST = 1 << 24  # tokens

# What a configuration leaves out has the value that transformers gives it (`models/*/configuration_*.py`).
LLAMA: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0, "tie_word_embeddings": False,
}  # fmt: skip
MISTRAL: dict[str, Any] = LLAMA | {
    "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
}  # fmt: skip
QWEN2: dict[str, Any] = LLAMA | {
    "vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip

TENSORS: dict[str, str | None] = {
    "embed_tokens.weight": "embedding.weight",
    "layers.{}.input_layernorm.weight": "layers.{}.norm_attention.weight",
    "layers.{}.post_attention_layernorm.weight": "layers.{}.norm_mlp.weight",
    "layers.{}.self_attn.q_proj.{}": "layers.{}.attention.q.{}",
    "layers.{}.self_attn.k_proj.{}": "layers.{}.attention.k.{}",
    "layers.{}.self_attn.v_proj.{}": "layers.{}.attention.v.{}",
    "layers.{}.self_attn.o_proj.weight": "layers.{}.attention.out.weight",
    "layers.{}.mlp.gate_proj.weight": "layers.{}.mlp.gate.weight",
    "layers.{}.mlp.up_proj.weight": "layers.{}.mlp.up.weight",
    "layers.{}.mlp.down_proj.weight": "layers.{}.mlp.down.weight",
    "norm.weight": "norm.weight",
    "layers.{}.self_attn.rotary_emb.inv_freq": None,  # computed, not learned; old files store it
}


def decoder_rules(config: LlamaConfig, model: str = "model.", head: str = "", ours: str = "decoder.") -> list[Rule]:
    """The table of a decoder: `model` and `head` stand before the checkpoint's names of the two, `ours` before ours.

    A head that is the embedding may be stored or not.
    """
    table = [Rule(model + name, None if own is None else ours + own) for name, own in TENSORS.items()]
    if config.tied:
        return [*table, Rule(f"{head}lm_head.weight", None, copy_of=f"{ours}embedding.weight")]
    return [*table, Rule(f"{head}lm_head.weight", f"{ours}head.weight")]


def read_decoder(text: Fields, tied: bool | None = None, **settings: Any) -> LlamaConfig:
    """The decoder that `text` describes: the text_config of a checkpoint, or the whole of one without.

    `text.otherwise` holds what may be left out, such as `LLAMA`. `tied` tells whether the head is the embedding; None:
    `text` says so. `settings` are fields of `LlamaConfig` that the family knows by itself. Raises ModelError.
    """
    text.require("hidden_act", "silu", "swish", None)
    text.require("mlp_bias", False, None)
    if "qkv_bias" not in settings:
        text.require("attention_bias", False, None)
    depth = text.whole("num_hidden_layers", *DEPTH)
    heads = text.whole("num_attention_heads", *HEADS)
    width = text.whole("hidden_size", *WIDTH)
    key_heads = heads if text.get("num_key_value_heads") is None else text.whole("num_key_value_heads", *HEADS)
    if heads % key_heads:
        raise ModelError(
            f"{text.where} splits {heads} heads among {key_heads} for keys and values "
            f"({text.path}num_key_value_heads), which leaves some over"
        )
    window, sliding = _window(text, depth)
    read: dict[str, Any] = {
        "vocabulary": text.whole("vocab_size", *ROWS),
        "width": width,
        "depth": depth,
        "mlp_width": text.whole("intermediate_size", *INNER),
        "heads": heads,
        "key_heads": key_heads,
        "head_width": _head_width(text, width, heads),
        "norm_epsilon": text.number("rms_norm_eps", *EPSILON),
        "tied": text.flag("tie_word_embeddings") if tied is None else tied,
        "window": window,
        "sliding_layers": sliding,
        "positions": text.maybe_whole("max_position_embeddings", 1, LONGEST),
    }
    return LlamaConfig(**(read | _rope(text) | settings))


def _head_width(text: Fields, width: int, heads: int) -> int:
    if text.get("head_dim") is None and width % heads:
        raise ModelError(f"{text.where} splits {width} numbers ({text.path}hidden_size) among {heads} heads")
    head_width = width // heads if text.get("head_dim") is None else text.whole("head_dim", *HEAD_WIDTH)
    if head_width % 2:
        raise ModelError(f"{text.where} has heads {head_width} numbers wide; rotary positions need an even number")
    return head_width


def _window(text: Fields, depth: int) -> tuple[int | None, tuple[bool, ...]]:
    """How far back layers with a window attend, and which these are; other models' fields for it mean nothing.

    Null is not the same as left out: a window of none is no window. Mistral's is in all layers, Qwen2's where it is
    switched on, in those that `layer_types` names or from `max_window_layers` on.
    """
    if "sliding_window" not in text.otherwise or text.raw.get("sliding_window", ...) is None:
        return None, ()
    kinds = ["sliding_attention"] * depth
    if "use_sliding_window" in text.otherwise:
        if not text.flag("use_sliding_window"):
            return None, ()
        first = text.whole("max_window_layers", 0, 1 << 20)
        kinds[:first] = ["full_attention"] * min(first, depth)
        kinds = text.items("layer_types", longest=depth, length=depth) if text.get("layer_types") else kinds
    if not all(kind in ("full_attention", "sliding_attention") for kind in kinds):
        raise text.wrong("layer_types", f"a list of {depth} of full_ or sliding_attention")
    sliding = tuple(kind == "sliding_attention" for kind in kinds)
    return (text.whole("sliding_window", 1, LONGEST), sliding) if any(sliding) else (None, ())


def _rope(text: Fields) -> dict[str, Any]:
    """Base and scaling of the rotary positions: since transformers 5 in rope_parameters, before in two keys."""
    key = "rope_parameters" if text.get("rope_parameters") else "rope_scaling"
    usual = {
        "rope_theta": text.get("rope_theta"),
        "original_max_position_embeddings": text.get("max_position_embeddings"),
    }
    rope = text.part(key, usual)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ("default", "llama3"):
        raise ModelError(
            f"{text.where} stretches its positions ({shown(kind)} rope); supported are the plain kind and llama3"
        )
    base = rope.positive("rope_theta")
    if kind == "default":
        return {"rope_base": base}
    low, high = (rope.number(f"{end}_freq_factor", 0.0, 1e6) for end in ("low", "high"))
    if low >= high:
        raise rope.wrong("high_freq_factor", f"more than low_freq_factor, {low:g}")
    trained = rope.whole("original_max_position_embeddings", 1, LONGEST)
    return {"rope_base": base, "rope_scaling": Llama3Scaling(rope.positive("factor", 1e6), low, high, trained)}
