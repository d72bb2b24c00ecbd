"""Which family reads which checkpoint. One line a family; nothing else outside its folder knows it."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmcli.errors import ModelError
from mmcli.hub.fields import shown
from mmcli.startup import starting_up

if TYPE_CHECKING:  # help texts go by the names here, and need no family for it
    from mmcli.hub.resolve import Checkpoint
    from mmcli.models.family import Capabilities, Family

FAMILIES = {
    "mmcli-nano": "mmcli.models.nano:FAMILY",
    "paligemma": "mmcli.models.paligemma:FAMILY",  # PaliGemma 1 and 2
    "fuyu": "mmcli.models.fuyu:FAMILY",  # Fuyu-8B
    "florence2": "mmcli.models.florence2:FAMILY",  # base and large, in both layouts of their repositories
    "gemma3n": "mmcli.models.gemma3n:FAMILY",  # E2B, E4B and slices between them
    "gemma3n_text": "mmcli.models.gemma3n:FAMILY",  # their decoder published alone
    "minicpmv": "mmcli.models.minicpmv:FAMILY",  # 1.0, 2.0, 2.5 and 2.6
    "idefics3": "mmcli.models.smolvlm:FAMILY",  # SmolVLM 1
    "smolvlm": "mmcli.models.smolvlm:FAMILY",  # SmolVLM2
    "omnilmm": "mmcli.models.omnilmm:FAMILY",  # OmniLMM-12B
    "mllama": "mmcli.models.mllama:FAMILY",  # Llama 3.2 Vision, 11B and 90B
    "whisper": "mmcli.models.whisper:FAMILY",  # tiny to large-v3-turbo and the distilled ones
}


def family_of(config: dict[str, Any], name: str) -> "Family":
    """The family of a checkpoint called `name` by the `model_type` in its config.json; it is imported only here.

    Raises ModelError for a type that no family reads.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        what = f"is of the type {shown(kind)}" if kind else "has no model_type in its config.json"
        raise ModelError(f"The model {name} {what}; mmcli reads {', '.join(sorted(FAMILIES))}")
    module, _, attribute = FAMILIES[kind].partition(":")
    if module not in sys.modules:
        with starting_up():
            # Before PyTorch, which imports it as it starts, and takes whatever comes up there for NumPy's not being
            # installed: Ctrl-C too.
            import numpy  # noqa: F401

            import_module(module)
    return getattr(sys.modules[module], attribute)


def capabilities_of(checkpoint: "Checkpoint") -> "Capabilities":
    """What a model can do, by its config.json. ModelError where that makes no sense."""
    family = family_of(checkpoint.config, checkpoint.name)
    return family.capabilities(family.read_config(checkpoint.config))
