"""What is taught must be what is asked: a packed training row equals the engine's own reading."""

import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from mmcli.decode.segments import parse
from mmcli.engine.inputs import Inputs
from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.training.recipes.nano import packing, prompts
from mmcli.training.recipes.nano.annotations import Photo, Thing
from mmcli.training.recipes.nano.train import Lesson
from mmcli.types import Token


def photo(
    *things: Thing, absent: tuple[str, ...] = ("zebra", "boat"), doubtful=(), captions=(), source="coco"
) -> Photo:
    labels = tuple(sorted({t.label for t in things}))
    return Photo(
        "a.webp", "images.zip", 320, 240, source, "train", tuple(captions), labels, list(things), frozenset(doubtful),
        absent, frozenset(), {}, [],
    )  # fmt: skip


CAT = Thing("cat", (0.1, 0.2, 0.5, 0.9), mask=0)
SMALL_CAT = Thing("cat", (0.7, 0.7, 0.8, 0.8))
DOG = Thing("dog", (0.5, 0.1, 1.0, 0.6))


@pytest.fixture(scope="module")
def loaded():
    return load(resolve("nano"), "cpu", "float32")


@pytest.fixture(scope="module")
def batch(loaded) -> packing.Batch:
    photos = [photo(CAT, SMALL_CAT, DOG, captions=["A cat and a dog."]), photo(DOG)]
    tokenizer = (BUNDLED["nano"] / "tokenizer.json").read_text("utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORD_NOISE", 0.0)  # what is read is what is to be written
        return next(iter(packing.Questions(photos, [], np.full((1, 2, 16), 5), tokenizer, loaded.config, 4, seed=3)))


def questions_of(batch: packing.Batch, row: int) -> list[tuple[list[int], list[int]]]:
    """The prompts and answers packed into one row, as token ids."""
    found = []
    for number in range(1, int(batch.question[row].max()) + 1):
        own = batch.question[row] == number
        target = batch.target[row][own]
        found.append((batch.tokens[row][own & (batch.part[row] == 0)].tolist(), target[target >= 0].tolist()))
    return found


def test_a_packed_row_gives_the_logits_of_each_question_asked_alone(loaded, batch):
    lesson = Lesson.__new__(Lesson)
    torch.nn.Module.__init__(lesson)
    lesson.nano = loaded.model
    pixels = torch.rand(1, 3, loaded.config.image_size, loaded.config.image_size, generator=torch.manual_seed(0))
    one = packing.Batch(*(getattr(batch, name)[:1] for name in packing.Batch.__dataclass_fields__))
    soft_count = loaded.config.soft_tokens
    with torch.inference_mode():
        soft, plane = loaded.model.tower(pixels, loaded.model.class_words())
        words = loaded.model.decoder.embed(one.tokens)
        words = words + lesson._mask_vectors(loaded.model.tower.masks.inside(plane, one.mask_boxes), one)
        positions = torch.cat((torch.arange(soft_count)[None], one.position), 1)
        mask = lesson.mask(one, torch.zeros(1, soft_count, dtype=torch.bool))
        hidden = loaded.model.decoder(torch.cat((soft, words), 1), positions, mask)
        packed = loaded.model.decoder.logits(hidden[:, soft_count:])[0]
        for number, (prompt, answer) in enumerate(questions_of(batch, 0), 1):
            tokens = torch.tensor([[loaded.config.image_token] * soft_count + prompt])
            cache = loaded.model.new_cache(1, tokens.shape[1] + len(answer))
            inputs = Inputs(tokens, torch.ones_like(tokens, dtype=torch.bool), tuple(pixels))
            alone = [loaded.model.prefill(inputs, cache)]
            if prompt[1] in loaded.config.finding_tokens:  # a correction of what was learned, made after training
                alone[0][:, loaded.config.eos_token] += loaded.config.absent_bias
            alone += [loaded.model.step(torch.tensor([token]), cache) for token in answer[:-1]]
            places = ((one.question[0] == number) & (one.target[0] >= 0)).nonzero().flatten()
            words_end = loaded.config.image_token
            told = torch.cat(alone)[:, :words_end]
            allowed = told.isfinite()  # sentences are held to whole words
            torch.testing.assert_close(packed[places][:, :words_end][allowed], told[allowed], atol=2e-3, rtol=1e-3)


def test_prompts_are_tokenised_as_the_processor_does(loaded, batch):
    tokenizer = loaded.processor.tokenizer
    for row in range(4):
        for prompt, _ in questions_of(batch, row):
            text = tokenizer.decode(prompt[1:-1], skip_special_tokens=False)
            assert loaded.processor._prompt_tokens(text) == prompt


def test_taught_answers_parse_without_problems(loaded, batch):
    for row in range(4):
        for prompt, answer in questions_of(batch, row):
            text = loaded.processor.decode(prompt)
            assert answer[-1] == loaded.config.eos_token
            if text.startswith(("detect", "segment")):
                parsed = parse([Token(t, 0.0) for t in answer[:-1]], loaded.processor.grammar, loaded.processor.decode)
                assert parsed.problems == []
                asked = set(text.strip().split(" ", 1)[1].split(" ; "))
                assert {o.label for o in parsed.objects} <= asked


LOC = [1, 2, 3, 4]


CAT_SEEN, DOG_SEEN, SMALL_SEEN = ("cat", CAT.box), ("dog", DOG.box), ("cat", SMALL_CAT.box)


@pytest.mark.parametrize(
    ("window", "flipped", "expected", "why"),
    [
        ((0, 0, 1, 1), False, [CAT_SEEN, DOG_SEEN, SMALL_SEEN], "the whole picture, largest first"),
        (
            (0, 0, 1, 1),
            True,
            [("cat", (0.5, 0.2, 0.9, 0.9)), ("dog", (0.0, 0.1, 0.5, 0.6)), ("cat", (0.2, 0.7, 0.3, 0.8))],
            "mirrored left to right",
        ),
        ((0.6, 0.6, 1, 1), False, [("cat", (0.25, 0.25, 0.5, 0.5))], "only what the crop shows"),
    ],
)
def test_a_crop_shows_things_in_its_own_frame(window, flipped, expected, why):
    seen = prompts.see(photo(CAT, SMALL_CAT, DOG), window, flipped)
    assert [label for label, _, _ in seen.things] == [label for label, _ in expected], why
    for (_, box, _), (_, wanted) in zip(seen.things, expected, strict=True):
        np.testing.assert_allclose(box, wanted, atol=1e-9)


def test_a_thing_mostly_cut_off_is_neither_there_nor_absent():
    seen = prompts.see(photo(CAT), (0.35, 0, 1, 1), False)  # 37 % of the cat is left
    assert seen.things == [] and "cat" in seen.doubtful


def test_a_cut_thing_loses_its_mask_and_is_not_segmented():
    seen = prompts.see(photo(CAT), (0.2, 0, 1, 1), False)  # three quarters of the cat
    assert prompts.segment(seen, "cat") is None


def test_detect_answers_in_the_order_asked_and_leaves_out_what_is_not_there():
    seen = prompts.see(photo(CAT, DOG), (0, 0, 1, 1), False)
    prompt, answer = prompts.detect(seen, ["dog", "boat", "cat"], lambda box: LOC)
    assert prompt == "detect dog ; boat ; cat"
    assert answer == [LOC, " dog ;", LOC, " cat"]


def test_captions_that_say_left_are_not_told_of_a_mirrored_picture():
    told = photo(CAT, captions=["A cat on the left"])
    assert prompts.caption(prompts.see(told, (0, 0, 1, 1), True), random.Random(0)) is None
    assert prompts.caption(prompts.see(told, (0, 0, 1, 1), False), random.Random(0)) == ("a cat on the left", 1.0)


@pytest.mark.parametrize(
    ("label", "count", "words"),
    [("cat", 1, "a cat"), ("umbrella", 1, "an umbrella"), ("person", 2, "two people"), ("bus", 3, "three buses"),
     ("jeans", 1, "jeans"), ("sheep", 9, "several sheep")],
)  # fmt: skip
def test_names_take_their_article_or_number(label, count, words):
    assert prompts.named(label, count) == words


def test_the_tokenizer_files_ids_are_those_of_the_recipe():
    tokenizer = Tokenizer.from_file(str(BUNDLED["nano"] / "tokenizer.json"))
    assert [tokenizer.token_to_id(name) for name in ("<pad>", "<eos>", "<bos>")] == [0, 1, 2]
