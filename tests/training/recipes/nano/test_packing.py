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
from mmcli.models.nano.config import NanoConfig
from mmcli.models.nano.mask_head import MaskHead
from mmcli.training.recipes.nano import mask_codes, packing, pixels, prompts
from mmcli.training.recipes.nano.annotations import LabelledBox, Photo
from mmcli.training.recipes.nano.train import TrainingModel
from mmcli.types import Token


def photo(
    *objects: LabelledBox, absent: tuple[str, ...] = ("zebra", "boat"), doubtful=(), captions=(), source="coco"
) -> Photo:
    labels = tuple(sorted({t.label for t in objects}))
    return Photo(
        "a.webp", "images.zip", 320, 240, source, "train", tuple(captions), labels, list(objects), frozenset(doubtful),
        absent, frozenset(), {}, [],
    )  # fmt: skip


CAT = LabelledBox("cat", (0.1, 0.2, 0.5, 0.9), mask=0)
SMALL_CAT = LabelledBox("cat", (0.7, 0.7, 0.8, 0.8))
DOG = LabelledBox("dog", (0.5, 0.1, 1.0, 0.6))


@pytest.fixture(scope="module")
def loaded(nano):
    return nano


@pytest.fixture(scope="module")
def batch(loaded) -> packing.Batch:
    photos = [photo(CAT, SMALL_CAT, DOG, captions=["A cat and a dog."]), photo(DOG)]
    tokenizer = (BUNDLED["nano"] / "tokenizer.json").read_text("utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "WORD_NOISE", 0.0)  # what is read is what is to be written
        return next(iter(packing.Questions(photos, [], tokenizer, loaded.config, 4, seed=3, mosaic=0.0)))


def questions_of(batch: packing.Batch, row: int) -> list[tuple[list[int], list[int]]]:
    """The prompts and answers packed into one row, as token ids."""
    found = []
    for number in range(1, int(batch.question[row].max()) + 1):
        own = batch.question[row] == number
        target = batch.target[row][own]
        found.append((batch.tokens[row][own & (batch.part[row] == 0)].tolist(), target[target >= 0].tolist()))
    return found


def test_a_packed_row_gives_the_logits_of_each_question_asked_alone(loaded, batch, monkeypatch):
    model = TrainingModel.__new__(TrainingModel)
    torch.nn.Module.__init__(model)
    model.nano = loaded.model
    head = loaded.model.tower.mask_head  # adds to the logits of codes, and is trained by itself
    monkeypatch.setattr(head, "forward", lambda *given: [0 * part for part in MaskHead.forward(head, *given)])
    pixels = torch.rand(1, 3, loaded.config.image_size, loaded.config.image_size, generator=torch.manual_seed(0))
    one = packing.Batch(*(getattr(batch, name)[:1] for name in packing.Batch.__dataclass_fields__))
    soft_count = loaded.config.soft_tokens
    with torch.inference_mode():
        soft, _ = loaded.model.tower(pixels, loaded.model.class_words())
        words = loaded.model.decoder.embed(one.tokens)
        positions = torch.cat((torch.arange(soft_count)[None], one.position), 1)
        mask = model.mask(one, torch.zeros(1, soft_count, dtype=torch.bool))
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
            expected = torch.cat(alone)[:, :words_end]
            allowed = expected.isfinite()  # sentences are held to whole words
            torch.testing.assert_close(packed[places][:, :words_end][allowed], expected[allowed], atol=2e-3, rtol=1e-3)


def test_prompts_are_tokenised_as_the_processor_does(loaded, batch):
    tokenizer = loaded.processor.tokenizer
    for row in range(4):
        for prompt, _ in questions_of(batch, row):
            text = tokenizer.decode(prompt[1:-1], skip_special_tokens=False)
            assert loaded.processor.prompt_tokens(text) == prompt


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
def test_a_crop_shows_objects_in_its_own_frame(window, flipped, expected, why):
    seen = prompts.see(photo(CAT, SMALL_CAT, DOG), window, flipped)
    assert [obj.label for obj in seen.objects] == [label for label, _ in expected], why
    for obj, (_, wanted) in zip(seen.objects, expected, strict=True):
        np.testing.assert_allclose(obj.box, wanted, atol=1e-9)


def test_an_object_mostly_cut_off_is_neither_there_nor_absent():
    seen = prompts.see(photo(CAT), (0.35, 0, 1, 1), False)  # 37 % of the cat is left
    assert seen.objects == [] and "cat" in seen.doubtful


def test_a_cut_object_keeps_the_part_of_its_mask_that_the_crop_shows(monkeypatch):
    monkeypatch.setattr(prompts, "MISSED", 0.0)
    seen = prompts.see(photo(CAT), (0.2, 0, 1, 1), False)  # the right three quarters of the cat
    _, (mask, _) = prompts.segment(seen, "cat", random.Random(0))
    np.testing.assert_allclose(mask.window, (0.25, 0, 1, 1), atol=1e-9)
    flipped = prompts.see(photo(CAT), (0.2, 0, 1, 1), True)
    _, (mask, _) = prompts.segment(flipped, "cat", random.Random(0))
    np.testing.assert_allclose(mask.window, (0, 0, 0.75, 1), atol=1e-9)  # of the mask, flipped too


def test_a_mask_in_a_box_that_is_off_is_what_that_box_shows(monkeypatch):
    monkeypatch.setattr(prompts, "MISSED", 1.0)
    _, (mask, _) = prompts.segment(prompts.see(photo(CAT), (0, 0, 1, 1), False), "cat", random.Random(1))
    size = np.subtract(CAT.box[2:], CAT.box[:2])
    low, high = mask.window[:2] * size + CAT.box[:2], mask.window[2:] * size + CAT.box[:2]
    assert not mask.exact and np.abs(mask.window - (0, 0, 1, 1)).max() > 0.01
    np.testing.assert_allclose(np.concatenate((low, high)), mask.box, atol=1e-9)


def test_the_device_writes_the_codes_of_what_the_boxes_show(loaded):
    """A box that shows the right half of a mask gets the codes of that half, as tokens and as targets."""
    drawn = torch.zeros(1, 64, 64, dtype=torch.uint8)
    drawn[0, 10:50, 20:60] = 255
    photos = [photo(CAT, captions=["A cat."])]
    tokenizer = (BUNDLED["nano"] / "tokenizer.json").read_text("utf-8")
    batch = next(iter(packing.Questions(photos, [], tokenizer, loaded.config, 8, seed=1, mosaic=0.0)))
    row, number = (batch.masks >= 0).nonzero()[0].tolist()
    batch.mask_windows[row, number] = torch.tensor([0.5, 0.0, 1.0, 1.0])
    batch.turned[row, number] = True
    outlines = pixels.outlines(drawn, batch)
    half = drawn.flip(-1)[:, :, 32:].float().repeat_interleave(2, 2) / 255
    assert (outlines[row, number] - half[0]).abs().mean() < 0.02
    codebook = loaded.mask_vqvae()
    written = mask_codes.write(codebook, outlines, batch, loaded.config.seg_token)
    places = (batch.cell[row] > 16 * number) & (batch.cell[row] <= 16 * number + 16)
    codes = codebook.encode(outlines[row, number][None])[0] + loaded.config.seg_token
    assert written.target[row][places].tolist() == codes.tolist()
    assert written.tokens[row][1:][places[:-1]].tolist() == codes.tolist()
    elsewhere = batch.cell == 0
    assert torch.equal(written.target[elsewhere], batch.target[elsewhere])


def test_four_images_in_one_keep_their_objects_and_say_nothing_of_the_whole():
    parts = [prompts.see(photo(CAT, DOG, captions=["A cat."], absent=("zebra",)), (0, 0, 1, 1), False)]
    parts += [prompts.see(photo(DOG, absent=("zebra", "boat")), (0, 0, 1, 1), False) for _ in range(3)]
    seen = prompts.beside(parts)
    assert sorted(obj.label for obj in seen.objects) == ["cat", *["dog"] * 4]
    cat = next(obj for obj in seen.objects if obj.label == "cat")
    np.testing.assert_allclose(cat.box, np.array(CAT.box) / 2)  # the first is top left
    np.testing.assert_allclose(seen.objects[-1].box[:2] >= 0, True)
    assert seen.photo.absent == ("zebra",), "what one of the pictures may have is not absent"
    assert "cat" in seen.doubtful, "the other three pictures say nothing of cats"
    assert not seen.whole and prompts.caption(seen, random.Random(0)) is None


def test_pixels_and_boxes_of_four_images_in_one_agree():
    """Each image is of one colour in its object's box and black elsewhere: so is the mosaic."""
    boxes = [(0.25, 0.25, 0.75, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.25, 0.5, 0.5, 0.75)]
    images = torch.zeros(4, 3, 320, 320, dtype=torch.uint8)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[:, round(y0 * 320) : round(y1 * 320), round(x0 * 320) : round(x1 * 320)] = 200
    photos = [photo(LabelledBox("cat", box)) for box in boxes]
    config = resolve("nano").config
    tokenizer = (BUNDLED["nano"] / "tokenizer.json").read_text("utf-8")
    questions = packing.Questions(photos, [], tokenizer, NanoConfig.from_json(config), 6, seed=0, mosaic=1.0)
    batch = next(iter(questions))
    assert batch.mosaic.all()
    x, _ = pixels.crop(images, torch.full((4, 128, 128), 255, dtype=torch.uint8), batch, 128, 16)
    inside = torch.zeros(6, 128, 128, dtype=torch.bool)
    for row in range(6):
        for box, label in zip(batch.boxes[row], batch.labels[row], strict=True):
            if label >= 0:
                x0, y0, x1, y1 = (box * 128).round().int().tolist()
                inside[row, y0:y1, x0:x1] = True
        bright = x[row].mean(0)
        assert bright[inside[row]].mean() > bright[~inside[row]].mean() + 0.2


def test_detect_answers_in_the_order_asked_and_leaves_out_what_is_not_there():
    seen = prompts.see(photo(CAT, DOG), (0, 0, 1, 1), False)
    prompt, answer = prompts.detect(seen, ["dog", "boat", "cat"], lambda box: LOC)
    assert prompt == "detect dog ; boat ; cat"
    assert answer == [LOC, " dog ;", LOC, " cat"]


def test_captions_that_say_left_are_not_asked_of_a_mirrored_image():
    captioned = photo(CAT, captions=["A cat on the left"])
    assert prompts.caption(prompts.see(captioned, (0, 0, 1, 1), True), random.Random(0)) is None
    assert prompts.caption(prompts.see(captioned, (0, 0, 1, 1), False), random.Random(0)) == ("a cat on the left", 1.0)


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
