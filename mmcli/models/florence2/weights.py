"""Names of Florence-2's tensors: checkpoint → ours, for both layouts.

The vendor's layout wraps every part of a block in one that adds its input and perhaps norms it, hence `fn`, `dw`, `net`
(transformers `models/florence2/convert_florence2_original_pytorch_to_hf.py` has the pairs).
"""

from mmcli.hub.weights import Rule
from mmcli.models.florence2.config import Florence2Config

BLOCK = {  # of transformers
    "conv1.{}": "near_attention.conv.{}",
    "norm1.{}": "norm_attention.{}",
    "conv2.{}": "near_mlp.conv.{}",
    "norm2.{}": "norm_mlp.{}",
    "ffn.fc1.{}": "mlp.up.{}",
    "ffn.fc2.{}": "mlp.down.{}",
}
VENDOR_BLOCK = {
    "conv1.fn.dw.{}": "near_attention.conv.{}",
    "conv2.fn.dw.{}": "near_mlp.conv.{}",
    "ffn.norm.{}": "norm_mlp.{}",
    "ffn.fn.net.fc1.{}": "mlp.up.{}",
    "ffn.fn.net.fc2.{}": "mlp.down.{}",
}
ATTENTIONS = {"spatial": "window_attn", "channel": "channel_attn"}

PROJECTOR = {
    "image_projection.weight": "weight",
    "image_proj_norm.{}": "norm.{}",
    "image_position_embed.row_embeddings.weight": "row",
    "image_position_embed.column_embeddings.weight": "column",
    "visual_temporal_embed.pos_idx_to_embed": "frame",
}
VENDOR_PROJECTOR = {
    "image_projection": "weight",
    "image_proj_norm.{}": "norm.{}",
    "image_pos_embed.row_embeddings.weight": "row",
    "image_pos_embed.column_embeddings.weight": "column",
    "visual_temporal_embed.pos_idx_to_embed": "frame",
}

SIDE = {"embed_positions.weight": "position", "layernorm_embedding.{}": "norm.{}"}
LAYER = {
    "self_attn_layer_norm.{}": "norm_attention.{}",
    "final_layer_norm.{}": "norm_mlp.{}",
    "fc1.{}": "mlp.up.{}",
    "fc2.{}": "mlp.down.{}",
}
CROSS = {"encoder_attn_layer_norm.{}": "norm_cross.{}"}
PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}


def rules(config: Florence2Config) -> list[Rule]:
    """The table for one configuration, whose layout tells which names there are."""
    table = _vision(config.native) | _language("model.language_model." if config.native else "language_model.model.")
    if config.native:
        table |= {f"model.multi_modal_projector.{theirs}": f"projector.{ours}" for theirs, ours in PROJECTOR.items()}
        head, shared = "lm_head.weight", "model.language_model."
    else:
        table |= {theirs: f"projector.{ours}" for theirs, ours in VENDOR_PROJECTOR.items()}
        table["language_model.final_logits_bias"] = "language.head_bias"
        head, shared = "language_model.lm_head.weight", "language_model.model."
    copies = (head, f"{shared}encoder.embed_tokens.weight", f"{shared}decoder.embed_tokens.weight")
    found = [Rule(pattern, target) for pattern, target in table.items()]
    return found + [Rule(name, None, copy_of="language.embedding.weight") for name in copies]


def _vision(native: bool) -> dict[str, str]:
    root = "model.vision_tower." if native else "vision_tower."
    table = {
        f"{root}convs.{{}}.{'conv' if native else 'proj'}.{{}}": "vision.stages.{}.merge.conv.{}",
        f"{root}convs.{{}}.norm.{{}}": "vision.stages.{}.merge.norm.{}",
    }
    for kind, attention in ATTENTIONS.items():
        block = dict(BLOCK if native else VENDOR_BLOCK)
        inner = attention if native else f"{attention}.fn"
        block |= {f"{inner}.qkv.{{}}": "attention.qkv.{}", f"{inner}.proj.{{}}": "attention.out.{}"}
        if not native:
            block[f"{attention}.norm.{{}}"] = "norm_attention.{}"
        prefix, ours = f"{root}blocks.{{}}.{{}}.{kind}_block.", f"vision.stages.{{}}.{kind}.{{}}."
        table |= {prefix + theirs: ours + target for theirs, target in block.items()}
    return table


def _language(root: str) -> dict[str, str]:
    table = {f"{root}shared.weight": "language.embedding.weight"}
    for side in ("encoder", "decoder"):
        theirs, ours = f"{root}{side}.", f"language.{side}."
        table |= {theirs + name: ours + target for name, target in SIDE.items()}
        attentions = {"self_attn": "attention"} | ({"encoder_attn": "cross"} if side == "decoder" else {})
        layer = LAYER | (CROSS if side == "decoder" else {})
        layer |= {
            f"{attention}.{part}.{{}}": f"{target}.{own}.{{}}"
            for attention, target in attentions.items()
            for part, own in PROJECTIONS.items()
        }
        table |= {f"{theirs}layers.{{}}.{name}": f"{ours}layers.{{}}.{target}" for name, target in layer.items()}
    return table
