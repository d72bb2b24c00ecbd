"""Small PaliGemma checkpoints, written by transformers itself: random weights, a real tokenizer, real settings.

Nothing here knows mmcli; the tests compare what it makes of these folders with what transformers does.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

WORDS = "caption detect segment answer en what is a cat dog on the left mat ; person ball red"
TEXT_TOKENS = 128  # the text part of the vocabulary; then 1024 <loc>, 128 <seg>, <image>, like the published one
LOC = TEXT_TOKENS
SEG = LOC + 1024
IMAGE = SEG + 128
FILLED_ROWS = 1344  # filled up to a multiple of 64, like the published one
SIDE = 28


def tiny_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A BPE tokenizer built like Gemma's: "▁" for spaces, no pre-tokeniser, bytes as the last resort."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS - 8, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator([WORDS, "\n", *(word + "\n" for word in WORDS.split())] * 4, trainer)
    fill = TEXT_TOKENS - tokenizer.get_vocab_size()
    assert fill >= 0
    tokenizer.add_tokens([f"<unused{i}>" for i in range(fill)])
    tokenizer.add_tokens([f"<loc{i:04}>" for i in range(1024)] + [f"<seg{i:03}>" for i in range(128)])
    tokenizer.add_special_tokens([AddedToken("<image>", special=True, normalized=False)])
    assert tokenizer.token_to_id("<loc0000>") == LOC and tokenizer.token_to_id("<image>") == IMAGE
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, padding_side="left",
    )  # fmt: skip
    fast.save_pretrained(folder)
    return fast


def tiny_config(second: bool, *, rows: int = FILLED_ROWS, window: int = 4096, **text) -> PaliGemmaConfig:
    """A PaliGemma (or PaliGemma 2) configuration with every width its own number, so that no mix-up goes unseen."""
    text = {
        "model_type": "gemma2" if second else "gemma", "vocab_size": rows, "hidden_size": 48,
        "intermediate_size": 80, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2 if second else 1, "head_dim": 16,
    } | ({"query_pre_attn_scalar": 12, "sliding_window": window} if second else {}) | text  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": SIDE, "patch_size": 7, "vision_use_head": False,
    }  # fmt: skip
    return PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=IMAGE,
        projection_dim=text["hidden_size"],
        hidden_size=text["hidden_size"],
    )


def tiny_reference(config: PaliGemmaConfig, seed: int = 0) -> PaliGemmaForConditionalGeneration:
    """The reference with weights large enough for every part to matter (norms and biases included)."""
    torch.manual_seed(seed)
    model = PaliGemmaForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.randn_like(parameter) * spread_of(name, parameter))
    return model


def spread_of(name: str, parameter: torch.Tensor) -> float:
    """The standard deviation with which a parameter matters and numbers stay in range from layer to layer."""
    if "embed_tokens" in name:
        return 0.06
    return 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3


def write_checkpoint(folder: Path, model, *, shard_size: str | int = "5GB", original_names: bool = True):
    """A folder as transformers saves it → the processor that belongs to it."""
    model.save_pretrained(folder, max_shard_size=shard_size, save_original_format=original_names)
    return write_processor(folder, model.config)


def write_processor(folder: Path, config):
    """The processor that belongs to a PaliGemma of this configuration, into its folder as well."""
    vision = config.vision_config
    images = SiglipImageProcessorPil(size={"height": vision.image_size, "width": vision.image_size})
    images.image_seq_length = (vision.image_size // vision.patch_size) ** 2
    processor = PaliGemmaProcessor(images, tiny_tokenizer(folder))
    processor.save_pretrained(folder)
    return processor


def rename_as_of_2024(folder: Path) -> None:
    """Give the weights in `folder` the names that the published PaliGemma files have, stored head included."""
    path = folder / "model.safetensors"
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1): value for name, value in load_file(path).items()
    }
    tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    save_file(tensors, path, metadata={"format": "pt"})


def random_image(seed: int = 0, width: int = 50, height: int = 37) -> Image.Image:
    """An image with structure at all scales."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width // 2, height // 2)).resize((width, height))


def odd_images(folder: Path, width: int) -> dict[str, Path]:
    """Files of images of odd shapes by their names, one of them see-through; "wide" has this width."""
    clear = random_image(3, 60, 50).convert("RGBA")
    clear.putalpha(random_image(4, 60, 50).convert("L"))
    dot, wide, tall = Image.new("RGB", (1, 1)), random_image(1, width, 37), random_image(2, 31, 200)
    images = {"wide": wide, "tall": tall, "dot": dot, "clear": clear}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in images}


def edit_json(path: Path, **changes) -> None:
    """Set keys of a JSON file; a value of ... removes the key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def captioned(folder: Path, captions: Sequence[str], *, second: bool) -> Path:
    """A folder with a small checkpoint in model/, and with data.jsonl: an image for each of these captions."""
    write_checkpoint(folder / "model", tiny_reference(tiny_config(second), 1))
    rows = [{"image": f"{i}.png", "prefix": "caption en", "suffix": words} for i, words in enumerate(captions)]
    for number, row in enumerate(rows):
        random_image(number).save(folder / row["image"])
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
