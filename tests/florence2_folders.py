"""Small Florence-2 checkpoints, written by transformers itself: random weights, a byte-level tokenizer, real settings.

`write_vendor_layout` makes of one what the vendor's own repositories hold. Nothing here knows mmcli.
"""

import json
import re
from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

TEXT = 300  # ids of BART's own tokens, <mask> the last of them
LOC = TEXT + 4
BOS, PAD, EOS = 0, 1, 2
WORDS = (
    "what does the image describe locate objects with category name in text is region regions mask polygon cat dog on "
    "left and a person red ball sign caption phrases shown detail paragraph"
)
MARKS = (
    ["<od>", "</od>", "<ocr>", "</ocr>"]
    + [f"<loc_{n}>" for n in range(1000)]
    + ["<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"]
    + ["<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>"]
    + ["</proposal>", "<poly>", "</poly>", "<and>"]
)
IMAGE = TEXT + len(MARKS)
ROWS = 1344  # filled up to a multiple of 64, like the published one
WRITING = {
    "num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True, "forced_bos_token_id": BOS,
    "forced_eos_token_id": EOS,
}  # fmt: skip
SINGULAR = {"ocr": {"pattern": None, "area_threshold": 0.0}, "phrase_grounding": {"banned_grounding_tokens": ["it"]}}
KINDS = ("pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes")
PARSING = SINGULAR | {kind: {} for kind in (*KINDS, "description_with_bboxes_or_polygons")}


def tiny_tokenizer(marks: bool = True) -> Tokenizer:
    """BART's kind; without `marks` as the vendor publishes it, whose code adds them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
    )  # fmt: skip
    tokenizer.train_from_iterator([WORDS, " " + WORDS] * 4, trainer)
    tokenizer.add_tokens([f"~{i}" for i in range(TEXT - 1 - tokenizer.get_vocab_size())])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    assert tokenizer.get_vocab_size() == TEXT
    if marks:
        tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in [*MARKS, "<image>"]])
        assert (tokenizer.token_to_id("<loc_0>"), tokenizer.token_to_id("<image>")) == (LOC, IMAGE)
    return tokenizer


def tiny_config(projection_dim: int = 48, **text) -> Florence2Config:
    """Every width its own number, so that no mix-up goes unseen; four stages, of which one has two pairs of blocks."""
    vision = {
        "depths": (1, 1, 2, 1), "embed_dim": (16, 24, 32, 40), "num_heads": (2, 3, 4, 5), "num_groups": (4, 2, 8, 5),
        "window_size": 3, "projection_dim": projection_dim, "max_position_embeddings": 7, "max_temporal_embeddings": 6,
        "mlp_ratio": 2.0,
    }  # fmt: skip
    text = {
        "model_type": "bart", "vocab_size": ROWS, "d_model": 48, "encoder_layers": 2, "decoder_layers": 3,
        "encoder_attention_heads": 4, "decoder_attention_heads": 3, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
        "max_position_embeddings": 128,
    } | text  # fmt: skip
    return Florence2Config(vision_config=vision, text_config=text, image_token_id=IMAGE)


def tiny_reference(seed: int = 0, ends: float = 4.0, **text) -> Florence2ForConditionalGeneration:
    """The reference with weights large enough for every part to matter.

    `ends` is about what is added to the logit of the end: without it no answer comes to one.
    """
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(tiny_config(**text)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            parameter += 0.2 * torch.randn_like(parameter)
        else:
            spread = 0.3 if "shared" in name else _spread(name) * parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn_like(parameter) * spread)
    language = model.model.language_model
    bias = language.decoder.layers[-1].final_layer_norm.bias
    language.shared.weight[EOS] += ends * bias / bias.square().sum()
    for key, value in WRITING.items():
        setattr(model.generation_config, key, value)
    return model


def _spread(name: str) -> float:
    """Attention that looks sharply, so that answers depend on what is shown."""
    return 4.0 if "encoder_attn" in name else 1.5


def write_checkpoint(folder: Path, model, side: int = 96) -> Florence2Processor:
    """A folder as transformers saves it → the processor that belongs to it."""
    model.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    images = CLIPImageProcessorPil(
        size={"height": side, "width": side}, do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    images.image_seq_length = soft_tokens(side)
    processor = Florence2Processor(images, fast, post_processor_config=PARSING)
    processor.save_pretrained(folder)
    return processor


def soft_tokens(side: int) -> int:
    """What the tower makes of a square."""
    grid = (side + 2 * 3 - 7) // 4 + 1
    for _ in range(3):
        grid = (grid + 2 - 3) // 2 + 1
    return grid**2 + 1


# Names of transformers and the vendor's, as its conversion script pairs them.
VENDOR_NAMES = (
    (r"^model\.vision_tower\.convs\.(\d+)\.conv\.", r"vision_tower.convs.\1.proj."),
    (r"^model\.vision_tower\.", "vision_tower."),
    (r"_block\.(conv[12])\.", r"_block.\1.fn.dw."),
    (r"spatial_block\.norm1\.", "spatial_block.window_attn.norm."),
    (r"channel_block\.norm1\.", "channel_block.channel_attn.norm."),
    (r"_block\.norm2\.", "_block.ffn.norm."),
    (r"_attn\.(qkv|proj)\.", r"_attn.fn.\1."),
    (r"\.ffn\.(fc[12])\.", r".ffn.fn.net.\1."),
    (r"^model\.multi_modal_projector\.image_projection\.weight$", "image_projection"),
    (r"^model\.multi_modal_projector\.image_position_embed\.", "image_pos_embed."),
    (r"^model\.multi_modal_projector\.", ""),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)


def vendor_name(name: str) -> str:
    """A tensor's name in the vendor's repositories."""
    for pattern, becomes in VENDOR_NAMES:
        name = re.sub(pattern, becomes, name)
    return name


def vendor_config(config: Florence2Config) -> dict:
    """config.json as the vendor writes it."""
    vision, text = config.vision_config.to_dict(), config.text_config.to_dict()
    same = ("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "num_heads", "num_groups")
    return {
        "architectures": ["Florence2ForConditionalGeneration"], "model_type": "florence2",
        "auto_map": {"AutoModelForCausalLM": "modeling_florence2.Florence2ForConditionalGeneration"},
        "vision_config": {key: list(vision[key]) for key in same} | {
            "model_type": "davit", "dim_embed": list(vision["embed_dim"]), "window_size": vision["window_size"],
            "projection_dim": vision["projection_dim"], "drop_path_rate": 0.1, "mlp_ratio": vision["mlp_ratio"],
            "visual_temporal_embedding": {
                "type": "COSINE", "max_temporal_embeddings": vision["max_temporal_embeddings"]
            },
            "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": vision["max_position_embeddings"]},
            "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
        },
        "text_config": text | WRITING | {"model_type": "florence2_language"},
        "vocab_size": text["vocab_size"], "projection_dim": vision["projection_dim"],
    }  # fmt: skip


def vendor_tensors(model) -> dict[str, torch.Tensor]:
    """The same numbers under the vendor's names; its head and tables are stored several times."""
    tensors = {vendor_name(name): value.clone() for name, value in model.state_dict().items()}
    tensors["image_projection"] = tensors["image_projection"].T.contiguous()
    tensors["language_model.final_logits_bias"] = torch.zeros(1, model.config.text_config.vocab_size)
    return tensors


def write_vendor_layout(folder: Path, model, side: int = 96) -> None:
    """A folder as the vendor publishes it, but for its code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(vendor_config(model.config)))
    save_file(vendor_tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer(marks=False).save(str(folder / "tokenizer.json"))
    settings = {
        "size": {"height": side, "width": side}, "crop_size": {"height": side, "width": side}, "do_center_crop": False,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225], "image_processor_type": "CLIPImageProcessor", "resample": 3,
        "image_seq_length": soft_tokens(side),
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
