"""Gemma 3n checkpoints of the published sizes with random weights.

Layers, widths and tables are the published ones, and so are the ids; the tokenizer is a tiny one filled up.
"""

from pathlib import Path

ROWS, HARD = 262_144, 128  # ids of text, and hard tokens of images and of audio

# Layers, MLP width, layers that share keys and values.
SIZES = {"3n-small": (10, 2048, 5), "e2b": (30, 8192, 10), "e4b": (35, 16_384, 15)}


def make(folder: Path, size_name: str, dtype: str = "bfloat16") -> None:
    """Write a checkpoint of a size named in `SIZES` into `folder`: 11 GB for e2b, 16 GB for e4b."""
    import gemma3n_folders as folders  # before transformers
    import torch
    from gemma3n_models import spread_of
    from random_weights import write_shards
    from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

    layers, mlp, shared = SIZES[size_name]
    text = {
        "num_hidden_layers": layers, "intermediate_size": mlp, "num_kv_shared_layers": shared,
        "layer_types": ["full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(layers)],
        "activation_sparsity_pattern": [0.95] * 10 + [0.0] * (layers - 10),
    }  # fmt: skip
    ids = {f"{name}_id": id for name, id in folders.ids(ROWS, HARD).items()}
    config = Gemma3nConfig(**ids, text_config=text)
    config.dtype, config.architectures = dtype, ["Gemma3nForConditionalGeneration"]
    with torch.device("meta"):
        tensors = dict(Gemma3nForConditionalGeneration(config).named_parameters())  # without the head, which is tied
    config.save_pretrained(folder)
    write_shards(
        folder,
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtype,
        lambda name, _: spread_of(name, tensors[name]),
        lambda name: centre(name, tensors[name]),
    )
    folders.write_processor(folder, tokenizer=folders.tiny_tokenizer(ROWS, HARD))


def centre(name: str, parameter) -> float:
    """Norms and scales of layers are about one."""
    from gemma3n_models import centre_of

    return 1.0 if parameter.ndim == 1 and "bias" not in name else centre_of(name)
