"""The models that the program knows by name: those that are bundled, and examples of what the hub has.

Help texts and error sentences name a model for what it can do; what that is, its family declares (`Capabilities`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A model by name, its `model_type`, and which of the fields of `Capabilities` hold for it."""

    name: str  # as --model takes it
    type: str
    can: frozenset[str]
    bundled: bool = False


_PLACES = frozenset({"images", "objects", "masks"})
_SPEECH = frozenset({"transcribes", "word_times"})

KNOWN = (
    KnownModel("nano", "mmcli-nano", _PLACES | {"probabilities"}, bundled=True),
    KnownModel("whisper-base", "whisper", _SPEECH | {"translates"}, bundled=True),
    KnownModel("google/paligemma2-3b-mix-448", "paligemma", _PLACES | {"reads_text"}),
    KnownModel("openai/whisper-large-v3-turbo", "whisper", _SPEECH),  # it was not trained to translate
    KnownModel("openai/whisper-large-v3", "whisper", _SPEECH | {"translates"}),
    KnownModel("google/gemma-3n-E2B-it", "gemma3n", frozenset({"images", "audio", "turns", "transcribes"})),
)

# Short names of models on the hub.
_WHISPERS = "tiny tiny.en base.en small small.en medium medium.en large-v3 large-v3-turbo"
SHORT_NAMES = {f"whisper-{size}": f"openai/whisper-{size}" for size in _WHISPERS.split()}

# The published decoder of mask tokens, which lies apart from the models that need it: a Space of the hub, a file in it
# and that file's SHA-256.
MASK_DECODER = (
    "big-vision/paligemma-hf",
    "vae-oid.npz",
    "5586010257b8536dddefab65e7755077f21d5672d5674dacf911f73ae95a4447",
)


def able(*wanted: str, bundled: bool | None = None) -> list[str]:
    """The names of the known models that can do all that is wanted, bundled ones first."""
    fitting = [model for model in KNOWN if model.can.issuperset(wanted)]
    return [model.name for model in fitting if bundled is None or model.bundled == bundled]


def such_as(*wanted: str, bundled: bool | None = None) -> str:
    """The name of one known model that can do all that is wanted."""
    return able(*wanted, bundled=bundled)[0]


def any_of(*wanted: str) -> str:
    """All known models that can do what is wanted, as a sentence names them: "a (bundled), b or c"."""
    here = able(bundled=True)
    names = [f"{name} (bundled)" if name in here else name for name in able(*wanted)]
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


IMAGE_MODEL = such_as("images", bundled=True)  # where no --model is given
AUDIO_MODEL = such_as("transcribes", bundled=True)
