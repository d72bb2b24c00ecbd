"""Small SmolVLM checkpoints, written by transformers itself: random weights, a real tokenizer, real settings.

Nothing here knows mmcli; the tests compare what it makes of these folders with what transformers does.
"""

from pathlib import Path
from typing import Any

import foreign  # noqa: F401 (before transformers)
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

WORDS = """User: Assistant: System: Describe this image in one sentence. what is on the left and who is here? a cat dog
mat hello world are you kind? say it again be Write down the text"""
TEXT_TOKENS = 384  # then, in the order of the published ids, those around images, reserved ones and the end of a turn
GLOBAL = TEXT_TOKENS
ROW_1_COL_1 = GLOBAL + 1
AROUND = ROW_1_COL_1 + 36
IMAGE = AROUND + 1
RESERVED = 5
END = IMAGE + 1 + RESERVED
ROWS = END + 1

# As published: the colon's space is left out before an image, and nothing is trimmed.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}"
    "{% if message.content[0].type == 'image' %}:{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

KINDS = ("idefics3", "smolvlm")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs as SmolLM2's, with the tokens around images behind those of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS - 4, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([WORDS, "\n\n"] * 4, trainer)
    fill = TEXT_TOKENS - tokenizer.get_vocab_size()
    assert fill >= 0
    tokenizer.add_tokens([f"<unused{i}>" for i in range(fill)])
    each = range(1, 7)
    names = ["<global-img>", *(f"<row_{row}_col_{column}>" for row in each for column in each)]
    names += ["<fake_token_around_image>", "<image>", *(f"<|reserved_special_token_{i}|>" for i in range(RESERVED))]
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in [*names, "<end_of_utterance>"]]
    )
    assert (tokenizer.token_to_id("<image>"), tokenizer.token_to_id("<end_of_utterance>")) == (IMAGE, END)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>",
        unk_token="<|endoftext|>", padding_side="left",
        extra_special_tokens={
            "end_of_utterance_token": "<end_of_utterance>", "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>", "image_token": "<image>",
        },
    )  # fmt: skip


def tiny_raw(kind: str, tied: bool = False, side: int = 32, **text: Any) -> dict[str, Any]:
    """A configuration with every width its own number, so that no mix-up goes unseen."""
    text = {
        "model_type": "llama", "vocab_size": ROWS, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-5, "pad_token_id": 2,
        "max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
        "tie_word_embeddings": tied,
    } | text  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": side, "patch_size": 8,
    }  # fmt: skip
    return {
        "model_type": kind, "text_config": text, "vision_config": vision, "scale_factor": 2, "image_token_id": IMAGE,
        "tie_word_embeddings": tied,
    }  # fmt: skip


def tiny_reference(kind: str, seed: int = 0, **changes: Any) -> torch.nn.Module:
    """The reference with weights large enough for every part to matter (norms and biases included)."""
    raw = tiny_raw(kind, **changes)
    torch.manual_seed(seed)
    if kind == "idefics3":
        model = Idefics3ForConditionalGeneration(Idefics3Config(**raw))
    else:
        model = SmolVLMForConditionalGeneration(SmolVLMConfig(**raw))
    for name, parameter in model.eval().requires_grad_(False).named_parameters():
        parameter.copy_(
            torch.randn_like(parameter) * spread_of(name, parameter) + ("norm" in name and "bias" not in name)
        )
    model.get_input_embeddings().weight[END] *= 1.5  # answers end by it, and not at once
    model.generation_config.eos_token_id = [END]
    model.generation_config.pad_token_id = 2
    return model


def spread_of(name: str, parameter: torch.Tensor) -> float:
    """The standard deviation with which a parameter matters and numbers stay in range from layer to layer."""
    if "embed_tokens" in name:
        return 0.25
    return 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3


def centre_of(name: str) -> float:
    return 1.0 if "norm" in name and "bias" not in name else 0.0


def write_processor(folder: Path, kind: str, tile: int = 32, places: int | None = None, **settings: Any) -> Any:
    """What transformers saves of a processor → that processor, whose images are resized by Pillow as mmcli's are."""
    settings = {"size": {"longest_edge": 4 * tile}, "max_image_size": {"longest_edge": tile}} | settings
    places = (tile // 8 // 2) ** 2 if places is None else places
    if kind == "idefics3":
        images = Idefics3ImageProcessorPil(**settings)
        processor = Idefics3Processor(images, tiny_tokenizer(), image_seq_len=places, chat_template=TEMPLATE)
    else:
        processing_smolvlm.num2words = processing_smolvlm.num2words or str  # only videos need it
        images = SmolVLMImageProcessorPil(**settings)
        processor = SmolVLMProcessor(
            images, tiny_tokenizer(), SmolVLMVideoProcessor(), image_seq_len=places, chat_template=TEMPLATE
        )
    processor.save_pretrained(folder)
    return processor


def write_checkpoint(folder: Path, kind: str, model: torch.nn.Module, **settings: Any) -> Any:
    """A whole folder as transformers saves it → the processor that belongs to it."""
    model.save_pretrained(folder)
    return write_processor(folder, kind, **settings)
