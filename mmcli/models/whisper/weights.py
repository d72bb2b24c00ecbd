"""Names of Whisper's tensors: checkpoint → ours."""

from mmcli.hub.weights import Rule
from mmcli.models.whisper.config import WhisperConfig

TENSORS = {
    "encoder.conv1.{}": "encoder.conv1.{}",
    "encoder.conv2.{}": "encoder.conv2.{}",
    "encoder.embed_positions.weight": "encoder.position",
    "encoder.layer_norm.{}": "encoder.norm.{}",
    "decoder.embed_tokens.weight": "decoder.embedding.weight",
    "decoder.embed_positions.weight": "decoder.position",
    "decoder.layer_norm.{}": "decoder.norm.{}",
    "decoder.layers.{}.encoder_attn_layer_norm.{}": "decoder.layers.{}.norm_cross.{}",
}
LAYER_TENSORS = {
    "self_attn_layer_norm.{}": "norm_attention.{}",
    "final_layer_norm.{}": "norm_mlp.{}",
    "fc1.{}": "mlp.up.{}",
    "fc2.{}": "mlp.down.{}",
}
ATTENTIONS = {"encoder": {"self_attn": "attention"}, "decoder": {"self_attn": "attention", "encoder_attn": "cross"}}
PROJECTIONS = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "out"}


def rules(config: WhisperConfig) -> list[Rule]:
    """The table; it is the same for every size. Some files leave the leading "model." out."""
    table = dict(TENSORS)
    for side, attentions in ATTENTIONS.items():
        layer = f"{side}.layers.{{}}."
        table |= {layer + theirs: layer + ours for theirs, ours in LAYER_TENSORS.items()}
        table |= {
            f"{layer}{theirs}.{part}.{{}}": f"{layer}{ours}.{ours_part}.{{}}"
            for theirs, ours in attentions.items()
            for part, ours_part in PROJECTIONS.items()
        }
    found = [Rule(root + pattern, target) for root in ("model.", "") for pattern, target in table.items()]
    return [*found, Rule("proj_out.weight", None, copy_of="decoder.embedding.weight")]
