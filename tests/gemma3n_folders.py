"""What stands beside the weights of a Gemma 3n: a small tokenizer built like the published one, real settings.

Nothing here knows mmcli; the tests compare what it makes of these folders with what transformers does.
"""

import json
from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Gemma3nAudioFeatureExtractor, Gemma3nProcessor, PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

# The order of the published ids: text, the tokens that begin an image and a recording, then the hard tokens of
# images, the first two of which end one and hold its places, then those of recordings likewise.
TEXT = 512
BOI, BOA = TEXT - 2, TEXT - 1
HARD = 8
EOI, IMAGE = TEXT, TEXT + 1
EOA, AUDIO = TEXT + HARD, TEXT + HARD + 1
ROWS = TEXT + 2 * HARD
PAD, EOS, BOS, UNK = range(4)
NAMES = {
    "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
    "boa_token": "<start_of_audio>", "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>",
}  # fmt: skip
RUNS = ["\n" * count for count in range(2, 6)]


def ids(text: int, hard: int) -> dict[str, int]:
    """The ids of such a tokenizer, by the names of `NAMES` and those of the ordinary special tokens."""
    return {
        "boi_token": text - 2, "eoi_token": text, "image_token": text + 1,
        "boa_token": text - 1, "eoa_token": text + hard, "audio_token": text + hard + 1,
        "pad_token": PAD, "eos_token": EOS, "bos_token": BOS,
    }  # fmt: skip


IDS = {f"{name}_id": id for name, id in ids(TEXT, HARD).items()}
SOFT_TOKENS = {"image": 256, "audio": 188}
SIDE = 768
RATE = 16_000

WORDS = """Describe this picture in one sentence. Transcribe the following speech segment Write only what is said user
model what is on the left and who speaks here a cat dog mat ; turn start of image sound hello world you are kind"""

# Behaves as the published template does: the system's words before the first question, parts trimmed and put together.
TEMPLATE = """\
{{- bos_token -}}
{%- macro said(content) -%}
    {%- if content is string -%}{{ content | trim }}
    {%- else -%}
        {%- for part in content -%}
            {%- if part.type == 'text' -%}{{ part.text | trim }}
            {%- elif part.type in ('image', 'audio') -%}<{{ part.type }}_soft_token>
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set state = namespace(turns=0, lead='') -%}
{%- for message in messages -%}
    {%- if loop.first and message.role == 'system' -%}
        {%- set words = message.content if message.content is string else message.content[0].text -%}
        {%- set state.lead = words + '\\n\\n' -%}
        {%- continue -%}
    {%- endif -%}
    {%- if (message.role == 'user') != (state.turns % 2 == 0) -%}
        {{- raise_exception('user and model have to take turns') -}}
    {%- endif -%}
    {%- set who = 'model' if message.role == 'assistant' else message.role -%}
    {{- '<start_of_turn>' + who + '\\n' + (state.lead if state.turns == 0 else '') + said(message.content) -}}
    {{- '<end_of_turn>\\n' -}}
    {%- set state.turns = state.turns + 1 -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<start_of_turn>model\\n' -}}{%- endif -%}
"""


def tiny_tokenizer(text: int = TEXT, hard: int = HARD) -> PreTrainedTokenizerFast:
    """Byte-pair encoding as Gemma's: "▁" for spaces, bytes as the last resort, runs of line breaks as tokens.

    Filled up to `text` ids of text, then `hard` ids of each modality.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    learner.train_from_iterator(WORDS.split("\n"), trainers.BpeTrainer(vocab_size=200, show_progress=False))
    learned = json.loads(learner.to_str())["model"]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), "\n"]
    pieces += sorted(learned["vocab"], key=learned["vocab"].get)
    names = ["<start_of_turn>", "<end_of_turn>", NAMES["boi_token"], NAMES["boa_token"]]
    fill = text - len(names) - len(RUNS) - len(set(pieces))
    assert fill >= 0
    unused = [f"<unused{i}>" for i in range(min(fill, 99))]
    pieces += [f"<filler{i}>" for i in range(fill - len(unused))]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", BOS)])
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer.add_tokens([AddedToken(run, normalized=False) for run in RUNS] + unused)
    _add_special(tokenizer, names)
    for modality in ("i", "a"):
        place = NAMES["image_token" if modality == "i" else "audio_token"]
        _add_special(tokenizer, [NAMES[f"eo{modality}_token"], place, *(f"<{place}{i}>" for i in range(hard - 2))])
    assert {key: tokenizer.token_to_id(name) for key, name in NAMES.items()}.items() <= ids(text, hard).items()
    assert tokenizer.get_vocab_size() == text + 2 * hard
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens=NAMES, padding_side="left",
    )  # fmt: skip


def _add_special(tokenizer: Tokenizer, names: list[str]) -> None:
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])


def write_processor(
    folder: Path,
    template: str | None = TEMPLATE,
    side: int = SIDE,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Gemma3nProcessor:
    """What transformers saves of a processor → that processor. Its images are squeezed by Pillow, as mmcli's are."""
    processor = Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(),
        SiglipImageProcessorPil(size={"height": side, "width": side}, resample=2, do_normalize=False),
        tokenizer or tiny_tokenizer(),
        chat_template=template,
        audio_seq_length=SOFT_TOKENS["audio"],
        image_seq_length=SOFT_TOKENS["image"],
    )
    processor.save_pretrained(folder)
    return processor


def ids_config() -> dict:
    """What config.json says about tokens; the rest of it belongs to the weights."""
    return IDS | {
        "model_type": "gemma3n",
        "vision_soft_tokens_per_image": SOFT_TOKENS["image"], "audio_soft_tokens_per_image": SOFT_TOKENS["audio"],
        "text_config": {"vocab_size": ROWS, "vocab_size_per_layer_input": TEXT},
        "vision_config": {"vocab_size": HARD, "vocab_offset": EOI},
        "audio_config": {"vocab_size": HARD, "vocab_offset": EOA},
    }  # fmt: skip


def write_checkpoint(folder: Path, model) -> Gemma3nProcessor:
    """A whole folder as transformers saves it → the processor that belongs to it.

    Answers end by the tokens by which the published ones do, which random weights seldom write.
    """
    processor = write_processor(folder)
    end = processor.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    model.generation_config.eos_token_id = [EOS, end]
    model.save_pretrained(folder)
    return processor


def audio(seed: int = 0, seconds: float = 1.3) -> np.ndarray:
    """Two gliding tones and a little noise, float32 [samples] at 16 kHz: something different in every frame."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    low, high = generator.uniform(100, 900), generator.uniform(1000, 4000)
    tones = np.sin(2 * np.pi * (low + 200 * time) * time) + 0.5 * np.sin(2 * np.pi * (high - 300 * time) * time)
    return (0.2 * tones + 0.01 * generator.standard_normal(len(time))).astype(np.float32)
