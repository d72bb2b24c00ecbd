"""Gemma 3n in its published sizes, built without memory: every tensor of the reference has its place, and back."""

from pathlib import Path

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from places import assert_places, stages_of
from transformers import Gemma3nConfig as ReferenceConfig
from transformers import Gemma3nForCausalLM, Gemma3nForConditionalGeneration, Gemma3nTextConfig

from mmcli.hub.resolve import Checkpoint
from mmcli.hub.weights import kept_mapped, place
from mmcli.models.gemma3n import FAMILY
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.load import build_empty, memory_estimate

# text_config of google/gemma-3n-E4B* and -E2B*, and of a slice between them as "MatFormer lab" makes them.
E4B: dict = {"num_hidden_layers": 35, "intermediate_size": 16384, "num_kv_shared_layers": 15}
E2B: dict = {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10}
TEXTS = {
    "E4B": E4B,
    "E2B": E2B | {"activation_sparsity_pattern": [0.95] * 10 + [0.0] * 20},
    "a slice": E4B | {"intermediate_size": [8192] * 20 + [16384, 12288, 8192] * 5},
}
PARAMETERS = {"E4B": 7.85, "E2B": 5.44}  # billions in the published files, what is dropped included


def published(text: dict) -> dict:
    """config.json as transformers 4 wrote it, where the published ones come from."""
    old = {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None, "model_type": "gemma3n_text"}
    return {"model_type": "gemma3n", "eos_token_id": [1, 106], "text_config": old | text}


@pytest.fixture(scope="module", params=TEXTS)
def size(request):
    return request.param


@pytest.fixture(scope="module")
def reference(size):
    with torch.device("meta"):
        return Gemma3nForConditionalGeneration(ReferenceConfig(**published(TEXTS[size])))


@pytest.fixture(scope="module")
def config(size):
    return Gemma3nConfig.from_hf(published(TEXTS[size]))


@pytest.mark.parametrize("root", ["model.", ""])
def test_names_and_shapes_agree_in_both_directions(reference, config, root):
    assert_places(FAMILY.rules(config), build_empty(FAMILY, config), reference, below(root))


def test_a_decoder_published_alone():
    config = Gemma3nConfig.from_hf({"model_type": "gemma3n_text"})
    with torch.device("meta"):
        reference = Gemma3nForCausalLM(Gemma3nTextConfig())
    for prefix in ("model.", "model.language_model."):  # transformers 5 writes the second
        assert_places(FAMILY.rules(config), build_empty(FAMILY, config), reference, below(prefix))


def below(root: str):
    """Names as a file has them that puts everything but the head below `root`."""
    return lambda name: [name if name == "lm_head.weight" else root + name.removeprefix("model.")]


def test_dropped_are_keys_and_values_of_layers_that_look_at_anothers_and_nothing_else(reference, config):
    rules = FAMILY.rules(config)
    own = {name for name, _ in reference.named_parameters()}
    depth, shared = config.text.depth, config.text.depth - 20
    for layer in range(depth):
        for part in ("k_proj", "v_proj", "k_norm"):
            name = f"model.language_model.layers.{layer}.self_attn.{part}.weight"
            _, target = place(rules, name)
            assert (target is None) == (layer >= depth - shared) == (name not in own)
    dropped = [rule for rule in rules if rule.target is None]
    assert len(dropped) == 2 * 3 * shared + 1


def test_inspect_counts_the_parameters_that_the_model_has(size, reference, config):
    total = sum(stage.parameters for stage in stages_of(FAMILY, config))
    assert total == sum(p.numel() for name, p in reference.named_parameters() if name != "lm_head.weight")
    text = config.text
    dropped = (text.depth - len(text.owners)) * text.head_width * (2 * text.key_heads * text.width + 1)
    assert size not in PARAMETERS or (total + dropped) / 1e9 == pytest.approx(PARAMETERS[size], abs=0.001)
    outputs = {stage.name: stage.output for stage in stages_of(FAMILY, config)}
    assert outputs["vision"] == "256 × 2048" and outputs["audio embedder"] == "188 × 2048"


def test_the_table_alone_stays_in_the_file(config):
    model = build_empty(FAMILY, config)
    assert kept_mapped(model) == {"decoder.per_layer.table.weight"}
    assert model.state_dict()["decoder.per_layer.table.weight"].shape == (262_144, config.text.depth * 256)


def test_the_memory_that_is_told_is_without_the_table_unless_that_is_on_the_device(size, config):
    checkpoint = Checkpoint("m", Path("unused"), None, published(TEXTS[size]))
    without, whole = (memory_estimate(checkpoint, torch.bfloat16, table) for table in ("auto", "device"))
    assert whole - without == 2 * 262_144 * config.text.depth * 256
    assert whole == 2 * sum(stage.parameters for stage in stages_of(FAMILY, config))


def test_the_first_parameter_tells_where_the_model_is(config):
    """The engine asks it for device and type; the table's would be the wrong answer."""
    assert next(build_empty(FAMILY, config).named_parameters())[0] == "decoder.embedding.weight"


# -- config.json -------------------------------------------------------------------------------------------------------


SMALL = {"text_config": {"num_hidden_layers": 10, "num_kv_shared_layers": 5}}  # too few layers for sparse ones


@pytest.mark.parametrize("raw", [{}, {"text_config": None, "audio_config": None}, SMALL], ids=str)
def test_what_a_configuration_leaves_out_has_the_reference_values(raw):
    reference = ReferenceConfig(**raw)
    assert_same(Gemma3nConfig.from_hf(raw), reference)
    assert_same(Gemma3nConfig.from_hf(reference.to_dict()), reference)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_published_configurations_and_what_transformers_5_makes_of_them(text):
    reference = ReferenceConfig(**published(text))
    assert_same(Gemma3nConfig.from_hf(published(text)), reference)
    assert Gemma3nConfig.from_hf(reference.to_dict()) == Gemma3nConfig.from_hf(published(text))


def test_whose_keys_a_layer_looks_at():
    for text, depth in ((E4B, 35), (E2B, 30)):
        layers = Gemma3nConfig.from_hf(published(text)).text.layers
        assert [layer.source for layer in layers[:20]] == list(range(20))
        assert {(layer.sliding, layer.source) for layer in layers[20:]} == {(True, 18), (False, 19)}
        assert [i for i, layer in enumerate(layers) if not layer.sliding] == list(range(4, depth, 5))


def assert_same(ours: Gemma3nConfig, reference: ReferenceConfig) -> None:
    text, mine = reference.text_config, ours.text
    assert (mine.vocabulary, mine.width, mine.depth) == (text.vocab_size, text.hidden_size, text.num_hidden_layers)
    assert [layer.mlp_width for layer in mine.layers] == list(text.intermediate_size)
    assert [layer.sparsity for layer in mine.layers] == list(text.activation_sparsity_pattern)
    assert [layer.sliding for layer in mine.layers] == [kind == "sliding_attention" for kind in text.layer_types]
    shared = [i for i, mode in enumerate(text.kv_sharing_modes) if mode == "reuse"]
    assert [i for i, layer in enumerate(mine.layers) if layer.source != i] == shared
    heads = (text.num_attention_heads, text.num_key_value_heads, text.head_dim)
    assert (mine.heads, mine.key_heads, mine.head_width) == heads
    assert mine.window == text.sliding_window and mine.norm_epsilon == text.rms_norm_eps
    assert mine.rope_base == text.rope_parameters["full_attention"]["rope_theta"]
    assert mine.sliding_rope_base == text.rope_parameters["sliding_attention"]["rope_theta"]
    assert mine.logit_softcap == text.final_logit_softcapping
    tables = (text.vocab_size_per_layer_input, text.hidden_size_per_layer_input)
    assert (mine.table_rows, mine.table_width) == tables
    assert (mine.streams, mine.corrects_scale) == (text.altup_num_inputs, text.altup_correct_scale)
    assert mine.laurel_rank == text.laurel_rank
    assert (ours.pad, ours.bos) == (text.pad_token_id, text.bos_token_id)
    for modality, own in ((ours.vision, reference.vision_config), (ours.audio, reference.audio_config)):
        assert (modality.width, modality.first, modality.ids) == (own.hidden_size, own.vocab_offset, own.vocab_size)
        assert modality.norm_epsilon == own.rms_norm_eps
    vision = (reference.image_token_id, reference.boi_token_id, reference.eoi_token_id)
    assert (ours.vision.token, ours.vision.begin, ours.vision.end) == vision
    assert ours.vision.soft_tokens == reference.vision_soft_tokens_per_image
    audio = (reference.audio_token_id, reference.boa_token_id, reference.eoa_token_id)
    assert (ours.audio.token, ours.audio.begin, ours.audio.end) == audio
    assert ours.audio.soft_tokens == reference.audio_soft_tokens_per_image
    conformer, own = ours.audio.conformer, reference.audio_config
    assert (conformer.mels, conformer.depth) == (own.input_feat_size, own.conf_num_hidden_layers)
    assert (conformer.chunk, conformer.past) == (own.conf_attention_chunk_size, own.conf_attention_context_left - 1)
    assert conformer.limit == own.gradient_clipping and conformer.score_cap == own.conf_attention_logit_cap
