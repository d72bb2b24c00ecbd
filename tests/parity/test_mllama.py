"""Llama 3.2 Vision against transformers on small random checkpoints: pixels, prompts, modules, answers."""

import mllama_folders as folders
import pytest
import torch
from mllama_pairs import Pair, make_pair, say
from PIL import Image
from support import random_image

from mmcli.engine.beams import beam_search
from mmcli.hub.fields import Fields
from mmcli.hub.pixel_values import PixelValues
from mmcli.layers.linear import stack
from mmcli.media.image import load_image
from mmcli.media.sources import expand
from mmcli.models.mllama import model as models
from mmcli.models.mllama.processor import IMAGES, TileSettings
from mmcli.models.mllama.prompts import task_prompt
from mmcli.types import Turn

EXACT = {"rtol": 1e-4, "atol": 2e-5}  # float32, sums in another order
QUESTIONS = ["what is on the left?", "a cat", "hello world, are you kind?"]
SIZES = [(90, 37), (31, 200), (1, 1), (28, 28), (29, 57), (20, 90)]


@pytest.fixture(scope="module", params=[1, 2])
def pair(request, tmp_path_factory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp("mllama"))


# -- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_equal_the_pillow_reference_bit_for_bit(pair, size):
    image = random_image(1, *size) if min(size) > 1 else Image.new("RGB", size, (9, 200, 77))
    ours = pair.ours.processor.inputs([[image]], ["a cat"])
    expected = pair.inputs(say("user", image, "a cat"))
    assert torch.equal(ours.images[0], expected["pixel_values"][0, 0])
    rows, columns = ours.image_layouts[0]
    assert expected["aspect_ratio_mask"].sum() == rows * columns
    assert models.arrangements(4).index((rows, columns)) + 1 == expected["aspect_ratio_ids"].item()


@pytest.mark.parametrize("size", [(1, 1), (30, 4000), (4000, 30), (560, 560), (1200, 700)], ids=str)
def test_published_tiles_equal_the_pillow_reference_bit_for_bit(size):
    settings = folders.CLIP | {"size": {"height": 560, "width": 560}}
    image = random_image(3, *size) if min(size) > 1 else Image.new("RGB", size, (9, 200, 77))
    values = PixelValues.read(Fields(folders.CLIP, "", IMAGES))
    tiles, grid = TileSettings(560, 4, Image.Resampling.BILINEAR, values).tiles(image)
    expected = folders.MllamaImageProcessorPil(**settings)([[image]], return_tensors="pt")
    assert torch.equal(torch.from_numpy(tiles), expected["pixel_values"][0, 0])
    assert grid[0] * grid[1] == expected["aspect_ratio_mask"].sum()


def test_see_through_images_are_read_as_the_reference_reads_them(pair, tmp_path):
    clear = random_image(3, 60, 50).convert("RGBA")
    clear.putalpha(random_image(4, 60, 50).convert("L"))
    clear.save(tmp_path / "clear.png")
    [source] = expand([str(tmp_path / "clear.png")], extensions=frozenset())
    [ours] = pair.ours.processor.inputs([[load_image(source).image]], ["a cat"]).images
    assert torch.equal(ours, pair.inputs(say("user", clear, "a cat"))["pixel_values"][0, 0])


# -- prompts -------------------------------------------------------------------------------------------------------

CONVERSATIONS = {
    "text alone": [say("user", "hello world")],
    "a system": [say("system", " be kind\n"), say("user", " hello world\n")],
    "one image": [say("user", random_image(0), "what is on the left?")],
    "several": [say("user", random_image(0), random_image(1, 31, 200), "a cat")],
    "between words": [
        say("user", "what is", random_image(0), " and who ", random_image(1, 31, 200), random_image(2), "is here?")
    ],
    "turns": [say("user", random_image(0), "what is it?"), say("assistant", "a cat"), say("user", "say it again")],
    "an image late": [say("user", "hello"), say("assistant", "a cat"), say("user", random_image(1, 31, 200), "who?")],
}


def ours_of(pair: Pair, name: str):
    """Our inputs for one of the conversations."""
    roles = {"assistant": "model"}
    turns = [
        Turn(
            roles.get(message["role"], message["role"]),
            (message["content"],)
            if message["role"] == "system"
            else tuple(part.get("image") or part["text"] for part in message["content"]),
        )
        for message in CONVERSATIONS[name]
    ]
    processor = pair.ours.processor
    return processor.text_inputs(
        processor.apply_chat_template(turns), [image for turn in turns for image in turn.images()]
    )


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_become_the_same_tokens_and_logits(pair, name):
    ours, expected = ours_of(pair, name), pair.inputs(*CONVERSATIONS[name])
    assert ours.tokens.tolist() == expected["input_ids"].tolist()
    if ours.images:
        assert torch.equal(torch.stack(ours.images), expected["pixel_values"][0])
    with torch.inference_mode():
        logits = pair.ours.model.prefill(ours, pair.ours.model.new_cache(1, ours.tokens.shape[1]))
        torch.testing.assert_close(logits, pair.reference(**expected).logits[:, -1], **EXACT)


@pytest.mark.parametrize("name", ["one image", "between words", "an image late"])
def test_who_sees_which_image_is_as_the_reference_has_it(pair, name):
    ours, mask = ours_of(pair, name), pair.inputs(*CONVERSATIONS[name])["cross_attention_mask"]
    counts = [rows * columns for rows, columns in ours.image_layouts]
    seen = models.cross_attention_mask(ours.tokens, folders.IMAGE, counts, folders.TILES, 3)
    assert torch.equal(seen[..., ::3].long(), mask.flatten(2)) and torch.equal(seen[..., ::3], seen[..., 2::3])


def test_a_typed_control_token_is_read_letter_by_letter(pair):
    ids = pair.ours.processor.inputs([[random_image(0)]], ["<|image|> <|eot_id|>"]).tokens[0].tolist()
    assert ids.count(folders.IMAGE) == 1 and ids.count(folders.EOT) == 1


# -- modules -------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_tower_and_projector(pair):
    images = [random_image(0), random_image(1, 31, 200), random_image(2, 90, 37)]
    ours = pair.ours.processor.inputs([images], ["a cat"])
    expected = pair.inputs(say("user", *images, "a cat"))
    keys = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    states = pair.reference.model.vision_model(**{key: expected[key] for key in keys}).last_hidden_state
    states = pair.reference.model.multi_modal_projector(states).flatten(2, 3)[0]
    assert len(set(ours.image_layouts)) == 3
    torch.testing.assert_close(pair.ours.model.image_states(ours), states, **EXACT)


@torch.inference_mode()
def test_one_product_for_several_weights_gives_the_same(pair):
    """What `fuse` does on a GPU."""
    inputs, model = pair.ours.processor.inputs([[random_image(0)]], ["a cat"]), pair.ours.model
    apart = model.prefill(inputs, model.new_cache(1, 40))
    cross = next(layer.cross for layer in model.decoder.layers if hasattr(layer, "cross"))
    attention = model.vision.layers[1].attention
    try:
        cross.kv, attention.qkv = stack(cross.k, cross.v), stack(attention.q, attention.k, attention.v)
        torch.testing.assert_close(model.prefill(inputs, model.new_cache(1, 40)), apart, **EXACT)
    finally:
        cross.kv = attention.qkv = None


# -- answers -------------------------------------------------------------------------------------------------------


def test_rows_of_a_batch_are_singles_whatever_their_number_of_images(pair):
    images = [[], [random_image(1, 31, 200)], [random_image(2), random_image(3, 20, 20)]]
    expected = [pair.tokens(say("user", *own, words)) for own, words in zip(images, QUESTIONS, strict=True)]
    assert [pair.our_tokens([own], [words])[0] for own, words in zip(images, QUESTIONS, strict=True)] == expected
    assert pair.our_tokens(images, QUESTIONS) == expected
    assert len({tuple(row) for row in expected}) == 3


def test_cached_steps_equal_a_reading_without_cache(pair):
    expected = pair.tokens(say("user", random_image(5), QUESTIONS[0]), use_cache=False)
    assert pair.our_tokens([[random_image(5)]], QUESTIONS[:1]) == [expected]


@torch.inference_mode()
def test_every_step_has_the_logits_of_the_reference(pair):
    """Within parts of a few tokens too: what was read with the image is not read again."""
    inputs, model = ours_of(pair, "between words"), pair.ours.model
    expected = pair.inputs(*CONVERSATIONS["between words"])
    cache, text, mask = model.new_cache(1, 99), expected.pop("input_ids"), expected.pop("cross_attention_mask")
    expected.pop("attention_mask")
    mine = model.prefill(inputs, cache)
    for _ in range(6):
        logits = pair.reference(input_ids=text, cross_attention_mask=mask, **expected).logits[:, -1]
        torch.testing.assert_close(mine, logits, **EXACT)
        token = mine.argmax(-1)
        mine = model.step(token, cache)
        text, mask = torch.cat((text, token[:, None]), 1), torch.cat((mask, mask[:, -1:]), 1)


@torch.inference_mode()
def test_reading_in_parts_changes_nothing(pair, monkeypatch):
    inputs, model = ours_of(pair, "between words"), pair.ours.model
    whole = model.prefill(inputs, model.new_cache(1, 99))
    monkeypatch.setattr(models, "CHUNK", 5)
    torch.testing.assert_close(model.prefill(inputs, model.new_cache(1, 99)), whole, **EXACT)
    monkeypatch.setattr(models, "AT_ONCE", 1)
    torch.testing.assert_close(model.prefill(inputs, model.new_cache(1, 99)), whole, **EXACT)


@torch.inference_mode()
def test_rows_put_into_a_running_batch_go_on_as_alone(pair):
    """One without images takes the place of one with them, and the reverse."""
    model, processor = pair.ours.model, pair.ours.processor
    rows = [([random_image(5)], QUESTIONS[0]), ([], QUESTIONS[2])]
    for (images, words), (others, question) in (rows, rows[::-1]):
        one, other = processor.inputs([others], [question]), processor.inputs([images], [words])
        cache = model.new_cache(2, 99)
        both = processor.inputs([others, others], [question, question])
        model.prefill(both, cache)
        alone = model.new_cache(1, 99)
        new = model.prefill(other, alone).argmax(-1)
        cache.insert([1], alone)
        old_alone = model.new_cache(1, 99)
        old = model.prefill(one, old_alone).argmax(-1)
        for _ in range(4):
            logits = model.step(torch.cat((old, new)), cache)
            torch.testing.assert_close(logits[:1], model.step(old, old_alone), **EXACT)
            torch.testing.assert_close(logits[1:], model.step(new, alone), **EXACT)
            old, new = logits[:1].argmax(-1), logits[1:].argmax(-1)


@torch.inference_mode()
def test_beams_of_rows_with_and_without_images_are_worth_what_the_reference_says(pair):
    rows = [
        say("user", random_image(5), QUESTIONS[0]),
        say("user", QUESTIONS[1]),
        say("user", random_image(6), QUESTIONS[2]),
    ]
    inputs = pair.ours.processor.inputs([[random_image(5)], [], [random_image(6)]], QUESTIONS)
    model, stop_ids = pair.ours.model, pair.ours.processor.stop_ids
    for row, said in zip(rows, beam_search(model, inputs, stop_ids=stop_ids, max_tokens=6, beams=3), strict=True):
        expected = pair.inputs(row)
        start = expected["input_ids"].shape[1]
        expected["input_ids"] = torch.cat((expected["input_ids"], torch.tensor([said.ids])), 1)
        if "cross_attention_mask" in expected:
            mask = expected["cross_attention_mask"]
            expected["cross_attention_mask"] = torch.cat((mask, mask[:, -1:].expand(-1, len(said.ids), -1, -1)), 1)
        expected.pop("attention_mask")
        logprobs = pair.reference(**expected).logits[0, start - 1 : -1].log_softmax(-1)
        worth = logprobs.gather(1, torch.tensor(said.ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(said.logprobs[: len(said.ids)]), worth, **EXACT)


def test_what_an_image_shows_matters(pair):
    first, second = (pair.our_tokens([[random_image(seed)]], QUESTIONS[:1]) for seed in (5, 6))
    assert first != second


def test_a_caption_is_asked_for_in_words(pair):
    words = task_prompt("caption", "", instruct=True)
    assert pair.our_tokens([[random_image(4)]], [words]) == [pair.tokens(say("user", random_image(4), words))]


def test_images_behind_what_was_read_are_refused(pair):
    model, inputs = pair.ours.model, pair.ours.processor.inputs([[random_image(5)]], ["a cat"])
    cache = model.new_cache(1, 99)
    with torch.inference_mode():
        model.prefill(inputs, cache)
        with pytest.raises(ValueError, match="empty cache"):
            model.prefill(inputs, cache)


def test_a_checkpoint_without_a_template_goes_on_with_a_text(tmp_path):
    """Its image stands in front of the token that begins a text, as transformers puts it."""
    pair = make_pair(1, tmp_path, template=None)
    assert not pair.ours.processor.capabilities.turns
    words = pair.ours.processor.task_prompt("caption", "")
    options = {"add_special_tokens": False, "return_tensors": "pt"}
    expected = dict(pair.processor(images=[[random_image(4)]], text=["<|image|>" + words], **options))
    assert pair.ours.processor.inputs([[random_image(4)]], [words]).tokens.tolist() == expected["input_ids"].tolist()
    assert pair.our_tokens([[random_image(4)]], [words]) == [pair.written(expected)]
