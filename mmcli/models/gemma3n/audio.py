"""Gemma 3n's audio encoder: its part of config.json, the names of its tensors, and what `inspect` shows of it.

What a checkpoint leaves out has the value that transformers gives it (`models/gemma3n/configuration_gemma3n.py`,
`Gemma3nAudioConfig`).
"""

from typing import Any

from mmcli.errors import ModelError
from mmcli.hub.fields import DEPTH, EPSILON, HEADS, WIDTH, Fields
from mmcli.models.gemma3n.conformer import ConformerConfig, ConformerEncoder
from mmcli.models.gemma3n.features import LONGEST, PUBLISHED, RATE
from mmcli.models.stages import Stage, parameter_count

ABSENT = {
    "input_feat_size": 128, "hidden_size": 1536, "conf_num_hidden_layers": 12, "conf_num_attention_heads": 8,
    "sscp_conv_channel_size": (128, 32), "sscp_conv_kernel_size": ((3, 3), (3, 3)),
    "sscp_conv_stride_size": ((2, 2), (2, 2)), "sscp_conv_group_norm_eps": 1e-3, "rms_norm_eps": 1e-6,
    "conf_attention_chunk_size": 12, "conf_attention_context_left": 13, "conf_attention_context_right": 0,
    "conf_attention_logit_cap": 50.0, "conf_conv_kernel_size": 5, "conf_reduction_factor": 4,
    "conf_residual_weight": 0.5, "gradient_clipping": 1e10,
}  # fmt: skip
FRAMES = (1, 512)  # that an attention or a convolution spans
FRAMES_OR_NONE = (0, 512)
BOUNDS = {
    "input_feat_size": (1, 1024), "hidden_size": (2, WIDTH[1]), "conf_num_hidden_layers": DEPTH,
    "conf_num_attention_heads": HEADS, "conf_attention_chunk_size": FRAMES,
    "conf_attention_context_left": FRAMES_OR_NONE, "conf_attention_context_right": FRAMES_OR_NONE,
    "conf_conv_kernel_size": FRAMES, "conf_reduction_factor": (0, 64),
}  # fmt: skip
PAIRS = {"sscp_conv_channel_size": (1, 4096), "sscp_conv_kernel_size": (1, 64), "sscp_conv_stride_size": (1, 64)}


def read_conformer(raw: dict[str, Any]) -> ConformerConfig:
    """Read `audio_config` of config.json. Raises ModelError for what is no configuration of this encoder."""
    fields = Fields(raw, "This Gemma 3n's config.json", ABSENT, "audio_config.")
    sizes = {key: fields.whole(key, *bounds) for key, bounds in BOUNDS.items()}
    config = ConformerConfig(
        mels=sizes["input_feat_size"],
        width=sizes["hidden_size"],
        depth=sizes["conf_num_hidden_layers"],
        heads=sizes["conf_num_attention_heads"],
        channels=_pair(fields, "sscp_conv_channel_size", fields.get("sscp_conv_channel_size")),
        kernels=_pairs(fields, "sscp_conv_kernel_size"),
        strides=_pairs(fields, "sscp_conv_stride_size"),
        group_norm_epsilon=fields.number("sscp_conv_group_norm_eps", *EPSILON),
        norm_epsilon=fields.number("rms_norm_eps", *EPSILON),
        chunk=sizes["conf_attention_chunk_size"],
        past=max(0, sizes["conf_attention_context_left"] - 1),  # the checkpoint counts the frame itself
        future=sizes["conf_attention_context_right"],
        score_cap=fields.positive("conf_attention_logit_cap"),
        kernel=sizes["conf_conv_kernel_size"],
        reduction=max(1, sizes["conf_reduction_factor"]),
        residual=fields.number("conf_residual_weight", -100, 100),
        limit=fields.positive("gradient_clipping", 1e38),
    )
    if config.width % config.heads or config.width % 2:
        raise ModelError(f"The audio encoder's {config.width} numbers cannot be split among {config.heads} heads")
    if min(config.bins()) < 1:
        raise ModelError(f"The audio encoder's convolutions leave nothing of {config.mels} mel bins")
    return config


def _pair(fields: Fields, key: str, value: Any) -> tuple[int, int]:
    """Two whole numbers; `value` is that of a field or a part of it."""
    low, high = PAIRS[key]
    one = Fields({key: value}, fields.where, path=fields.path)
    first, second = one.wholes(key, low, high, longest=2, length=2)
    return first, second


def _pairs(fields: Fields, key: str) -> tuple[tuple[int, int], tuple[int, int]]:
    first, second = fields.items(key, longest=2, length=2)
    return _pair(fields, key, first), _pair(fields, key, second)


# -- names -------------------------------------------------------------------------------------------------------

# All of the encoder's: names below `audio_tower.` → names in ConformerEncoder.
AUDIO_TENSORS = {
    "subsample_conv_projection.conv_0.{}.weight": "subsampling.convolutions.0.{}.weight",
    "subsample_conv_projection.conv_1.{}.weight": "subsampling.convolutions.1.{}.weight",
    "subsample_conv_projection.input_proj_linear.weight": "subsampling.out.weight",
    "conformer.{}.attention.pre_attn_norm.weight": "layers.{}.attention.norm_in.weight",
    "conformer.{}.attention.attn.q_proj.weight": "layers.{}.attention.q.weight",
    "conformer.{}.attention.attn.k_proj.weight": "layers.{}.attention.k.weight",
    "conformer.{}.attention.attn.v_proj.weight": "layers.{}.attention.v.weight",
    "conformer.{}.attention.attn.per_dim_scale": "layers.{}.attention.query_scale",
    "conformer.{}.attention.attn.relative_position_embedding.pos_proj.weight": "layers.{}.attention.distance.weight",
    "conformer.{}.attention.post.weight": "layers.{}.attention.out.weight",
    "conformer.{}.attention.post_norm.weight": "layers.{}.attention.norm_out.weight",
    "conformer.{}.lconv1d.pre_layer_norm.weight": "layers.{}.convolution.norm_in.weight",
    "conformer.{}.lconv1d.linear_start.weight": "layers.{}.convolution.gate.weight",
    "conformer.{}.lconv1d.depthwise_conv1d.weight": "layers.{}.convolution.conv.weight",
    "conformer.{}.lconv1d.conv_norm.weight": "layers.{}.convolution.norm_conv.weight",
    "conformer.{}.lconv1d.linear_end.weight": "layers.{}.convolution.out.weight",
    "conformer.{}.norm.weight": "layers.{}.norm.weight",
} | {
    f"conformer.{{}}.{their_part}.{theirs}.weight": f"layers.{{}}.{our_part}.{ours}.weight"
    for their_part, our_part in (("ffw_layer_start", "mlp_before"), ("ffw_layer_end", "mlp_after"))
    for theirs, ours in (
        ("pre_layer_norm", "norm_in"), ("ffw_layer_1", "up"), ("ffw_layer_2", "down"), ("post_layer_norm", "norm_out"),
    )
}  # fmt: skip


# -- stages ------------------------------------------------------------------------------------------------------


def audio_stages(config: ConformerConfig, encoder: ConformerEncoder) -> list[Stage]:
    """The way of the longest recording through the front end and the encoder."""
    frames = PUBLISHED.frames(LONGEST)
    positions, seen = config.positions(frames), f"{config.past} before it"
    if config.future:
        seen += f" and {config.future} behind it"
    return [
        Stage(
            "audio",
            "log-mel",
            f"{frames} × {config.mels}",
            0,
            (f"up to {LONGEST // RATE} s at {RATE // 1000} kHz", f"a frame every {1000 * PUBLISHED.hop // RATE} ms"),
        ),
        Stage(
            "sub-sampling",
            "convolutions",
            f"{positions} × {config.width}",
            parameter_count(encoder.subsampling),
            (f"{config.channels[0]} and {config.channels[1]} channels", "normed by the frames so far"),
        ),
        Stage(
            "audio encoder",
            "conformer",
            f"{config.vectors(frames)} × {config.width}",
            parameter_count(encoder.layers),
            (
                f"{config.depth} layers, {config.heads} heads, mlp {4 * config.width}",
                f"each frame attends to itself and {seen}",
                f"of {config.reduction} vectors, one is kept",
            ),
        ),
    ]
