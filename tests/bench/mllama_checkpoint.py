"""Llama 3.2 Vision checkpoints with random weights: layers and tables as published, a tiny tokenizer with low ids."""

from pathlib import Path
from typing import Any

TOWER = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8,
    "attention_heads": 16, "image_size": 560, "patch_size": 14, "intermediate_layers_indices": [3, 7, 15, 23, 30],
    "vision_output_dim": 7680,
}  # fmt: skip
DECODER = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    "max_position_embeddings": 131_072,
}  # fmt: skip
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"mllama-tiny": ({}, {}), "mllama-11b": (TOWER, DECODER)}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 21 GB for mllama-11b."""
    import mllama_folders as folders  # before transformers
    import torch
    from random_weights import write_shards
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    vision, text = SIZES[size_name]
    raw = folders.tiny_raw(**text)
    raw["vision_config"] |= vision
    config = MllamaConfig(**raw)
    with torch.device("meta"):
        tensors = MllamaForConditionalGeneration(config).state_dict()
    config.save_pretrained(folder)
    write_shards(
        folder,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtype,
        lambda name, _: folders.spread_of(name, tensors[name]),
        lambda name: folders.centre_of(name, tensors[name]),
    )
    side = raw["vision_config"]["image_size"]
    folders.write_processor(folder, size={"height": side, "width": side})


def reference_inputs(given: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What transformers' model takes beside the tokens, from mmcli's inputs of rows with one image each."""
    import torch

    from mmcli.models.mllama.cross_mask import cross_attention_mask
    from mmcli.models.mllama.tiles import arrangements

    most, device = config["vision_config"]["max_num_tiles"], given.tokens.device
    counts = [rows * columns for rows, columns in given.image_layouts]
    there = torch.arange(most) < torch.tensor(counts)[:, None]
    numbers = [[arrangements(most).index(layout) + 1] for layout in given.image_layouts]
    seen = cross_attention_mask(given.tokens.cpu(), config["image_token_index"], counts, most, 1)
    return {
        "pixel_values": torch.stack(given.images)[:, None],
        "aspect_ratio_ids": torch.tensor(numbers, device=device),
        "aspect_ratio_mask": there[:, None].long().to(device),
        "cross_attention_mask": seen[:, :, None].long().to(device),
    }
