"""The Llama-type decoder against transformers' Llama, Mistral and Qwen2, and MiniCPM's scales against float64."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)  # fmt: skip

from mmcli.engine.inputs import Inputs, pad_left
from mmcli.errors import ModelError
from mmcli.hub.fields import Fields
from mmcli.hub.weights import load_strict
from mmcli.layers import causal_lm
from mmcli.layers.causal_lm import CausalLM
from mmcli.layers.linear import stack
from mmcli.models.llama import LLAMA, MISTRAL, QWEN2, decoder_rules, read_decoder

EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
WINDOW = 6  # tokens, fewer than every prompt has
IMAGE = 1000  # no row of the embedding
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
KINDS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters={"rope_theta": 1e4}), LLAMA, {}),
    "llama3": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, tie_word_embeddings=True, head_dim=16, rope_parameters=LLAMA3 | {"rope_theta": 5e2}),
        LLAMA,
        {},
    ),
    "mistral": (MistralForCausalLM, MistralConfig(**SIZES, sliding_window=WINDOW), MISTRAL, {}),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=2),
        QWEN2,
        {"qkv_bias": True},
    ),
}


class SoftTokens(CausalLM):
    """Images are the vectors themselves."""

    def soft_tokens(self, inputs: Inputs) -> Tensor:
        return torch.cat(inputs.images)


def filled(config, folder) -> SoftTokens:
    """Our model with the weights in a folder."""
    with torch.device("meta"):
        model = SoftTokens(config, IMAGE)
    load_strict(model, folder, decoder_rules(config), torch.device("cpu"), torch.float32)
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(reference, ours) with weights that leave nothing near zero."""
    kind, config, usual, settings = KINDS[request.param]
    torch.manual_seed(len(request.param))
    reference = kind(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    text = Fields(json.loads((folder / "config.json").read_text()), "config.json", usual)
    return reference, filled(read_decoder(text, **settings), folder)


def inputs_of(rows: list[list[int]], *images: Tensor) -> Inputs:
    return Inputs(*pad_left(rows, 0), images)


def prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(64, (length,), generator=generator).tolist() for length in lengths]


@torch.inference_mode()
def written(model: CausalLM, inputs: Inputs, steps: int) -> tuple[list[Tensor], Tensor]:
    """Logits of every step of a greedy answer, and its tokens [B, steps]."""
    cache = model.new_cache(inputs.tokens.shape[0], inputs.tokens.shape[1] + steps)
    logits = [model.prefill(inputs, cache)]
    for _ in range(steps - 1):
        logits.append(model.step(logits[-1].argmax(-1), cache))
    return logits, torch.stack([one.argmax(-1) for one in logits], dim=1)


@torch.inference_mode()
def test_every_step_has_the_logits_of_the_reference_reading_all_anew(pair):
    reference, ours = pair
    [prompt] = prompts(11)
    logits, tokens = written(ours, inputs_of([prompt]), 20)
    for step, mine in enumerate(logits):
        text = torch.tensor([prompt + tokens[0, :step].tolist()])
        torch.testing.assert_close(mine, reference(text, use_cache=False).logits[:, -1], **EXACT)


def test_a_padded_batch_equals_its_rows(pair):
    _, ours = pair
    rows = prompts(4, 13, 9)
    together = written(ours, inputs_of(rows), 12)[1].tolist()
    assert together == [written(ours, inputs_of([row]), 12)[1][0].tolist() for row in rows]


@torch.inference_mode()
def test_reading_in_parts_and_behind_the_cache_changes_nothing(pair, monkeypatch):
    _, ours = pair
    [prompt] = prompts(23)
    whole = ours.prefill(inputs_of([prompt]), ours.new_cache(1, 23))
    monkeypatch.setattr(causal_lm, "CHUNK", 5)
    cache = ours.new_cache(1, 23)
    ours.prefill(inputs_of([prompt[:9]]), cache)
    torch.testing.assert_close(ours.prefill(inputs_of([prompt[9:]]), cache), whole, **EXACT)


@torch.inference_mode()
def test_images_take_their_places_among_the_tokens(pair):
    reference, ours = pair
    first, last = prompts(3, 5)
    images = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(2))
    row = [*first, *[IMAGE] * 4, *first, *[IMAGE] * 4, *last]
    embed = reference.get_input_embeddings()
    a, b = embed(torch.tensor(first)), embed(torch.tensor(last))
    expected = reference(inputs_embeds=torch.cat((a, images[0], a, images[1], b))[None]).logits[:, -1]
    inputs = inputs_of([row], *images)
    torch.testing.assert_close(ours.prefill(inputs, ours.new_cache(1, len(row))), expected, **EXACT)
    with pytest.raises(ValueError, match="4 vectors of images for 8 places"):
        ours.prefill(inputs_of([row], images[0]), ours.new_cache(1, len(row)))


@torch.inference_mode()
def test_one_product_for_several_weights_gives_the_same(pair):
    """What `fuse` does on a GPU."""
    _, ours = pair
    x, positions = torch.randn(1, 7, 32), torch.arange(7)[None]
    angles, mask = ours.decoder.angles(positions, x), torch.ones(7, 7, dtype=torch.bool).tril()[None, None]
    layer = ours.decoder.layers[1]
    apart = layer(x, angles, mask, None)
    attention, mlp = layer.attention, layer.mlp
    try:
        attention.qkv, mlp.gate_up = stack(attention.q, attention.k, attention.v), stack(mlp.gate, mlp.up)
        torch.testing.assert_close(layer(x, angles, mask, None), apart, **EXACT)
    finally:
        attention.qkv = mlp.gate_up = None


def in_float64(state: dict[str, Tensor], c, tokens: list[int]) -> Tensor:
    """The last logits of a decoder with MiniCPM's scales, written down plainly, a head and a token at a time."""
    w = {name: tensor.double() for name, tensor in state.items()}
    length, half, group = len(tokens), c.head_width // 2, c.heads // c.key_heads
    angle = torch.arange(length).double()[:, None] * c.rope_base ** (-torch.arange(half).double() / half)

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + c.norm_epsilon).sqrt() * w[name]

    def turned(x):
        a, b = x[:, :half], x[:, half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)

    x = w["embedding.weight"][tokens] * c.embedding_scale
    for i in range(c.depth):
        name = f"layers.{i}."
        y, heads = norm(x, name + "norm_attention.weight"), []
        q, k, v = (y @ w[f"{name}attention.{part}.weight"].T for part in "qkv")
        for head in range(c.heads):
            mine, shared = (slice(n * c.head_width, (n + 1) * c.head_width) for n in (head, head // group))
            scores = turned(q[:, mine]) @ turned(k[:, shared]).T / math.sqrt(c.head_width)
            scores += torch.full_like(scores, -torch.inf).triu(1)
            heads.append(scores.softmax(-1) @ v[:, shared])
        x = x + torch.cat(heads, -1) @ w[name + "attention.out.weight"].T * c.residual_scale
        y = norm(x, name + "norm_mlp.weight")
        gate = y @ w[name + "mlp.gate.weight"].T
        y = gate / (1 + (-gate).exp()) * (y @ w[name + "mlp.up.weight"].T)
        x = x + y @ w[name + "mlp.down.weight"].T * c.residual_scale
    return norm(x, "norm.weight")[-1] * c.logit_scale @ w["embedding.weight"].T


@torch.inference_mode()
def test_scales_of_minicpm():
    """Embeddings times scale_emb, residuals times scale_depth / √layers, logits over hidden_size / dim_model_base."""
    text = Fields({**SIZES, "tie_word_embeddings": True, "model_type": "minicpm"}, "config.json", LLAMA)
    plain = read_decoder(text)
    scales = {"embedding_scale": 12.0, "residual_scale": 1.4 / math.sqrt(3), "logit_scale": 8 / 32}
    torch.manual_seed(0)
    model = SoftTokens(dataclasses.replace(plain, **scales), IMAGE).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    model.decoder.embedding.weight.mul_(0.1)  # so that the residuals weigh as much
    [prompt] = prompts(9)
    logits, tokens = written(model, inputs_of([prompt]), 5)
    state = model.decoder.state_dict()
    for step, mine in enumerate(logits):
        expected = in_float64(state, model.decoder.config, prompt + tokens[0, :step].tolist())
        torch.testing.assert_close(mine[0], expected.float(), **EXACT)
    for name in scales:  # each of them matters here
        others = in_float64(state, dataclasses.replace(model.decoder.config, **{name: 1.0}), prompt)
        assert (logits[0][0] - others).abs().max() > 0.1, name


def test_images_are_not_scaled_as_tokens_are():
    text = Fields({**SIZES, "tie_word_embeddings": True}, "config.json", LLAMA)
    model = SoftTokens(read_decoder(text, embedding_scale=12.0), IMAGE)
    image = torch.randn(2, 32)
    x = model.embed(inputs_of([[3, IMAGE, IMAGE]], image))
    assert torch.equal(x[0, 1:], image) and torch.equal(x[0, 0], model.decoder.embedding.weight[3] * 12)


def test_a_tied_head_that_differs_is_refused(tmp_path):
    reference = LlamaForCausalLM(LlamaConfig(**SIZES))
    reference.save_pretrained(tmp_path)
    text = Fields(json.loads((tmp_path / "config.json").read_text()), "config.json", LLAMA)
    with pytest.raises(ModelError, match="differs from"):
        filled(read_decoder(text, tied=True), tmp_path)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"hidden_act": "gelu"}, "hidden_act to 'gelu'; supported is 'silu'"),
        ({"mlp_bias": True}, "mlp_bias to True"),
        ({"attention_bias": True}, "attention_bias to True"),
        ({"num_key_value_heads": 3}, "4 heads among 3"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "32 numbers .* among 5 heads"),
        ({"head_dim": 7}, "heads 7 numbers wide"),
        ({"num_hidden_layers": -1}, "num_hidden_layers to -1"),
        ({"sliding_window": 0}, "sliding_window to 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings to 'no'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn' rope"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' rope"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta to 0; expected a number above 0"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "no rope_parameters.low_freq_factor"),
        ({"rope_parameters": LLAMA3 | {"high_freq_factor": 0.5}}, "expected more than low_freq_factor, 1"),
        ({"rope_parameters": 5}, "rope_parameters to 5, which is no JSON object"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(change, words):
    with pytest.raises(ModelError, match=words):
        read_decoder(Fields(SIZES | change, "This model's config.json", MISTRAL))
