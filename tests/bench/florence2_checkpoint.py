"""Florence-2 checkpoints of the published sizes with random weights; the tokenizer is a tiny one."""

from pathlib import Path

ROWS = 51_328
SIDE = 768

# Widths of the tower's stages, heads of the first; width, layers a side, heads of the language model.
SIZES = {
    "florence2-base": ((128, 256, 512, 1024), 4, 768, 6, 12),
    "florence2-large": ((256, 512, 1024, 2048), 8, 1024, 12, 16),
}


def make(folder: Path, size_name: str, dtype: str = "float32") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`, with the published settings of writing."""
    import florence2_folders as folders  # before transformers
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    widths, first, width, depth, text_heads = SIZES[size_name]
    heads = [first << stage for stage in range(len(widths))]
    vision = {"embed_dim": widths, "num_heads": heads, "num_groups": heads, "projection_dim": width}
    text = {
        "model_type": "bart", "vocab_size": ROWS, "d_model": width, "encoder_layers": depth, "decoder_layers": depth,
        "encoder_attention_heads": text_heads, "decoder_attention_heads": text_heads, "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Florence2ForConditionalGeneration(
        Florence2Config(vision_config=vision, text_config=text, image_token_id=folders.IMAGE)
    )
    for key, value in folders.WRITING.items():
        setattr(model.generation_config, key, value)
    folders.write_checkpoint(folder, model.to(getattr(torch, dtype)), SIDE)
