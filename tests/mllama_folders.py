"""Small Llama 3.2 Vision checkpoints, written by transformers itself: random weights, a real tokenizer, real settings.

Nothing here knows mmcli; the tests compare what it makes of these folders with what transformers does.
"""

from pathlib import Path
from typing import Any

import foreign  # noqa: F401 (before transformers)
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor, PreTrainedTokenizerFast
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

WORDS = """user assistant system Describe this picture in one sentence. what is on the left and who is here? a cat dog
mat hello world are you kind? say it again be Write down the text This picture shows Cutting Knowledge Date:"""
TEXT_TOKENS = 384  # then the special tokens; the image's own stands behind the vocabulary, as published
SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
]  # fmt: skip
BOS, END_OF_TEXT, PAD = (TEXT_TOKENS + i for i in range(3))
EOT = TEXT_TOKENS + SPECIAL.index("<|eot_id|>")
IMAGE = ROWS = TEXT_TOKENS + len(SPECIAL)
SIDE, PATCH, TILES = 28, 7, 4
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}

# Behaves as the published template does, but for the date of today: what the system says is a text and is trimmed, its
# header is there unless there are images, beside which it must say nothing; other words stay as they are.
TEMPLATE = """\
{{- bos_token }}
{%- set state = namespace(images=false, words='') %}
{%- if messages[0].role == 'system' %}
    {%- set state.words = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- for part in message.content %}
        {%- if part.type == 'image' %}{%- set state.images = true %}{%- endif %}
    {%- endfor %}
{%- endfor %}
{%- if state.images and state.words %}
    {{- raise_exception('images do not go with a system message') }}
{%- endif %}
{%- if not state.images %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date:\\n\\n' + state.words + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- else %}
        {%- for part in message.content %}
            {%- if part.type == 'image' %}
                {{- '<|image|>' }}
            {%- elif part.type == 'text' %}
                {{- part.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs as Llama 3's, with the special tokens behind those of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_TOKENS - 8, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([WORDS, "\n\n"] * 4, trainer)
    fill = TEXT_TOKENS - tokenizer.get_vocab_size()
    assert fill >= 0
    tokenizer.add_tokens([f"<unused{i}>" for i in range(fill)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in [*SPECIAL, "<|image|>"]])
    assert (tokenizer.token_to_id("<|begin_of_text|>"), tokenizer.token_to_id("<|image|>")) == (BOS, IMAGE)
    tokenizer.post_processor = processors.TemplateProcessing(
        "<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", BOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
        pad_token="<|finetune_right_pad_id|>", padding_side="left",
    )  # fmt: skip


def tiny_raw(**text: Any) -> dict[str, Any]:
    """A configuration with every width its own number, so that no mix-up goes unseen."""
    text = {
        "vocab_size": ROWS, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 5,
        "num_attention_heads": 6, "num_key_value_heads": 2, "cross_attention_layers": [1, 3], "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": [END_OF_TEXT, EOT],
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    } | text  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 4, "num_global_layers": 2,
        "attention_heads": 4, "image_size": SIDE, "patch_size": PATCH, "max_num_tiles": TILES,
        "intermediate_layers_indices": [0, 2, 3], "vision_output_dim": 4 * 32,
    }  # fmt: skip
    return {"model_type": "mllama", "image_token_index": IMAGE, "text_config": text, "vision_config": vision}


def tiny_reference(seed: int = 0, **text: Any) -> MllamaForConditionalGeneration:
    """The reference with weights large enough for every part to matter (norms, gates and biases included)."""
    torch.manual_seed(seed)
    model = MllamaForConditionalGeneration(MllamaConfig(**tiny_raw(**text))).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.randn_like(parameter) * spread_of(name, parameter) + centre_of(name, parameter))
    model.get_input_embeddings().weight[EOT] *= 1.5
    model.generation_config.eos_token_id = [END_OF_TEXT, EOT]
    model.generation_config.pad_token_id = PAD
    return model


def spread_of(name: str, parameter: torch.Tensor) -> float:
    """The standard deviation with which a parameter matters and numbers stay in range from layer to layer."""
    if "embed" in name:
        return 0.25
    return 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3


def centre_of(name: str, parameter: torch.Tensor) -> float:
    if "norm" in name and "bias" not in name:
        return 1.0
    return 0.5 if "gate" in name and parameter.ndim == 1 else 0.0


def write_processor(
    folder: Path, template: str | None = TEMPLATE, side: int = SIDE, **settings: Any
) -> MllamaProcessor:
    """What transformers saves of a processor → that processor, whose images are resized by Pillow as mmcli's are."""
    usual = {"size": {"height": SIDE, "width": SIDE}, "max_image_tiles": TILES} | CLIP
    images = MllamaImageProcessorPil(**(usual | settings))
    processor = MllamaProcessor(images, tiny_tokenizer(), chat_template=template)
    processor.save_pretrained(folder)
    return processor


def write_checkpoint(folder: Path, model: MllamaForConditionalGeneration, **settings: Any) -> MllamaProcessor:
    """A whole folder as transformers saves it → the processor that belongs to it."""
    model.save_pretrained(folder)
    return write_processor(folder, **settings)
