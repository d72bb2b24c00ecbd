"""Names of Llama 3.2 Vision's tensors: checkpoint → ours.

The published files and those that transformers writes today put the parts under different prefixes; both are read.
"""

from mmcli.hub.weights import Rule
from mmcli.models.llama import TENSORS
from mmcli.models.mllama.config import MllamaConfig

VISION_TENSORS = {
    "patch_embedding.weight": "patch.weight",
    "class_embedding": "whole",
    "gated_positional_embedding.gate": "position.gate",
    "gated_positional_embedding.embedding": "position.embedding",
    "gated_positional_embedding.tile_embedding.weight": "position.tiles.weight",
    "pre_tile_positional_embedding.{}": "tiles_before.{}",
    "pre_tile_positional_embedding.embedding.{}": "tiles_before.embedding.{}",
    "post_tile_positional_embedding.{}": "tiles_behind.{}",
    "post_tile_positional_embedding.embedding.{}": "tiles_behind.embedding.{}",
    "layernorm_pre.{}": "norm_before.{}",
    "layernorm_post.{}": "norm_behind.{}",
}
LAYERS = {"transformer.layers.{}.": "layers.{}.", "global_transformer.layers.{}.": "global_layers.{}."}
LAYER_TENSORS = {
    "self_attn.q_proj.weight": "attention.q.weight",
    "self_attn.k_proj.weight": "attention.k.weight",
    "self_attn.v_proj.weight": "attention.v.weight",
    "self_attn.o_proj.weight": "attention.out.weight",
    "mlp.fc1.{}": "mlp.up.{}",
    "mlp.fc2.{}": "mlp.down.{}",
    "input_layernorm.{}": "norm_attention.{}",
    "post_attention_layernorm.{}": "norm_mlp.{}",
    "gate_attn": "gate_attention",
    "gate_ffn": "gate_mlp",
}
CROSS_TENSORS = {
    "layers.{}.cross_attn.q_proj.weight": "layers.{}.cross.q.weight",
    "layers.{}.cross_attn.k_proj.weight": "layers.{}.cross.k.weight",
    "layers.{}.cross_attn.v_proj.weight": "layers.{}.cross.v.weight",
    "layers.{}.cross_attn.o_proj.weight": "layers.{}.cross.out.weight",
    "layers.{}.cross_attn.q_norm.weight": "layers.{}.cross.norm_q.weight",
    "layers.{}.cross_attn.k_norm.weight": "layers.{}.cross.norm_k.weight",
    "layers.{}.cross_attn_attn_gate": "layers.{}.gate_attention",
    "layers.{}.cross_attn_mlp_gate": "layers.{}.gate_mlp",
}
TEXT = ("model.language_model.", "language_model.model.")  # today's, and the published files'
HEADS = ("lm_head.weight", "language_model.lm_head.weight")


def rules(config: MllamaConfig) -> list[Rule]:
    """The table, for every known prefix."""
    vision = VISION_TENSORS | {
        where + name: ours + own for where, ours in LAYERS.items() for name, own in LAYER_TENSORS.items()
    }
    text = TENSORS | CROSS_TENSORS
    table = [
        Rule(prefix + name, None if own is None else f"decoder.{own}") for prefix in TEXT for name, own in text.items()
    ]
    for root in ("model.", ""):
        table += [Rule(f"{root}vision_model.{name}", f"vision.{own}") for name, own in vision.items()]
        table += [Rule(f"{root}multi_modal_projector.{{}}", "projector.{}")]
    return table + [Rule(head, "decoder.head.weight") for head in HEADS]
