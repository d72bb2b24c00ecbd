"""SmolVLM 1 and 2 against transformers on small random checkpoints: pixels, prompts, modules, answers."""

import pytest
import smolvlm_folders as folders
import torch
from PIL import Image
from smolvlm_pairs import Pair, make_pair, say
from support import random_image

from mmcli.models.smolvlm.images import TileSettings
from mmcli.models.smolvlm.prompts import task_prompt
from mmcli.types import Turn

EXACT = {"rtol": 1e-4, "atol": 1e-5}  # float32, sums in another order
QUESTIONS = ["what is on the left?", "a cat", "hello world, are you kind?"]
SIZES = [(90, 37), (31, 200), (1, 1), (32, 32), (48, 47)]


# Two layouts of files, two seeds; a head of its own and a tied one; tiles of the tower's size and larger ones.
@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def pair(request, tmp_path_factory) -> Pair:
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


# -- pixels --------------------------------------------------------------------------------------------------------


def test_pixels_equal_the_pillow_reference_bit_for_bit(pair):
    for seed, size in enumerate(SIZES):
        image = random_image(seed, *size) if min(size) > 1 else Image.new("RGB", size, (9, 200, 77))
        [ours] = pair.ours.processor.inputs([[image]], ["a cat"]).images
        expected = pair.inputs(say("user", image, "a cat"))["pixel_values"][0]
        assert torch.equal(ours, expected), size


@pytest.mark.parametrize(
    ("tile", "size", "tiles"),
    [(512, (30, 4000), 5), (512, (4000, 30), 5), (384, (1, 1), 17), (384, (560, 560), 17), (512, (700, 300), 9)],
)
def test_published_tiles_equal_the_pillow_reference_bit_for_bit(tile, size, tiles):
    settings = {"size": {"longest_edge": 4 * tile}, "max_image_size": {"longest_edge": tile}}
    image = random_image(3, *size) if min(size) > 1 else Image.new("RGB", size, (9, 200, 77))
    ours = torch.from_numpy(TileSettings(tile, 4 * tile).tiles(image))
    expected = folders.SmolVLMImageProcessorPil(**settings)(image, return_tensors="pt")["pixel_values"][0]
    assert len(ours) == tiles and torch.equal(ours, expected)


@pytest.mark.parametrize("settings", [{"do_image_splitting": False}, {"do_resize": False}, {"resample": 2}], ids=str)
def test_other_settings_too(tmp_path, settings):
    processor = folders.write_processor(tmp_path, "idefics3", **settings)
    read = TileSettings.open(tmp_path)
    for size in SIZES[:2]:
        image = random_image(1, *size)
        expected = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
        assert torch.equal(torch.from_numpy(read.tiles(image)), expected)
        assert read.grid(size).tiles == len(expected)


# -- prompts -------------------------------------------------------------------------------------------------------

CONVERSATIONS = {
    "text alone": [say("user", "hello world")],
    "one image": [say("user", random_image(0), "what is on the left?")],
    "several": [say("user", random_image(0), random_image(1, 31, 200), random_image(2, 20, 20), "a cat")],
    "between words": [say("user", "what is", random_image(0), " and who ", random_image(1, 31, 200))],
    "turns": [
        say("system", "be kind"),
        say("user", random_image(0), "what is it?"),
        say("assistant", "a cat on the mat"),
        say("user", "say it again \n\n", random_image(1, 31, 200)),
    ],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations_become_the_same_tokens(pair, name):
    messages = CONVERSATIONS[name]
    roles = {"assistant": "model"}
    turns = [
        Turn(
            roles.get(message["role"], message["role"]),
            tuple(part.get("image") or part["text"] for part in message["content"]),
        )
        for message in messages
    ]
    seen = [image for turn in turns for image in turn.images()]
    processor = pair.ours.processor
    ours = processor.text_inputs(processor.apply_chat_template(turns), seen)
    expected = pair.inputs(*messages)
    assert torch.equal(ours.tokens, expected["input_ids"])
    if seen:
        assert torch.equal(torch.cat(ours.images), expected["pixel_values"][0])
    without = folders.tiny_tokenizer()
    assert processor.decode(ours.tokens[0].tolist()) == without.decode(ours.tokens[0], skip_special_tokens=True)


# -- modules -------------------------------------------------------------------------------------------------------


def test_tower_and_connector(pair):
    inputs = pair.inputs(say("user", random_image(0), "a cat"))
    features = pair.reference.model.get_image_features(inputs["pixel_values"], inputs["pixel_attention_mask"])
    ours = pair.ours.processor.inputs([[random_image(0)]], ["a cat"])
    with torch.inference_mode():
        soft = pair.ours.model.soft_tokens(ours)
    torch.testing.assert_close(soft, torch.cat(features.pooler_output), **EXACT)


def test_prefill_logits(pair):
    messages = CONVERSATIONS["several"]
    expected = pair.reference(**pair.inputs(*messages)).logits[:, -1]
    images = [part["image"] for part in messages[0]["content"][:3]]
    ours = pair.ours.processor.inputs([images], ["a cat"])
    with torch.inference_mode():
        logits = pair.ours.model.prefill(ours, pair.ours.model.new_cache(1, ours.tokens.shape[1]))
    expected[:, folders.IMAGE] = -torch.inf
    torch.testing.assert_close(logits, expected, **EXACT)


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


def test_what_an_image_shows_matters(pair):
    first, second = (pair.our_tokens([[random_image(seed)]], QUESTIONS[:1]) for seed in (5, 6))
    assert first != second


def test_a_caption_is_asked_for_in_words(pair):
    words = task_prompt("caption", "")
    assert pair.our_tokens([[random_image(4)]], [words]) == [pair.tokens(say("user", random_image(4), words))]
