"""Names of Gemma 3n's tensors: checkpoint → ours.

Published files and transformers put everything below `model.`; a file of the model without its head does not. The
image tower is read with and without its own prefix `timm_model.`, as transformers reads it.
"""

from collections.abc import Mapping

from mmcli.hub.weights import Rule
from mmcli.models.gemma3n.audio import AUDIO_TENSORS
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.mobilenet_v5 import TENSORS as VISION_TENSORS

ROOTS = ("model.", "")

TEXT_TENSORS = {
    "embed_tokens.weight": "embedding.weight",
    "embed_tokens_per_layer.weight": "per_layer.table.weight",
    "per_layer_model_projection.weight": "per_layer.projection.weight",
    "per_layer_projection_norm.weight": "per_layer.norm.weight",
    "altup_projections.{}.weight": "streams.into.{}.weight",
    "altup_unembed_projections.{}.weight": "streams.out.{}.weight",
    "norm.weight": "norm.weight",
    "layers.{}.altup.router_norm.weight": "layers.{}.altup.norm.weight",
    "layers.{}.altup.modality_router.weight": "layers.{}.altup.router.weight",
    "layers.{}.altup.prediction_coefs.weight": "layers.{}.altup.prediction.weight",
    "layers.{}.altup.correction_coefs.weight": "layers.{}.altup.correction.weight",
    "layers.{}.altup.correct_output_scale": "layers.{}.altup.scale",
    "layers.{}.laurel.linear_left.weight": "layers.{}.laurel.left.weight",
    "layers.{}.laurel.linear_right.weight": "layers.{}.laurel.right.weight",
    "layers.{}.laurel.post_laurel_norm.weight": "layers.{}.laurel.norm.weight",
    "layers.{}.input_layernorm.weight": "layers.{}.norm_attention.weight",
    "layers.{}.post_attention_layernorm.weight": "layers.{}.norm_attention_out.weight",
    "layers.{}.pre_feedforward_layernorm.weight": "layers.{}.norm_mlp.weight",
    "layers.{}.post_feedforward_layernorm.weight": "layers.{}.norm_mlp_out.weight",
    "layers.{}.self_attn.q_proj.weight": "layers.{}.attention.q.weight",
    "layers.{}.self_attn.k_proj.weight": "layers.{}.attention.k.weight",
    "layers.{}.self_attn.v_proj.weight": "layers.{}.attention.v.weight",
    "layers.{}.self_attn.o_proj.weight": "layers.{}.attention.out.weight",
    "layers.{}.self_attn.q_norm.weight": "layers.{}.attention.norm_q.weight",
    "layers.{}.self_attn.k_norm.weight": "layers.{}.attention.norm_k.weight",
    "layers.{}.mlp.gate_proj.weight": "layers.{}.mlp.gate.weight",
    "layers.{}.mlp.up_proj.weight": "layers.{}.mlp.up.weight",
    "layers.{}.mlp.down_proj.weight": "layers.{}.mlp.down.weight",
    "layers.{}.per_layer_input_gate.weight": "layers.{}.per_layer.gate.weight",
    "layers.{}.per_layer_projection.weight": "layers.{}.per_layer.out.weight",
    "layers.{}.post_per_layer_input_norm.weight": "layers.{}.per_layer.norm.weight",
}

# Published files still hold these of layers that attend to another layer's keys and values; nothing reads them.
SHARED = ("k_proj", "v_proj", "k_norm")

EMBEDDER_TENSORS = {
    "embedding.weight": "table.weight",
    "hard_embedding_norm.weight": "norm_hard.weight",
    "soft_embedding_norm.weight": "norm_soft.weight",
    "embedding_projection.weight": "projection.weight",
}


def rules(config: Gemma3nConfig) -> list[Rule]:
    """The table for one configuration, for every known prefix."""
    shared = {
        f"layers.{i}.self_attn.{name}.weight": None
        for i, layer in enumerate(config.text.layers)
        if layer.source != i
        for name in SHARED
    }
    text = ("language_model.",) if config.vision else ("language_model.", "")
    parts: list[tuple[str, str, Mapping[str, str | None]]]
    parts = [(prefix, "decoder.", {**shared, **TEXT_TENSORS}) for prefix in text]
    if config.vision:
        parts += [(prefix, "vision.tower.", VISION_TENSORS) for prefix in ("vision_tower.timm_model.", "vision_tower.")]
        parts += [("embed_vision.", "vision.embedder.", EMBEDDER_TENSORS)]
    if config.audio:
        parts += [("audio_tower.", "audio.tower.", AUDIO_TENSORS)]
        parts += [("embed_audio.", "audio.embedder.", EMBEDDER_TENSORS)]
    table = [
        Rule(root + prefix + name, None if target is None else ours + target)
        for root in ROOTS
        for prefix, ours, tensors in parts
        for name, target in tensors.items()
    ]
    return table + [Rule("lm_head.weight", None, copy_of="decoder.embedding.weight")]
