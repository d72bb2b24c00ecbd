"""Florence-2 in its published sizes, built without memory: every tensor of both layouts has its place, and back."""

import florence2_folders as folders
import pytest
import torch
from places import stages_of
from transformers import Florence2Config, Florence2ForConditionalGeneration

from mmcli.hub.weights import place
from mmcli.models.florence2 import FAMILY
from mmcli.models.load import build_empty

VOCABULARY = {"native": 51_328, "vendor": 51_289}  # transformers has <image>, and rows up to a multiple of 64
SIZES = {
    "base": ((128, 256, 512, 1024), (4, 8, 16, 32), 768, 6, 12),
    "large": ((256, 512, 1024, 2048), (8, 16, 32, 64), 1024, 12, 16),
}
PUBLISHED = {
    "vision_tower.convs.0.proj.weight": (128, 3, 7, 7),
    "vision_tower.convs.1.norm.bias": (128,),
    "vision_tower.blocks.2.8.spatial_block.conv1.fn.dw.weight": (512, 1, 3, 3),
    "vision_tower.blocks.2.8.spatial_block.window_attn.norm.weight": (512,),
    "vision_tower.blocks.2.8.spatial_block.window_attn.fn.qkv.weight": (1536, 512),
    "vision_tower.blocks.3.0.channel_block.channel_attn.fn.proj.bias": (1024,),
    "vision_tower.blocks.0.0.channel_block.conv2.fn.dw.bias": (128,),
    "vision_tower.blocks.0.0.channel_block.ffn.norm.bias": (128,),
    "vision_tower.blocks.0.0.channel_block.ffn.fn.net.fc1.weight": (512, 128),
    "image_projection": (1024, 768),
    "image_proj_norm.weight": (768,),
    "image_pos_embed.row_embeddings.weight": (50, 512),
    "image_pos_embed.column_embeddings.weight": (50, 512),
    "visual_temporal_embed.pos_idx_to_embed": (100, 1024),
    "language_model.final_logits_bias": (1, 51289),
    "language_model.model.shared.weight": (51289, 768),
    "language_model.model.encoder.embed_tokens.weight": (51289, 768),
    "language_model.model.encoder.embed_positions.weight": (1026, 768),
    "language_model.model.decoder.layers.5.encoder_attn.out_proj.weight": (768, 768),
    "language_model.model.decoder.layernorm_embedding.weight": (768,),
    "language_model.lm_head.weight": (51289, 768),
}


def published(size: str, layout: str) -> Florence2Config:
    widths, heads, width, depth, text_heads = SIZES[size]
    vision = {"embed_dim": widths, "num_heads": heads, "num_groups": heads, "projection_dim": width}
    text = {
        "model_type": "bart", "vocab_size": VOCABULARY[layout], "d_model": width, "encoder_layers": depth,
        "decoder_layers": depth, "encoder_attention_heads": text_heads, "decoder_attention_heads": text_heads,
        "encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width,
    }  # fmt: skip
    return Florence2Config(vision_config=vision, text_config=text)


@pytest.mark.parametrize("layout", ["native", "vendor"])
@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes_agree_in_both_directions(size, layout):
    config = published(size, layout)
    with torch.device("meta"):
        reference = Florence2ForConditionalGeneration(config)
    raw = config.to_dict() if layout == "native" else folders.vendor_config(config)
    ours = FAMILY.read_config(raw)
    assert ours.native == (layout == "native")
    stored = reference.state_dict() if layout == "native" else folders.vendor_tensors(reference)
    wanted, placed = build_empty(FAMILY, ours).state_dict(), set()
    for name, tensor in stored.items():
        rule, target = place(FAMILY.rules(ours), name)
        assert rule is not None, f"no place for {name}"
        target = target or rule.copy_of
        assert wanted[target].shape == tensor.shape, name
        placed.add(target)
    assert placed == set(wanted)
    assert sum(stage.parameters for stage in stages_of(FAMILY, ours)) == sum(one.numel() for one in wanted.values())


def test_the_vendors_names_are_those_that_it_published():
    """Some of each kind, as others list them who read its files."""
    config = published("base", "vendor")
    with torch.device("meta"):
        tensors = folders.vendor_tensors(Florence2ForConditionalGeneration(config))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert {name: shapes.get(name) for name in PUBLISHED} == PUBLISHED
