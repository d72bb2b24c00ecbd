"""Small OmniLMM checkpoints in the published layout: random weights, a tokenizer like Zephyr's.

What the reference makes of the very same tensors and tokenizer is recorded in `omnilmm_reference.json`: turns, prompts,
greedy answers, and the soft tokens of an image. It was made with OpenBMB/MiniCPM-V at 0dbb566 in float32 on a CPU:
`create_vision_module` of `omnilmm/model/omnilmm.py` with timm's `Eva` in the sizes below, `get_vllm_embedding` there,
`wrap_question_for_omni_lmm` of `chat.py` with `omni_preprocess` of `omnilmm/train/train_utils.py` for prompts,
`build_transform` of `omnilmm/model/utils.py` for pixels; then `MistralForCausalLM` of transformers 5.24 wrote from
these vectors, twice: with a cache, and reading all anew for each token. In every step the best token led by 0.001 at
least. The keys are the seeds of `tensors`; `image` holds the arguments of `image` below.

Every number is drawn so that it is the same on any machine.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

WORDS = [
    "what", "is", "in", "the", "image", "cat", "dog", "left", "right", "of", "it", "who", "a", "you", "are", "us",
    "he", "lp", "ful", "an", "d", "to",
]  # fmt: skip
CONTROL = ["<im_patch>", "<im_start>", "<im_end>", "<box>", "</box>", "<ref>", "</ref>", "<quad>", "</quad>"]
# As published with Zephyr 7B beta, whose template OmniLMM's training and chat.py go by.
TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ROWS = 400

COMMON = {
    "model_type": "omnilmm", "architectures": ["OmniLMMForCausalLM"], "mm_vision_tower": "eva02_enormous",
    "mm_use_im_start_end": True, "use_mm_proj": True, "tune_clip": True, "vocab_size": ROWS, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}  # fmt: skip
VISION = {"img_size": 28, "patch_size": 7, "depth": 3, "num_heads": 4}
CONFIGS = {
    # Positions of tower and resampler are stretched, and prompts are longer than the window.
    1: COMMON | {
        "hidden_size": 256, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "sliding_window": 48, "image_size": 56, "num_query": 16,
        "vision_config": VISION | {"embed_dim": 48, "mlp_hidden_dim": 80},
    },
    # Those of the tower are not, there is no window, one head reads for the resampler.
    2: COMMON | {
        "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "sliding_window": None, "image_size": 28, "num_query": 9,
        "vision_config": VISION | {"embed_dim": 32, "mlp_hidden_dim": 96},
    },
}  # fmt: skip

# openbmb/OmniLMM-12B: Zephyr 7B beta, nine more tokens, 64 queries for images of 448 pixels.
PUBLISHED = {
    "model_type": "omnilmm", "mm_vision_tower": "eva02_enormous_patch14_clip_224.laion2b_plus", "num_query": 64,
    "image_size": 448, "mm_use_im_start_end": True, "vocab_size": 32009, "hidden_size": 4096, "rms_norm_eps": 1e-5,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 32768, "sliding_window": 4096, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Its tower, by the names of its arguments in timm.
EVA_02_E = {
    "img_size": 224, "patch_size": 14, "depth": 64, "num_heads": 16, "embed_dim": 1792, "mlp_hidden_dim": 15360,
}  # fmt: skip


def tokenizer() -> Tokenizer:
    """Byte-pair encoding with "▁" for spaces and bytes as the last resort, as Llama's; each word above is a token."""
    letters = [chr(code) for code in range(33, 127)] + ["▁"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary += letters
    merges = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                vocabulary.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    vocabulary = list(dict.fromkeys(vocabulary))[: ROWS - len(CONTROL)]
    known = set(vocabulary)
    merges = [pair for pair in merges if "".join(pair) in known]
    inner = Tokenizer(
        models.BPE({token: id for id, token in enumerate(vocabulary)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    inner.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>", *CONTROL)])
    return inner


def tensors(config: dict, seed: int) -> dict[str, torch.Tensor]:
    """All of a checkpoint's, by their published names."""
    return {name: drawn(name, shape, seed) for name, shape in shapes(config).items()}


def drawn(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Uniform numbers by which every part matters; the generator's stream is frozen in NumPy."""
    numbers = np.random.RandomState(zlib.crc32(name.encode()) ^ seed).uniform(-1, 1, shape)
    if name.endswith(("norm.weight", "layernorm.weight")) or ".norm" in name or ".ln_" in name:
        numbers = numbers * 0.4 + (1.0 if name.endswith("weight") else 0.0)
    elif len(shape) == 1 or name.endswith(("pos_embed", "cls_token", "query")):
        numbers = numbers * 0.5
    elif not name.endswith("embed_tokens.weight"):
        numbers = numbers * 2.0 / float(np.prod(shape[1:])) ** 0.5
    return torch.from_numpy(numbers.astype(np.float32))


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    vision, width, inner = config["vision_config"], config["hidden_size"], config["intermediate_size"]
    rows = config["vocab_size"]
    keys = width // config["num_attention_heads"] * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (rows, width), "model.norm.weight": (width,), "lm_head.weight": (rows, width)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        found |= {f"{at}{name}_layernorm.weight": (width,) for name in ("input", "post_attention")}
        rows = {"q": width, "k": keys, "v": keys, "o": width}
        found |= {f"{at}self_attn.{name}_proj.weight": (count, width) for name, count in rows.items()}
        found |= {f"{at}mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")}
        found[f"{at}mlp.down_proj.weight"] = (width, inner)
    seen, patch = vision["embed_dim"], vision["patch_size"]
    found |= _prefixed("model.vision_tower.", {
        "cls_token": (1, 1, seen), "pos_embed": (1, 1 + (vision["img_size"] // patch) ** 2, seen),
        "patch_embed.proj.weight": (seen, 3, patch, patch), "patch_embed.proj.bias": (seen,),
        "norm.weight": (seen,), "norm.bias": (seen,),
    })  # fmt: skip
    for block in range(vision["depth"] - 1):
        found |= _prefixed(f"model.vision_tower.blocks.{block}.", {
            "attn.qkv.weight": (3 * seen, seen), "attn.q_bias": (seen,), "attn.v_bias": (seen,),
            "attn.proj.weight": (seen, seen), "attn.proj.bias": (seen,), "norm1.weight": (seen,), "norm1.bias": (seen,),
            "norm2.weight": (seen,), "norm2.bias": (seen,), "mlp.fc1.weight": (vision["mlp_hidden_dim"], seen),
            "mlp.fc1.bias": (vision["mlp_hidden_dim"],), "mlp.fc2.weight": (seen, vision["mlp_hidden_dim"]),
            "mlp.fc2.bias": (seen,),
        })  # fmt: skip
    norms = {f"ln_{name}.{kind}": (width,) for name in ("q", "kv", "post") for kind in ("weight", "bias")}
    return found | _prefixed("model.resampler.", norms | {
        "query": (config["num_query"], width), "pos_embed": (config["num_query"], width),
        "kv_proj.weight": (width, seen), "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,), "proj": (width, width),
    })  # fmt: skip


def _prefixed(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {prefix + name: shape for name, shape in shapes.items()}


def write_settings(folder: Path, seed: int) -> None:
    """All of a checkpoint but its weights."""
    (folder / "config.json").write_text(json.dumps(CONFIGS[seed]))
    tokenizer().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def write_folder(folder: Path, seed: int) -> None:
    """A checkpoint in the published layout, its weights in safetensors."""
    write_settings(folder, seed)
    save_file(tensors(CONFIGS[seed], seed), folder / "model.safetensors")


def write_pickles(folder: Path, seed: int) -> None:
    """The same, its weights in two pickles with an index, as transformers wrote them in 2024."""
    write_settings(folder, seed)
    weights = tensors(CONFIGS[seed], seed)
    names = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    where = {name: names["resampler" in name] for name in weights}
    for file in names:
        torch.save({name: weights[name] for name in weights if where[name] == file}, folder / file)
    size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Structure at all scales, drawn from a frozen stream."""
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)
