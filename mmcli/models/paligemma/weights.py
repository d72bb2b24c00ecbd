"""Names of PaliGemma's tensors: checkpoint → ours.

Several generations of transformers wrote the same tensors under different prefixes; all of them are read.
"""

from mmcli.hub.weights import Rule
from mmcli.models.paligemma.config import PaliGemmaConfig
from mmcli.models.siglip import tower_rules

VISION = ("vision_tower.vision_model.", "vision_tower.")
TEXT = ("language_model.model.", "language_model.")
HEADS = ("language_model.lm_head.weight", "lm_head.weight")

TEXT_TENSORS = {
    "embed_tokens.weight": "decoder.embedding.weight",
    "layers.{}.input_layernorm.weight": "decoder.layers.{}.norm_attention.weight",
    "layers.{}.self_attn.q_proj.weight": "decoder.layers.{}.attention.q.weight",
    "layers.{}.self_attn.k_proj.weight": "decoder.layers.{}.attention.k.weight",
    "layers.{}.self_attn.v_proj.weight": "decoder.layers.{}.attention.v.weight",
    "layers.{}.self_attn.o_proj.weight": "decoder.layers.{}.attention.out.weight",
    "layers.{}.mlp.gate_proj.weight": "decoder.layers.{}.mlp.gate.weight",
    "layers.{}.mlp.up_proj.weight": "decoder.layers.{}.mlp.up.weight",
    "layers.{}.mlp.down_proj.weight": "decoder.layers.{}.mlp.down.weight",
    "norm.weight": "decoder.norm.weight",
    "layers.{}.self_attn.rotary_emb.inv_freq": None,  # computed, not learned; old files store it
}

# The same name means different norms: Gemma 1 has one after attention, which is the one before the MLP.
GEMMA_NORMS = {"layers.{}.post_attention_layernorm.weight": "decoder.layers.{}.norm_mlp.weight"}
GEMMA2_NORMS = {
    "layers.{}.post_attention_layernorm.weight": "decoder.layers.{}.norm_attention_out.weight",
    "layers.{}.pre_feedforward_layernorm.weight": "decoder.layers.{}.norm_mlp.weight",
    "layers.{}.post_feedforward_layernorm.weight": "decoder.layers.{}.norm_mlp_out.weight",
}


def rules(config: PaliGemmaConfig) -> list[Rule]:
    """The table for one configuration, for every known prefix."""
    norms = GEMMA2_NORMS if config.decoder.sandwich_norms else GEMMA_NORMS
    roots = ("", "model.")
    table = [rule for root in roots for prefix in VISION for rule in tower_rules(root + prefix)]
    table += [
        Rule(root + prefix + pattern, target)
        for root in roots
        for prefix in TEXT
        for pattern, target in (TEXT_TENSORS | norms).items()
    ]
    table += [Rule(f"{root}multi_modal_projector.linear.{{}}", "projector.{}") for root in roots]
    return table + [Rule(head, None, copy_of="decoder.embedding.weight") for head in HEADS]
