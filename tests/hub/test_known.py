"""What the table of known models says of them is what their families declare."""

import pytest
import support  # noqa: F401  (makes transformers importable beside a torchaudio built for another CUDA)
from transformers import AutoConfig

from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL, KNOWN, able, any_of, such_as
from mmcli.hub.resolve import resolve
from mmcli.models.family import Capabilities
from mmcli.models.registry import family_of


def declared(model) -> Capabilities:
    """What the family declares: of a bundled model with its files, of another by the shape transformers gives it."""
    raw = resolve(model.name).config if model.bundled else AutoConfig.for_model(model.type).to_dict()
    family = family_of(raw, model.name)
    config = family.read_config(raw)
    if model.bundled:
        return family.processor(resolve(model.name).folder, config, raw).capabilities
    return family.capabilities(config)


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_known_models_can_do_what_is_said_of_them(model):
    capabilities = declared(model)
    assert [name for name in sorted(model.can) if getattr(capabilities, name) is not True] == []


@pytest.mark.parametrize("model", KNOWN, ids=lambda model: model.name)
def test_a_family_has_the_functions_that_belong_to_what_it_declares(model):
    family = family_of({"model_type": model.type}, model.name)
    assert declared(model).transcribes == bool(family.transcribe) == bool(family.transcript_inputs)
    assert declared(model).objects or not (family.find or family.knowledge)


def test_models_are_named_for_what_they_can_do():
    assert (such_as("images"), such_as("transcribes")) == (IMAGE_MODEL, AUDIO_MODEL)
    assert any_of("probabilities") == f"{IMAGE_MODEL} (bundled)"
    assert any_of("objects") == f"{IMAGE_MODEL} (bundled) or google/paligemma2-3b-mix-448"
    assert able("turns", bundled=True) == [] and such_as("turns", "audio") == "google/gemma-3n-E2B-it"


def test_the_tasks_of_a_model_follow_from_what_it_can_do():
    assert Capabilities().tasks == ("chat",)
    assert Capabilities(images=True, objects=True).tasks == ("caption", "detect", "chat")
    assert Capabilities(answers=False, timestamps="segment").tasks == ("transcribe",)
