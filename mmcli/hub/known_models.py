"""The models that the program knows by name: those that are bundled, and well-known ones of the hub.

A line a model. Commits were read off public repositories that pin them, at least two for each; sizes are those of the
weight files at that commit. What a model can do is declared by its family (`Capabilities`), and the tests hold this
table to it.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KnownModel:
    """A model by name, its `model_type`, and which of the fields of `Capabilities` hold for it."""

    name: str  # as --model takes it
    type: str
    can: frozenset[str]
    repository: str = ""  # on the hub; "" for a bundled model
    revision: str | None = None  # the commit that the name stands for; None: whatever main is
    licence: str = ""
    gated: bool = False  # whether the hub asks for a login and for the licence to be accepted
    parameters: int = 0
    mapped: int = 0  # of the parameters those that stay in the file, and take no memory
    bytes: int = 0  # of the weights, as they are downloaded
    near: str = ""  # a larger one that it comes within 5 % of by what their publishers measured, or surpasses
    bundled: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The commands that it can be used with."""
        needed = {"caption": "images", "detect": "objects", "segment": "masks", "read": "reads_text"}
        needed |= {"chat": "questions", "transcribe": "transcribes"}
        return tuple(task for task, ability in needed.items() if ability in self.can)


_PLACES = frozenset({"images", "objects", "masks"})
_READER = _PLACES | {"outlines_boxes", "reads_text", "questions"}
_REGIONS = _PLACES | {"reads_text", "reads_regions", "finds_all"}
_VIEWER = frozenset({"images", "questions", "turns", "reads_text"})
_EVERYTHING = frozenset({"images", "questions", "audio", "turns", "transcribes", "reads_text", "translates"})
_SPEECH = frozenset({"transcribes", "word_times"})
_LANGUAGES = _SPEECH | {"translates"}

_GEMMA: dict[str, Any] = {"licence": "Gemma", "gated": True}
_LLAMA: dict[str, Any] = {"licence": "Llama 3.2", "gated": True}
_MIT: dict[str, Any] = {"licence": "MIT"}
_APACHE: dict[str, Any] = {"licence": "Apache-2.0"}


def _whisper(size: str, can: frozenset[str], revision: str, parameters: int, width: int = 4) -> KnownModel:
    """One of OpenAI's, whose weights are stored in so many bytes each."""
    more: dict[str, Any] = {"repository": f"openai/whisper-{size}", "revision": revision, "bytes": width * parameters}
    return KnownModel(f"whisper-{size}", "whisper", can, parameters=parameters, **more, **_MIT)


# Where several can do the same, help texts and messages name the first ones.
KNOWN = (
    KnownModel(
        "nano", "mmcli-nano", _PLACES | {"outlines_boxes", "questions", "probabilities"},
        parameters=28_603_263, bytes=30_855_288, bundled=True, **_APACHE,
    ),
    KnownModel(
        "whisper-base", "whisper", _LANGUAGES,
        parameters=72_593_920, bytes=61_359_738, bundled=True, **_MIT,
    ),
    KnownModel(
        "smolvlm-256m", "idefics3", _VIEWER, "HuggingFaceTB/SmolVLM-256M-Instruct",
        "7e3e67edbbed1bf9888184d9df282b700a323964", parameters=256_484_928, bytes=513_000_000, **_APACHE,
    ),
    KnownModel(
        "smolvlm-500m", "idefics3", _VIEWER, "HuggingFaceTB/SmolVLM-500M-Instruct",
        "a7da5b986cb59b408707209984f360a5f4ad7e47", parameters=507_482_304, bytes=1_015_000_000, **_APACHE,
    ),
    KnownModel(
        "smolvlm-2.2b", "idefics3", _VIEWER, "HuggingFaceTB/SmolVLM-Instruct",
        "81cd9a775a4d644f2faf4e7becff4559b46b14c7", parameters=2_246_272_880, bytes=4_493_000_000, **_APACHE,
    ),
    # The weights of SmolVLM2 are stored in float32. TextVQA (val): 73.2, of MiniCPM-V 2.0 74.1, by the model card of
    # the one and docs/minicpm_v2.md of the other.
    KnownModel(
        "smolvlm2-256m", "smolvlm", _VIEWER, "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
        "067788b187b95ebe7b2e040b3e4299e342e5b8fd", parameters=256_484_928, bytes=1_026_000_000, **_APACHE,
    ),
    KnownModel(
        "smolvlm2-500m", "smolvlm", _VIEWER, "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
        "7b375e1b73b11138ff12fe22c8f2822d8fe03467", parameters=507_482_304, bytes=2_030_000_000, **_APACHE,
    ),
    KnownModel(
        "smolvlm2-2.2b", "smolvlm", _VIEWER, "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "482adb537c021c86670beed01cd58990d01e72e4", parameters=2_246_784_880, bytes=8_987_000_000, near="minicpm-v-2",
        **_APACHE,
    ),
    KnownModel(
        "paligemma2-3b-mix-448", "paligemma", _READER, "google/paligemma2-3b-mix-448",
        "1406c92ec87d32cc6b983239278901b904ba7a51", parameters=3_033_127_152, bytes=6_066_000_000, **_GEMMA,
    ),
    KnownModel(
        "paligemma2-3b-mix-224", "paligemma", _READER, "google/paligemma2-3b-mix-224",
        "8e40ab4cc5df93dfb7fd2fff754bcdff8b62ee78", parameters=3_032_242_416, bytes=6_064_000_000, **_GEMMA,
    ),
    KnownModel(
        "paligemma2-10b-mix-448", "paligemma", _READER, "google/paligemma2-10b-mix-448",
        parameters=9_663_523_568, bytes=19_327_000_000, **_GEMMA,
    ),
    # COCO captions without training on them, CIDEr: 133.0 and 135.6 by the model card.
    KnownModel(
        "florence-2-base", "florence2", _REGIONS, "florence-community/Florence-2-base",
        "00921df66db728a9ceb750f5eca43e5c203a2051", parameters=231_000_000, bytes=463_000_000, near="florence-2-large",
        **_MIT,
    ),
    KnownModel(
        "florence-2-large", "florence2", _REGIONS, "florence-community/Florence-2-large",
        "4271c66b88cdbc05735372ec13b2360108de5317", parameters=777_000_000, bytes=1_554_000_000, **_MIT,
    ),
    KnownModel(
        "fuyu-8b", "fuyu", frozenset({"images", "questions", "objects"}), "adept/fuyu-8b",
        parameters=9_408_238_592, bytes=18_816_000_000, licence="CC-BY-NC-4.0",
    ),
    KnownModel(
        "llama-3.2-11b-vision-instruct", "mllama", _VIEWER, "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "9eb2daaa8597bf192a8b0e73f848f3a102794df5", parameters=10_670_220_835, bytes=21_340_000_000, **_LLAMA,
    ),
    KnownModel(
        "llama-3.2-11b-vision", "mllama", _VIEWER - {"turns"}, "meta-llama/Llama-3.2-11B-Vision",
        parameters=10_670_220_835, bytes=21_340_000_000, **_LLAMA,
    ),
    # 2.6 is by the same publisher as OmniLMM and the later one: it is the successor of its successors.
    KnownModel(
        "minicpm-v-2.6", "minicpmv", _VIEWER, "openbmb/MiniCPM-V-2_6",
        parameters=8_099_175_152, bytes=16_198_000_000, licence="MiniCPM", gated=True, near="omnilmm-12b",
    ),
    KnownModel(
        "minicpm-v-2", "minicpmv", _VIEWER, "openbmb/MiniCPM-V-2",
        parameters=3_434_965_792, bytes=6_870_000_000, licence="MiniCPM",
    ),
    KnownModel(
        "minicpm-v", "minicpmv", _VIEWER, "openbmb/MiniCPM-V",
        parameters=3_434_965_792, bytes=6_870_000_000, licence="MiniCPM",
    ),
    KnownModel(
        "omnilmm-12b", "omnilmm", _VIEWER, "openbmb/OmniLMM-12B",
        parameters=11_614_393_088, bytes=23_229_000_000, licence="OpenBMB",
    ),
    # Turbo was not trained to translate.
    _whisper("large-v3-turbo", _SPEECH, "41f01f3fe87f28c78e2fbf8b568835947dd65ed9", 808_878_080, 2),
    _whisper("large-v3", _LANGUAGES, "06f233fe06e710322aca913c1bc4249a0d71fce1", 1_543_490_560, 2),
    KnownModel(
        "gemma-3n-e2b", "gemma3n", _EVERYTHING, "google/gemma-3n-E2B-it",
        "5e092ebca197cdcd8d8b195040accf22693501bc",
        parameters=5_440_000_000, mapped=30 * 256 * 262_144, bytes=10_880_000_000, **_GEMMA,
    ),
    KnownModel(
        "gemma-3n-e4b", "gemma3n", _EVERYTHING, "google/gemma-3n-E4B-it",
        "c1221e9c62e34a43ab7ffacd1be0ea71f126ef10",
        parameters=7_850_000_000, mapped=35 * 256 * 262_144, bytes=15_700_000_000, **_GEMMA,
    ),
    _whisper("medium", _LANGUAGES, "abdf7c39ab9d0397620ccaea8974cc764cd0953e", 763_857_920),
    _whisper("medium.en", _SPEECH, "2e98eb6279edf5095af0c8dedb36bdec0acd172b", 763_856_896),
    _whisper("small", _LANGUAGES, "973afd24965f72e36ca33b3055d56a652f456b4d", 241_734_912),
    _whisper("small.en", _SPEECH, "e8727524f962ee844a7319d92be39ac1bd25655a", 241_734_144),
    _whisper("base.en", _SPEECH, "911407f4214e0e1d82085af863093ec0b66f9cd6", 72_593_408),
    _whisper("tiny", _LANGUAGES, "169d4a4341b33bc18d8881c4b69c2e104e1cc0af", 37_760_640),
    _whisper("tiny.en", _SPEECH, "87c7102498dcde7456f24cfd30239ca606ed9063", 37_760_256),
)  # fmt: skip

BY_NAME = {model.name: model for model in KNOWN}
