"""What the table of known models says of them is what their families declare."""

import re

import minicpmv_published
import omnilmm_folders
import pytest
import support  # noqa: F401  (makes transformers importable beside a torchaudio built for another CUDA)
from transformers import AutoConfig

from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL, SHORT_NAMES, known_as
from mmcli.hub.known_models import BY_NAME, KNOWN
from mmcli.hub.quantized import parameter_count
from mmcli.hub.resolve import hub_name, pinned_revision, resolve
from mmcli.models.family import Capabilities
from mmcli.models.load import build_empty
from mmcli.models.offered import able, any_of, offered, such_as
from mmcli.models.registry import FAMILIES, family_of

# Where the shape that transformers gives a type is none of those that were published, and of types that it lacks.
TILES = {"scale_factor": 4, "vision_config": {"image_size": 512, "patch_size": 16}}
SHAPES = {"idefics3": TILES, "smolvlm": TILES}
UNKNOWN = {"minicpmv": minicpmv_published.PUBLISHED["2.6"], "omnilmm": omnilmm_folders.PUBLISHED}
HERE = [pytest.param(model, id=model.name) for model in offered()]


def declared(model) -> Capabilities:
    """What the family declares: of a bundled model with its files, of another by the shape transformers gives it."""
    raw = resolve(model.name).config if model.bundled else UNKNOWN.get(model.type)
    raw = raw or AutoConfig.for_model(model.type, **SHAPES.get(model.type, {})).to_dict()
    family = family_of(raw, model.name)
    config = family.read_config(raw)
    if model.bundled:
        return family.processor(resolve(model.name).folder, config, raw).capabilities
    return family.capabilities(config)


@pytest.mark.parametrize("model", HERE)
def test_known_models_can_do_what_is_said_of_them(model):
    capabilities = declared(model)
    assert [name for name in sorted(model.can) if getattr(capabilities, name) is not True] == []
    assert model.tasks == capabilities.tasks


@pytest.mark.parametrize("model", HERE)
def test_a_family_has_the_functions_that_belong_to_what_it_declares(model):
    family = family_of({"model_type": model.type}, model.name)
    assert declared(model).transcribes == bool(family.transcribe) == bool(family.transcript_inputs)
    assert declared(model).objects or not (family.find or family.closed_vocabulary)


def test_models_are_named_for_what_they_can_do():
    assert (such_as("images"), such_as("transcribes")) == (IMAGE_MODEL, AUDIO_MODEL)
    assert any_of("probabilities") == f"{IMAGE_MODEL} (bundled)"
    assert any_of("objects").startswith(f"{IMAGE_MODEL} (bundled)") and any_of("objects").count("paligemma") == 1
    assert able("turns", bundled=True) == [] and such_as("turns", "audio") == "gemma-3n-e2b"
    assert such_as("transcribes", bundled=False) == "whisper-large-v3-turbo"


def test_a_model_whose_family_is_not_registered_is_not_offered(monkeypatch):
    monkeypatch.delitem(FAMILIES, "paligemma")
    assert not any("paligemma" in model.name for model in offered()) and "paligemma" not in any_of("reads_text")
    assert "paligemma2-3b-mix-448" in SHORT_NAMES  # the name still says what it stands for


def test_the_table_is_of_one_piece():
    assert len(BY_NAME) == len(KNOWN) == len({model.repository or model.name for model in KNOWN})
    for model in KNOWN:
        assert model.licence and 0 <= model.mapped < model.parameters, model.name
        assert model.bundled != bool(model.repository) and "/" not in model.name, model.name
        assert model.revision is None or re.fullmatch("[0-9a-f]{40}", model.revision), model.name
        width = model.bytes / model.parameters  # bytes of a weight: int8 with scales, 4 bits with some in int8, floats
        assert any(abs(width - known) < 0.1 for known in (0.75, 1.05, 2, 4)), (model.name, width)


@pytest.mark.parametrize("name", [model.name for model in KNOWN if model.bundled])
def test_the_sizes_of_bundled_models_are_those_of_their_files(name):
    folder = resolve(name).folder
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert (BY_NAME[name].parameters, BY_NAME[name].bytes) == (parameter_count(folder), stored)


SIZES = {"tiny": (384, 4, 51865), "small.en": (768, 12, 51864), "large-v3-turbo": (1280, 32, 51866)}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_the_published_sizes(size):
    width, layers, words = SIZES[size]
    sides = {"encoder_layers": layers, "decoder_layers": 4 if size.endswith("turbo") else layers}
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), width // 64)
    inner = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 4 * width)
    bins = 128 if "v3" in size else 80
    raw = AutoConfig.for_model("whisper", d_model=width, vocab_size=words, num_mel_bins=bins, **sides, **heads, **inner)
    family = family_of(raw.to_dict(), size)
    model = build_empty(family, family.read_config(raw.to_dict()))
    assert sum(one.numel() for one in model.parameters()) == BY_NAME[f"whisper-{size}"].parameters


def test_a_short_name_stands_for_a_repository_and_a_commit():
    known = known_as("whisper-large-v3-turbo")
    assert known is known_as("openai/whisper-large-v3-turbo") and hub_name(known.name) == known.repository
    assert pinned_revision(known.name) == known.revision == "41f01f3fe87f28c78e2fbf8b568835947dd65ed9"
    assert pinned_revision(known.repository) is None  # who names the repository means its main branch
    assert (known_as("someone/else"), known_as(""), hub_name("someone/else")) == (None, None, "someone/else")


def test_the_tasks_of_a_model_follow_from_what_it_can_do():
    assert Capabilities().tasks == ("chat",)
    assert Capabilities(images=True, objects=True).tasks == ("caption", "detect", "chat")
    assert Capabilities(answers=False, timestamps="segment").tasks == ("transcribe",)
