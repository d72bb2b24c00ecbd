"""Gemma 3n's decoder against transformers on small random checkpoints: text alone."""

import json

import gemma3n_models as models
import pytest
import torch
from gemma3n_folders import TEXT

from mmcli.engine.generate import generate
from mmcli.engine.inputs import Inputs, pad_left
from mmcli.engine.sampling import Sampling
from mmcli.errors import ModelError
from mmcli.hub.weights import kept_mapped, load_strict
from mmcli.models.gemma3n import model as gemma3n_model
from mmcli.models.gemma3n.config import Gemma3nConfig
from mmcli.models.gemma3n.model import Gemma3n
from mmcli.models.gemma3n.weights import rules

EXACT = {"rtol": 1e-4, "atol": 5e-5}  # float32, sums in another order; logits are about ±30
CPU = torch.device("cpu")
STEPS = 30
NEVER = 1 << 20  # a stop token that no model writes


@pytest.fixture(scope="module")
def folder(tmp_path_factory, reference):
    path = tmp_path_factory.mktemp("gemma3n_text")
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def reference():
    return models.tiny_text_reference()


@pytest.fixture(scope="module")
def ours(folder):
    return load(folder)


def load(folder, dtype=torch.float32, table="cpu") -> Gemma3n:
    config = Gemma3nConfig.from_hf(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        model = Gemma3n(config)
    mapped = kept_mapped(model) if table == "cpu" else frozenset()
    load_strict(model, folder, rules(config), CPU, dtype, mapped)
    return model


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(6, TEXT, (length,), generator=generator).tolist()


def read(model: Gemma3n, *rows: list[int], cache=None) -> torch.Tensor:
    tokens, valid = pad_left(list(rows), 0)
    with torch.inference_mode():
        return model.prefill(Inputs(tokens, valid), cache or model.new_cache(*tokens.shape))


def write(model: Gemma3n, *rows: list[int], steps: int = STEPS) -> list[list[int]]:
    tokens, valid = pad_left(list(rows), 0)
    events = generate(model, Inputs(tokens, valid), stop_ids=frozenset(), max_tokens=steps, sampling=Sampling())
    return [list(ids) for ids in zip(*([event.id for event in step] for step in events), strict=True)]


def expected(reference, *rows: list[int], **options) -> list[list[int]]:
    tokens, valid = pad_left(list(rows), 0)
    options = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": NEVER} | options
    output = reference.generate(input_ids=tokens, attention_mask=valid.long(), **options)
    return output[:, tokens.shape[1] :].tolist()


@pytest.mark.parametrize("length", [1, 2, 11, 12, 13, 40], ids=lambda n: f"{n} tokens, window {models.WINDOW}")
def test_prefill_logits(reference, ours, length):
    for seed in range(3):
        tokens = prompt(length, seed)
        with torch.inference_mode():
            theirs = reference(input_ids=torch.tensor([tokens])).logits[:, -1]
        torch.testing.assert_close(read(ours, tokens), theirs, **EXACT)


@pytest.mark.parametrize("length", [3, 20])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_answers_go_on_beyond_the_window(reference, ours, length, seed):
    assert write(ours, prompt(length, seed)) == expected(reference, prompt(length, seed))


def test_cached_steps_equal_a_reading_without_cache(reference, ours):
    assert write(ours, prompt(15, 5)) == expected(reference, prompt(15, 5), use_cache=False)


def test_a_padded_batch_gives_the_reference_answers_and_those_of_its_rows(reference, ours):
    rows = [prompt(4, 1), prompt(30, 2), prompt(13, 3)]
    together = write(ours, *rows)
    assert together == [write(ours, row)[0] for row in rows]
    assert together == expected(reference, *rows)


def test_ids_beyond_the_per_layer_table_have_its_row_of_padding(reference, ours):
    tokens = [*prompt(5), TEXT, TEXT + 14, 7]
    with torch.inference_mode():
        theirs = reference(input_ids=torch.tensor([tokens])).logits[:, -1]
    torch.testing.assert_close(read(ours, tokens), theirs, **EXACT)


@pytest.mark.parametrize("parts", [[20, 20], [1, 38, 1], [5, 12, 23], [1] * 40], ids=str)
def test_a_prompt_read_in_parts_equals_one_read_at_once(ours, parts):
    tokens = prompt(40)
    cache = ours.new_cache(1, 40)
    for part in parts:
        start = cache.length
        logits = read(ours, tokens[start : start + part], cache=cache)
    torch.testing.assert_close(logits, read(ours, tokens), **EXACT)


def test_long_prompts_are_read_in_chunks_whose_size_changes_nothing(ours, monkeypatch):
    rows = [prompt(40, 1), prompt(9, 2), prompt(23, 3)]
    whole = read(ours, *rows), write(ours, *rows)
    monkeypatch.setattr(gemma3n_model, "CHUNK", 7)  # the first chunks of the shorter rows hold nothing but padding
    torch.testing.assert_close(read(ours, *rows), whole[0], **EXACT)
    assert write(ours, *rows) == whole[1]


def test_layers_that_look_at_anothers_keys_read_no_more_of_a_prompt_than_its_last_token(ours, monkeypatch):
    monkeypatch.setattr(gemma3n_model, "CHUNK", 16)
    read_by: list[list[int]] = [[] for _ in ours.decoder.layers]
    hooks = [
        layer.register_forward_hook(lambda _, given, __, counts=counts: counts.append(given[0].shape[1]))
        for layer, counts in zip(ours.decoder.layers, read_by, strict=True)
    ]
    read(ours, prompt(40))
    for hook in hooks:
        hook.remove()
    assert read_by == [[16, 16, 8]] * 4 + [[1]] * 3


def test_a_cache_that_forgot_the_end_goes_on_as_if_that_had_not_been(ours):
    cache = ours.new_cache(1, 60)
    read(ours, prompt(25), cache=cache)
    read(ours, prompt(9, 1), cache=cache)
    cache.truncate(25)
    again = read(ours, prompt(8, 2), cache=cache)
    torch.testing.assert_close(again, read(ours, prompt(25) + prompt(8, 2)), **EXACT)


def test_a_step_over_the_whole_capacity_equals_one_over_what_is_filled(ours):
    """As it is recorded for playing back: the cache at its full size under a mask, the place a number in memory."""
    usual, fixed = ours.new_cache(2, 40), ours.new_cache(2, 40)
    for cache in (usual, fixed):
        tokens = read(ours, prompt(20), prompt(3), cache=cache).argmax(-1)
    for _ in range(15):
        with torch.inference_mode():
            rows = ours.before_step(tokens)
            fixed.cursor.fill_(fixed.length)
            fixed.fixed = True
            played = ours.step(tokens, fixed, rows)
            fixed.fixed, fixed.length = False, fixed.length + 1
            logits = ours.step(tokens, usual)
        torch.testing.assert_close(played, logits, **EXACT)
        tokens = logits.argmax(-1)


def test_the_table_beside_the_other_weights_gives_the_same(folder, ours):
    near = load(folder, table="device")
    assert write(near, prompt(9)) == write(ours, prompt(9))


def test_stacked_products_give_the_same(folder, ours):
    stacked = load(folder)
    for layer in stacked.decoder.layers:
        layer.mlp.fuse()
        if layer.attention.owns:
            layer.attention.fuse()
    torch.testing.assert_close(read(stacked, prompt(20), prompt(3)), read(ours, prompt(20), prompt(3)), **EXACT)
    assert write(stacked, prompt(20)) == write(ours, prompt(20))


def test_the_table_keeps_its_type_and_the_rest_takes_the_one_asked_for(folder, tmp_path):
    reference = models.tiny_text_reference().bfloat16()
    reference.save_pretrained(tmp_path)
    model = load(tmp_path)
    table = model.decoder.per_layer.table.weight
    assert table.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p is not table} == {torch.float32}
    wide = type(reference).from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.inference_mode():
        theirs = wide(input_ids=torch.tensor([prompt(20)])).logits[:, -1]
    torch.testing.assert_close(read(model, prompt(20)), theirs, **EXACT)


def test_every_parameter_matters_in_these_checkpoints(folder):
    """Without this the tests above could pass by a model that ignores some."""
    model = load(folder, table="device")
    tokens = prompt(30)
    usual = read(model, tokens)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        kept = parameter.clone()
        parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3 * kept.abs())
        assert (read(model, tokens) - usual).abs().max() > 1e-3, name
        parameter.copy_(kept)


@pytest.mark.parametrize("altered", ["window", "sparsity", "rope", "sliding rope", "softcap", "scale"])
def test_every_setting_matters_in_these_checkpoints(reference, folder, tmp_path, altered):
    change = {
        "window": {"sliding_window": 9},
        "sparsity": {"activation_sparsity_pattern": [0.0] * 7},
        "rope": {"rope_parameters": rope(full_attention=1e4, sliding_attention=1e4)},
        "sliding rope": {"rope_parameters": rope(full_attention=1e6, sliding_attention=1e5)},
        "softcap": {"final_logit_softcapping": 5.0},
        "scale": {"altup_correct_scale": False},
    }[altered]
    other = models.tiny_text_reference(**change)
    other.load_state_dict(reference.state_dict())
    other.save_pretrained(tmp_path)
    with torch.inference_mode():
        theirs = other(input_ids=torch.tensor([prompt(30)])).logits[:, -1]
    changed = read(load(tmp_path), prompt(30))
    torch.testing.assert_close(changed, theirs, **EXACT)
    assert (changed - read(load(folder), prompt(30))).abs().max() > 1e-2


def rope(**bases: float) -> dict:
    return {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()}


@pytest.mark.parametrize(
    "sizes",
    [
        {"altup_num_inputs": 2},
        {"num_kv_shared_layers": 0},
        {"num_kv_shared_layers": 4},
        {"num_attention_heads": 2, "num_key_value_heads": 2},
        {"num_hidden_layers": 11, "layer_types": None, "activation_sparsity_pattern": None, "intermediate_size": 60},
    ],
    ids=str,
)
def test_other_sizes(tmp_path, sizes):
    reference = models.tiny_text_reference(**sizes)
    reference.save_pretrained(tmp_path)
    assert write(load(tmp_path), prompt(20), prompt(3)) == expected(reference, prompt(20), prompt(3))


def test_bfloat16_is_as_close_as_the_references_own(reference, folder):
    tokens = prompt(30)
    theirs = models.tiny_text_reference().bfloat16()
    with torch.inference_mode():
        exact = reference(input_ids=torch.tensor([tokens])).logits[:, -1]
        reference_error = (theirs(input_ids=torch.tensor([tokens])).logits[:, -1] - exact).abs().mean()
    error = (read(load(folder, torch.bfloat16), tokens) - exact).abs().mean()
    assert error < 1.5 * reference_error + 0.02


def test_numbers_beyond_float16_are_an_error_and_no_answer(tmp_path):
    reference = models.tiny_text_reference()
    for layer in reference.model.layers:
        layer.mlp.up_proj.weight *= 3e4
    reference.save_pretrained(tmp_path)
    assert write(load(tmp_path), prompt(9))
    with pytest.raises(ModelError, match="left the range of its data type"):
        write(load(tmp_path, torch.float16), prompt(9))
