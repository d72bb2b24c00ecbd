"""Small MiniCPM-V checkpoints in the published layout: config.json, names of tensors, tokenizers, settings.

Nothing here knows mmcli or transformers. Weights are drawn by name from numpy's frozen generator, so that the numbers
which the published code gave for the same folders could be recorded (`tests/minicpmv_recorded.json`).
"""

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = """Describe this picture in one sentence. what is on the left and the right of them a cat dog mat ; 用户 AI
how many cats are there? You are a helpful assistant. system user assistant hello world image 0 1 2 3"""

WIDTH, MLP, DEPTH, HEADS, ROWS = 256, 96, 3, 4, 480
QUERIES, SIDE, PATCH = 4, 56, 14
TOWER = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 4}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}

DECODER = {
    "architectures": ["MiniCPMV"], "model_type": "minicpmv", "vocab_size": ROWS, "hidden_size": WIDTH,
    "intermediate_size": MLP, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "use_cache": True, "max_position_embeddings": 2048,
    "image_size": 448, "patch_size": PATCH, "query_num": QUERIES, "slice_mode": True, "torch_dtype": "float32",
}  # fmt: skip
SLICES = {"max_slice_nums": 4, "scale_resolution": SIDE, "patch_size": PATCH}
# As in the published files of 1.0 and 2.0, no version; the tower is named, and here described besides, for it is small.
FIRST = {
    "num_key_value_heads": HEADS, "rope_theta": 10_000.0, "rope_scaling": None, "bos_token_id": 1,
    "eos_token_id": 2, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 64, "drop_vision_last_layer": True,
    "attention_bias": False, "vision_encoder": "vit_so400m_patch14_siglip_384.webli",
    "vision_config": TOWER | {"image_size": 70, "patch_size": PATCH},
}  # fmt: skip
CONFIGS: dict[str, dict] = {
    "1.0": {key: value for key, value in DECODER.items() if key != "slice_mode"} | FIRST | {"image_size": 84},
    "2.0": DECODER | SLICES | FIRST,
    "2.5": DECODER | {
        "version": "2.5", "num_key_value_heads": 2, "rope_theta": 500_000.0, "rope_scaling": None, "bos_token_id": 1,
        "eos_token_id": 2, "drop_vision_last_layer": False, "attention_bias": False,
        "slice_config": SLICES | {"model_type": "minicpmv"},
        "vision_config": TOWER | {"image_size": 98, "patch_size": PATCH, "model_type": "idefics2"},
    },
    "2.6": DECODER | {
        "version": 2.6, "num_key_value_heads": 2, "rope_theta": 1_000_000.0, "rms_norm_eps": 1e-6, "bos_token_id": 1,
        "eos_token_id": 2, "drop_vision_last_layer": False, "use_sliding_window": False, "sliding_window": 131072,
        "max_window_layers": 28, "slice_config": SLICES | {"model_type": "minicpmv"},
        "vision_config": TOWER | {"image_size": 98, "patch_size": PATCH, "model_type": "siglip"},
    },
}  # fmt: skip

OLD = ("1.0", "2.0")
MARKS = ["<image>", "</image>", "<slice>", "</slice>"]
ID_MARKS = ["<image_id>", "</image_id>"]
TURN = {"1.0": [], "2.0": [], "2.5": ["<|start_header_id|>", "<|end_header_id|>"], "2.6": ["<|im_start|>"]}
STOPS = {"1.0": "</s>", "2.0": "</s>", "2.5": "<|eot_id|>", "2.6": "<|im_end|>"}
TEMPLATES = {
    "1.0": None,
    "2.0": None,
    "2.5": """{% for message in messages %}{% set said = '<|start_header_id|>' + message['role'] + \
'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{{ bos_token }}{% endif %}\
{{ said }}{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}""",
    "2.6": """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}\
{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}\
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
}


def specials(version: str) -> list[str]:
    """The special tokens, whose ids are their places in this list."""
    begin = ["<unk>", "<s>", "</s>"] if version in OLD else ["<unk>", "<|begin|>", "<|endoftext|>", STOPS[version]]
    return [
        *begin,
        *(MARKS[:2] if version == "1.0" else MARKS),
        *(ID_MARKS if version == "2.6" else []),
        *TURN[version],
    ]


def tiny_tokenizer(version: str) -> Tokenizer:
    """1.0 and 2.0: pieces with "▁" for spaces, one in front of every text, bytes as the last resort.

    The others: bytes in pairs.
    """
    names = specials(version)
    learner = Tokenizer(models.BPE())
    if version in OLD:
        learner.normalizer = normalizers.Replace(" ", "▁")
        learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        alphabet = []
        pieces = [*names, *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        pieces = list(names)
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=sorted(alphabet))
    learner.train_from_iterator(WORDS.split("\n"), trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces += sorted(learned["vocab"], key=learned["vocab"].get)
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(merge) for merge in learned["merges"]]
    if version in OLD:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    assert tokenizer.get_vocab_size() <= ROWS
    return tokenizer


Shapes = dict[str, tuple[int, ...]]


def shapes(config: dict) -> Shapes:
    """Published names → shapes of the tensors of a checkpoint with this config.json.

    Those of 1.0 and 2.0 have no version.
    """
    width, inner, queries = config["hidden_size"], config["intermediate_size"], config["query_num"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    square = {name: (width, width) for name in ("self_attn.q_proj", "self_attn.o_proj")}
    layer = square | {"self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width)}
    layer |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner)}
    layer |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
    found: Shapes = {f"{name}.weight": shape for name, shape in layer.items()}
    if config.get("version") == 2.6:
        found |= {f"self_attn.{name}_proj.bias": layer[f"self_attn.{name}_proj"][:1] for name in "qkv"}
    depth = range(config["num_hidden_layers"])
    found = {f"llm.model.layers.{i}.{name}": shape for i in depth for name, shape in found.items()}
    found |= {f"llm.{name}.weight": (config["vocab_size"], width) for name in ("model.embed_tokens", "lm_head")}
    found |= {"llm.model.norm.weight": (width,), "resampler.query": (queries, width), "resampler.proj": (width, width)}
    found |= named("resampler.attn.out_proj", linear(width, width))
    found |= {"resampler.attn.in_proj_weight": (3 * width, width), "resampler.attn.in_proj_bias": (3 * width,)}
    for name in ("ln_q", "ln_kv", "ln_post"):
        found |= named(f"resampler.{name}", {"weight": (width,), "bias": (width,)})
    if "version" not in config:
        found["resampler.pos_embed"] = (queries, width)
    tower = SO400M | config.get("vision_config", {"image_size": 384})
    found["resampler.kv_proj.weight"] = (width, tower["hidden_size"])
    return found | tower_shapes(tower, timm="version" not in config)


def tower_shapes(config: dict, timm: bool) -> Shapes:
    """The tower's; by timm's names, without the last layer, or by transformers'."""
    width, inner, depth = (config[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    places = (config["image_size"] // PATCH) ** 2
    patch: Shapes = {"weight": (width, 3, PATCH, PATCH), "bias": (width,)}
    norm: Shapes = {"weight": (width,), "bias": (width,)}
    mlp = named("mlp.fc1", linear(inner, width)) | named("mlp.fc2", linear(width, inner))
    if timm:
        block = named("norm1", norm) | named("norm2", norm) | named("attn.qkv", linear(3 * width, width))
        block |= named("attn.proj", linear(width, width)) | mlp
        found = {f"blocks.{i}.{name}": shape for i in range(depth - 1) for name, shape in block.items()}
        found |= named("patch_embed.proj", patch) | named("norm", norm) | {"pos_embed": (1, places, width)}
    else:
        block = named("layer_norm1", norm) | named("layer_norm2", norm) | mlp
        for name in ("q", "k", "v", "out"):
            block |= named(f"self_attn.{name}_proj", linear(width, width))
        found = {f"encoder.layers.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}
        found |= named("embeddings.patch_embedding", patch) | named("post_layernorm", norm)
        found |= {"embeddings.position_embedding.weight": (places, width)}
    return {f"vpm.{name}": shape for name, shape in found.items()}


def linear(rows: int, columns: int) -> Shapes:
    return {"weight": (rows, columns), "bias": (rows,)}


def named(prefix: str, parts: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in parts.items()}


def weights(version: str, seed: int) -> dict[str, torch.Tensor]:
    """Numbers by which every part matters, the same on every machine."""
    return {name: drawn(name, shape, seed) for name, shape in shapes(CONFIGS[version]).items()}


def drawn(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = np.random.RandomState(crc32(f"{seed} {name}".encode()))
    numbers = centre_of(name) + spread_of(name, shape) * generator.standard_normal(shape)
    return torch.from_numpy(numbers.astype(np.float32))


def spread_of(name: str, shape: tuple[int, ...]) -> float:
    """The standard deviation by which a tensor matters and numbers stay in range from layer to layer."""
    if "pos_embed" in name or "position_embedding" in name or name.endswith("query"):
        return 0.5
    if "embed_tokens" in name:
        return 0.25
    return float(1.5 * np.prod(shape[1:]) ** -0.5) if len(shape) > 1 else 0.3


def centre_of(name: str) -> float:
    """The mean: norms multiply by about one."""
    return 1.0 if name.endswith("weight") and ("norm" in name or ".ln_" in name) else 0.0


def preprocessor(version: str) -> dict:
    """preprocessor_config.json as published beside 2.6 (and 2.5)."""
    return SLICES | {
        "image_processor_type": "MiniCPMVImageProcessor", "use_image_id": version == "2.6", "slice_mode": True,
        "image_feature_size": QUERIES, "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3, "version": float(version),
        "im_start": "<image>", "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>",
        "unk": "<unk>", "im_id_start": "<image_id>", "im_id_end": "</image_id>",
    }  # fmt: skip


def write_folder(folder: Path, version: str, seed: int = 1) -> Path:
    """A checkpoint of one version, as published."""
    _write(folder / "config.json", CONFIGS[version])
    save_file(weights(version, seed), folder / "model.safetensors", metadata={"format": "pt"})
    return write_tokens(folder, version)


def write_tokens(folder: Path, version: str) -> Path:
    """All but the weights and config.json."""
    begin, end = specials(version)[1], specials(version)[2]
    tokens = {"bos_token": begin, "eos_token": end, "unk_token": "<unk>", "add_bos_token": version in OLD}
    if TEMPLATES[version]:
        tokens["chat_template"] = TEMPLATES[version]
    if version not in OLD:
        _write(folder / "preprocessor_config.json", preprocessor(version))
    _write(folder / "tokenizer_config.json", tokens)
    _write(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 3] if version == "2.6" else 2})
    tiny_tokenizer(version).save(str(folder / "tokenizer.json"))
    return folder


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content), "utf-8")


def image(width: int, height: int) -> Image.Image:
    """An image of any shape with structure at all scales, the same on every machine."""
    y, x = np.mgrid[:height, :width]
    bands = (x * 37 + y * 11) % 256, (x * 5 + y * 83) % 256, (x * x + 3 * y) % 256
    return Image.fromarray(np.stack(bands, -1).astype(np.uint8))
