"""Small Whisper checkpoints, written by transformers itself: random weights, a byte-level tokenizer, real settings."""

import json
from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

TEXT = 320  # ids of text; then the special tokens, in the published order
LANGUAGES = ("en", "de", "fr")
TIMES = 1501
SECONDS = 2  # of a window: a hundred positions
WORDS = "the cat sat on a mat and so my fellow people ask not what hello world"


def special_names(multilingual: bool) -> list[str]:
    # The English-only vocabulary has languages too, which nothing uses.
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm", "startofprev"]
    return [f"<|{name}|>" for name in [*names, "nospeech" if multilingual else "nocaptions", "notimestamps"]]


def tiny_tokenizer(multilingual: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([WORDS, " " + WORDS] * 4, trainer)
    fill = TEXT - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f"~{i}" for i in range(fill)])
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in special_names(multilingual)]
    )
    assert tokenizer.token_to_id("<|endoftext|>") == TEXT
    return tokenizer


def write_checkpoint(
    folder: Path,
    *,
    mels: int = 80,
    multilingual: bool = True,
    seed: int = 0,
    ends: float = 0.0,
    seconds: int = SECONDS,
    **sizes: int,
):
    """A folder as transformers saves it → the reference model.

    `ends` is about what is added to the logit of the end: without it no answer comes to one. `seconds` are those of a
    window: published models have 30, which `transcribe` goes by.
    """
    names = special_names(multilingual)
    ids = {name: TEXT + place for place, name in enumerate(names)}
    sizes = {
        "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 3, "encoder_ffn_dim": 80, "decoder_ffn_dim": 72,
    } | sizes  # fmt: skip
    config = WhisperConfig(
        **sizes, vocab_size=TEXT + len(names) + TIMES, num_mel_bins=mels,
        max_source_positions=seconds * 50, max_target_positions=60, decoder_start_token_id=ids["<|startoftranscript|>"],
        bos_token_id=TEXT, eos_token_id=TEXT, pad_token_id=TEXT, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.25)
            parameter[TEXT] *= 1.3
        elif "encoder.embed_positions" not in name:
            spread = 1.6 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn_like(parameter) * spread)
    bias = model.model.decoder.layer_norm.bias
    model.model.decoder.embed_tokens.weight[TEXT] += ends * bias / bias.square().sum()
    model.generation_config = type(model.generation_config)()
    model.save_pretrained(folder)
    tiny_tokenizer(multilingual).save(str(folder / "tokenizer.json"))
    WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds).save_pretrained(folder)
    settings = {
        "suppress_tokens": [1, 5, 9, *range(TEXT + 1 + 1 + len(LANGUAGES), TEXT + len(names) - 1), TEXT + 1],
        "begin_suppress_tokens": [7, TEXT], "no_timestamps_token_id": ids["<|notimestamps|>"],
        "max_initial_timestamp_index": 50, "is_multilingual": multilingual, "alignment_heads": [[1, 0], [2, 2]],
        "eos_token_id": TEXT, "decoder_start_token_id": ids["<|startoftranscript|>"],
    } | ({"lang_to_id": {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES}} if multilingual else {})  # fmt: skip
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return model


def audio(seed: int = 0, seconds: float = 1.3) -> np.ndarray:
    """Two gliding tones and a little noise: something different in every frame."""
    generator = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16_000)) / 16_000
    low, high = generator.uniform(100, 900), generator.uniform(1000, 4000)
    tones = np.sin(2 * np.pi * (low + 200 * time) * time) + 0.5 * np.sin(2 * np.pi * (high - 300 * time) * time)
    return (0.2 * tones + 0.01 * generator.standard_normal(len(time))).astype(np.float32)
