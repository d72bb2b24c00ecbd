"""Fuyu against transformers on small random checkpoints: patches, prompts, logits, and what the commands answer."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuyu_folders
import pytest
import torch
from command import mmcli
from fuyu_folders import END, EOS, tiny_config, tiny_reference, write_checkpoint
from PIL import Image
from places import assert_places, stages_of
from safetensors.torch import load_file, save_file
from support import random_image
from transformers import FuyuConfig as ReferenceConfig
from transformers import FuyuForCausalLM

from mmcli.engine.collect import complete
from mmcli.engine.kv_cache import KVCache
from mmcli.hub.resolve import resolve
from mmcli.media.image import load_image
from mmcli.media.sources import expand
from mmcli.models.fuyu import FAMILY, FuyuConfig
from mmcli.models.fuyu.processor import PROMPTS
from mmcli.models.load import build_empty, load
from mmcli.models.loaded import Loaded

STEPS = 16
EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
CAPTION, QUESTION = PROMPTS["caption"], "What is on the left of the cat?"
SHAPES = {"wide.png": (100, 40), "tall.png": (31, 95)}


@dataclass(frozen=True)
class Pair:
    """A reference with its processor, what mmcli loads from their folder, and two images."""

    folder: Path
    reference: Any
    processor: Any
    ours: Loaded

    def image(self, name: str) -> Image.Image:
        return Image.open(self.folder / "images" / name)

    def inputs(self, image: Image.Image | None, prompt: str) -> dict[str, torch.Tensor]:
        """What the reference makes of one image and a prompt."""
        options = {} if image is None else {"images": image, "return_legacy_image_output": False}
        return dict(self.processor(text=prompt, return_tensors="pt", **options))

    def tokens(self, image: Image.Image | None, prompt: str, **options) -> list[int]:
        """The reference's greedy answer, without the token that ends it."""
        inputs = self.inputs(image, prompt)
        output = self.reference.generate(**inputs, max_new_tokens=STEPS, do_sample=False, pad_token_id=0, **options)
        ids = output[0, inputs["input_ids"].shape[1] :].tolist()
        return ids[: next((i for i, id in enumerate(ids) if id in (EOS, END)), STEPS)]

    def run(self, command: str, *arguments: object) -> list[dict]:
        options = ("--model", self.folder, "--dtype", "float32", "--device", "cpu", "--json", "--token-ids")
        done = mmcli(command, *arguments, *options, "--max-tokens", STEPS)
        assert done.code == 0, done.err
        return done.records

    def paths(self) -> list[Path]:
        return [self.folder / "images" / name for name in SHAPES]


@pytest.fixture(scope="module", params=[1, 2])
def pair(request, tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("fuyu")
    reference = tiny_reference(tiny_config(), request.param)
    processor = write_checkpoint(folder, reference)
    (folder / "images").mkdir()
    for seed, (name, size) in enumerate(SHAPES.items()):
        random_image(seed, *size).save(folder / "images" / name)
    return Pair(folder, reference, processor, load(resolve(str(folder)), "cpu", torch.float32))


@pytest.mark.parametrize("prompt", [CAPTION, QUESTION, "", "a  cat ", "é 漢\n", "</s> 123"])
def test_prompts_become_the_same_tokens(pair, prompt):
    for name in SHAPES:
        ours = pair.ours.processor.inputs([[pair.image(name)]], [prompt])
        assert ours.tokens.tolist() == pair.inputs(pair.image(name), prompt)["input_ids"].tolist()
    alone = pair.ours.processor.inputs([[]], [prompt])
    assert alone.tokens.tolist() == pair.inputs(None, prompt)["input_ids"].tolist() or not prompt.strip()


@pytest.mark.parametrize("size", [(1, 1), (30, 4000), (4000, 30), (560, 560), (1920, 1080), (3000, 2000), (1921, 7)])
def test_patches_equal_the_pillow_reference_bit_for_bit(pair, size):
    image = random_image(5, *size) if min(size) > 1 else Image.new("RGB", size, (3, 200, 90))
    ours = pair.ours.processor.inputs([[image]], ["cat"])
    theirs = pair.inputs(image, "cat")
    assert torch.equal(ours.images[0], theirs["pixel_values"].view(-1, 2700))  # of one patch it makes a row
    assert ours.tokens.tolist() == theirs["input_ids"].tolist()


def test_patches_of_an_image_with_alpha_are_those_of_it_on_white(pair, tmp_path):
    """The reference has no opinion: four colours do not fit its weights."""
    clear = random_image(6, 64, 41).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "clear.png")
    [source] = expand([str(tmp_path / "clear.png")], extensions=frozenset())
    seen = load_image(source).image
    assert seen.mode == "RGB" and seen.tobytes() != clear.convert("RGB").tobytes()
    [ours] = pair.ours.processor.inputs([[seen]], ["cat"]).images
    assert torch.equal(ours, pair.inputs(seen, "cat")["pixel_values"])


def test_logits(pair):
    for image, prompt in ((pair.image("wide.png"), QUESTION), (pair.image("tall.png"), CAPTION), (None, QUESTION)):
        with torch.inference_mode():
            expected = pair.reference(**pair.inputs(image, prompt)).logits[:, -1]
            inputs = pair.ours.processor.inputs([[image] if image else []], [prompt])
            cache = pair.ours.model.new_cache(1, inputs.tokens.shape[1])
            torch.testing.assert_close(pair.ours.model.prefill(inputs, cache), expected, **EXACT)


def test_captions_are_those_of_the_reference_alone_and_in_a_batch(pair):
    answers = [pair.tokens(pair.image(name), CAPTION) for name in SHAPES]
    assert answers[0] != answers[1]
    for size in (1, 2):
        records = pair.run("caption", *pair.paths(), "--batch-size", size)
        assert [record["token_ids"] for record in records] == answers
        assert {record["prompt"] for record in records} == {CAPTION}


def test_answers_about_an_image_and_about_none(pair):
    for path in pair.paths():
        [record] = pair.run("chat", path, "-m", QUESTION)
        assert record["token_ids"] == pair.tokens(Image.open(path), f"{QUESTION}\n")
    [record] = pair.run("chat", "-m", QUESTION)
    assert record["token_ids"] == pair.tokens(None, f"{QUESTION}\n")


def test_rows_of_unlike_lengths_write_what_they_write_alone(pair):
    images = [[], [pair.image("tall.png")], [pair.image("wide.png")]]
    prompts = ["a cat", QUESTION, CAPTION]
    inputs = pair.ours.processor.inputs(images, prompts)
    answers = complete(pair.ours.model, inputs, stop_ids=pair.ours.processor.stop_ids, max_tokens=STEPS)
    for own, prompt, said in zip(images, prompts, answers, strict=True):
        assert list(said.ids) == pair.tokens(own[0] if own else None, prompt)


def test_cached_steps_equal_a_reading_without_cache(pair):
    """The reference without cache reads everything anew at every step; ours reads each token once."""
    image = pair.image("wide.png")
    inputs = pair.ours.processor.inputs([[image]], [QUESTION])
    [said] = complete(pair.ours.model, inputs, stop_ids=pair.ours.processor.stop_ids, max_tokens=STEPS)
    assert list(said.ids) == pair.tokens(image, QUESTION, use_cache=False)


def test_beams_share_their_prefix_and_find_the_same(pair, monkeypatch):
    inputs = pair.ours.processor.inputs([[pair.image("tall.png")], [pair.image("wide.png")]], [QUESTION, CAPTION])
    options = {"stop_ids": pair.ours.processor.stop_ids, "max_tokens": STEPS, "beams": 3}
    shared = complete(pair.ours.model, inputs, **options)
    monkeypatch.setattr(KVCache, "share", lambda cache: None)
    assert [one.ids for one in complete(pair.ours.model, inputs, **options)] == [one.ids for one in shared]


def test_files_of_every_generation_load_to_the_same_model(pair, tmp_path):
    """Names of today's memory, of the file that was published, and a flat config.json in shards."""
    path, config = pair.folder / "model.safetensors", json.loads((pair.folder / "config.json").read_text())
    text = config.pop("text_config")
    flat = config | {key: value for key, value in text.items() if key not in ("model_type", "rope_parameters")}
    flat |= {"rope_theta": 25000.0, "rope_scaling": None, "partial_rotary_factor": 0.5}
    wanted = pair.ours.model.state_dict()
    for style in ("in memory", "with what is computed", "shards"):
        folder = tmp_path / style
        shutil.copytree(pair.folder, folder, ignore=shutil.ignore_patterns("images"))
        if style == "in memory":
            (folder / path.name).unlink()
            pair.reference.save_pretrained(folder, save_original_format=False)
        elif style == "shards":
            (folder / path.name).unlink()
            pair.reference.save_pretrained(folder, max_shard_size="60KB")
            assert (folder / "model.safetensors.index.json").is_file()
            (folder / "config.json").write_text(json.dumps(flat))
        else:
            computed = {"language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(3)}
            save_file(load_file(path) | computed, folder / path.name)
        loaded = load(resolve(str(folder)), "cpu", torch.float32)
        assert loaded.config == pair.ours.config
        assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in wanted.items())


def test_half_precision_stays_close(pair):
    short = load(pair.ours.checkpoint, "cpu", torch.bfloat16)
    inputs = pair.ours.processor.inputs([[pair.image("wide.png")]], [QUESTION])
    with torch.inference_mode():
        length = inputs.tokens.shape[1]
        exact = pair.ours.model.prefill(inputs, pair.ours.model.new_cache(1, length))
        rough = short.model.prefill(inputs.to(torch.device("cpu"), torch.bfloat16), short.model.new_cache(1, length))
    assert torch.nn.functional.cosine_similarity(exact, rough) > 0.995


# -- the published size ------------------------------------------------------------------------------------------------

# config.json of adept/fuyu-8b: everything at one level
PUBLISHED = {
    "model_type": "fuyu", "vocab_size": 262144, "hidden_size": 4096, "intermediate_size": 16384,
    "num_hidden_layers": 36, "num_attention_heads": 64, "hidden_act": "relu2", "max_position_embeddings": 16384,
    "layer_norm_eps": 1e-5, "qk_layernorm": True, "rope_theta": 25000.0, "rope_scaling": None, "image_size": 300,
    "partial_rotary_factor": 0.5, "patch_size": 30, "num_channels": 3, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def spellings(name: str) -> list[str]:
    """The names that this tensor has had in files: today's in memory, and the published ones."""
    if name == "lm_head.weight":
        return [name, "language_model.lm_head.weight"]
    return [name, name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)]


def test_names_and_shapes_agree_in_both_directions():
    config = FuyuConfig.from_hf(PUBLISHED)
    with torch.device("meta"):
        reference = FuyuForCausalLM(ReferenceConfig(**PUBLISHED))
    ours = build_empty(FAMILY, config)
    assert_places(FAMILY.rules(config), ours, reference, spellings)
    total = sum(parameter.numel() for parameter in reference.parameters())
    assert sum(stage.parameters for stage in stages_of(FAMILY, config)) == total
    assert total / 1e9 == pytest.approx(9.41, abs=0.005)


@pytest.mark.parametrize(
    "raw",
    [
        PUBLISHED,
        {},
        {"text_config": None},
        {"text_config": {"hidden_size": 512, "num_attention_heads": 16}},
        {"text_config": {"rope_theta": 500.0, "qk_layernorm": False, "eos_token_id": [2, 9]}, "image_token_id": 7},
        {"hidden_size": 1024, "rope_theta": 20_000.0},
        tiny_config().to_dict(),
    ],
    ids=range(7),
)
def test_configurations_mean_what_they_mean_to_the_reference(raw):
    reference, ours = ReferenceConfig(**raw), FuyuConfig.from_hf(raw)
    assert FuyuConfig.from_hf(reference.to_dict()) == ours
    text, decoder = reference.text_config, ours.decoder
    assert (decoder.vocabulary, decoder.width, decoder.depth) == (
        text.vocab_size,
        text.hidden_size,
        text.num_hidden_layers,
    )
    assert (decoder.mlp_width, decoder.heads) == (text.intermediate_size, text.num_attention_heads)
    assert (decoder.norm_epsilon, decoder.head_norms) == (text.layer_norm_eps, text.qk_layernorm)
    rope = text.rope_parameters
    assert decoder.rope_base == rope["rope_theta"]
    assert decoder.turned == int(decoder.head_width * rope["partial_rotary_factor"])
    assert ours.image_token == reference.image_token_id and ours.patch == reference.patch_size
    assert ours.stop_ids == {*([text.eos_token_id] if isinstance(text.eos_token_id, int) else text.eos_token_id)}


def test_settings_left_out_are_those_of_the_reference(pair, tmp_path):
    """An image processor's file with nothing in it."""
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(pair.folder / name, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    bare = FAMILY.processor(tmp_path, pair.ours.config, {})
    assert bare.images == pair.ours.processor.images
    assert fuyu_folders.Images().size == {"height": bare.images.fit.height, "width": bare.images.fit.width}
