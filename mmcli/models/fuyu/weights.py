"""Names of Fuyu's tensors: checkpoint → ours, under every prefix by which transformers wrote them."""

from mmcli.hub.weights import Rule
from mmcli.models.fuyu.config import FuyuConfig

TEXT = ("language_model.model.", "model.language_model.", "language_model.")  # the first is the published file's
LAYER = {
    "input_layernorm.{}": "norm_attention.{}",
    "post_attention_layernorm.{}": "norm_mlp.{}",
    "self_attn.query_key_value.{}": "attention.qkv.{}",
    "self_attn.dense.{}": "attention.out.{}",
    "self_attn.q_layernorm.{}": "attention.norm_q.{}",
    "self_attn.k_layernorm.{}": "attention.norm_k.{}",
    "mlp.dense_h_to_4h.{}": "mlp.up.{}",
    "mlp.dense_4h_to_h.{}": "mlp.down.{}",
}


def rules(config: FuyuConfig) -> list[Rule]:
    """The table for one configuration."""
    table = [Rule(f"{root}vision_embed_tokens.{{}}", "patches.{}") for root in ("", "model.")]
    table += [Rule(name, "decoder.head.weight") for name in ("language_model.lm_head.weight", "lm_head.weight")]
    for prefix in TEXT:
        table.append(Rule(f"{prefix}embed_tokens.weight", "decoder.embedding.weight"))
        table.append(Rule(f"{prefix}final_layernorm.{{}}", "decoder.norm.{}"))
        table += [Rule(f"{prefix}layers.{{}}.{name}", f"decoder.layers.{{}}.{own}") for name, own in LAYER.items()]
        # Computed, not learned; old files store it.
        table.append(Rule(f"{prefix}layers.{{}}.self_attn.rotary_emb.inv_freq", None))
    return table
