"""Small Fuyu checkpoints, written by transformers itself: random weights, a tokenizer built like the published one."""

from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import torch
from support import spread_of
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessorPil, FuyuProcessor, PreTrainedTokenizerFast

WORDS = "Generate a coco-style caption. What is on the left of cat dog mat? <>/:box point where"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
LETTERS = sorted(set("abcdefghijklmnopqrstuvwxyzGW.?,:-/ 0123456789".replace(" ", "▁")))
PIECES = [f"▁{word}" for word in WORDS.split()] + ["co", "cat", "ing", "▁th"]
NUMBERS = [str(number) for number in range(10, 961)]
MARKS = ["<unk>", "<s>", "</s>", "|ENDOFTEXT|", "|SPEAKER|", "|NEWLINE|"]
UNK, BEGIN, EOS, END, IMAGE, LINE_END = range(len(MARKS))
VOCABULARY = [*MARKS, *BYTES, *LETTERS, *PIECES, *NUMBERS]
ROWS = 1344
TEXT = {
    "vocab_size": ROWS, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4,
    "rope_parameters": {"rope_theta": 25000.0, "partial_rotary_factor": 0.5, "rope_type": "default"},
}  # fmt: skip


class Images(FuyuImageProcessorPil):
    """The reference's image processor; FuyuProcessor hands it tensors where it wants arrays (transformers 5.24)."""

    def patchify_image(self, image, patch_size=None):
        return torch.from_numpy(super().patchify_image(image.numpy(), patch_size))


def id_of(piece: str) -> int:
    """The token of a mark, a byte, a letter, a piece or a number."""
    return VOCABULARY.index(piece)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Unigram with bytes as the last resort and "▁" for spaces, one in front of every text; marks are plain pieces."""
    scores = [(piece, 0.0) for piece in [*MARKS, *BYTES]] + [(letter, -9.0) for letter in LETTERS]
    scores += [(piece, -5.0 - place / 100) for place, piece in enumerate([*PIECES, *NUMBERS])]
    tokenizer = Tokenizer(models.Unigram(scores, UNK, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS[:4]])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", BEGIN)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="|ENDOFTEXT|", unk_token="<unk>"
    )


def tiny_config(**text) -> FuyuConfig:
    """Every width its own number, so that no mix-up goes unseen."""
    return FuyuConfig(text_config=TEXT | text, image_token_id=IMAGE)


def tiny_reference(config: FuyuConfig, seed: int = 0) -> FuyuForCausalLM:
    """The reference with weights large enough for every part to matter (norms and biases included)."""
    torch.manual_seed(seed)
    model = FuyuForCausalLM(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        centre = 1.0 if "layernorm.weight" in name else 0.0
        spread = 1.0 if "embed_tokens.weight" in name else spread_of(name, parameter)
        parameter.copy_(torch.randn_like(parameter) * spread + centre)
    model.generation_config.eos_token_id = [EOS, END]
    return model


def write_checkpoint(folder: Path, model: FuyuForCausalLM, **options) -> FuyuProcessor:
    """A folder as transformers saves it → the processor that belongs to it."""
    model.save_pretrained(folder, **options)
    processor = FuyuProcessor(Images(), tiny_tokenizer())
    processor.save_pretrained(folder)
    return processor
