"""Nano finds each thing of a list as well as alone, on real photographs with the bundled weights."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmcli.boxes import overlap
from mmcli.decode import CORNERS
from mmcli.decode.locations import encode_box
from mmcli.decode.segments import parse
from mmcli.hub.resolve import resolve
from mmcli.models.finding import FindOptions
from mmcli.models.load import load
from mmcli.models.nano import finding
from mmcli.models.nano.finding import MOST_OBJECTS, Asked, find, look, outline, propose
from mmcli.models.nano.joining import CROWDED, UNCLASSIFIED
from mmcli.models.nano.picodet import uncrowded
from mmcli.types import Token

EXAMPLES = Path(__file__).parents[3] / "examples"
IMAGES = [Image.open(EXAMPLES / name).convert("RGB") for name in ("cat.jpg", "astronaut.jpg", "coffee.jpg")]
LIST = ["person", "cup", "zebra", "cat", "hot dog"]


@pytest.fixture(scope="module")
def alone(nano):
    """What each thing asked for alone gives on every image."""
    return cache(
        lambda thing, masks: [found.objects for found in find(nano, IMAGES, [thing], FindOptions(masks=masks))]
    )


@pytest.fixture(scope="module")
def listed(nano):
    """What a whole list gives on every image."""
    return cache(lambda masks: [found.objects for found in find(nano, IMAGES, LIST, FindOptions(masks=masks))])


def same(one, other):
    """Objects that are equal in every digit; of what was not written the score is NaN."""
    return repr(tuple(one)) == repr(tuple(other))


@pytest.mark.parametrize("masks", [False, True], ids=["detect", "segment"])
def test_each_thing_of_a_list_is_answered_as_alone_in_the_users_order(alone, listed, masks):
    singles = [alone(thing, masks) for thing in LIST]
    expected = [[one for single in singles for one in single[i]] for i in range(len(IMAGES))]
    found = listed(masks)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))
    assert {"cat", "person"} <= {one.label for objects in found for one in objects}


@pytest.mark.parametrize("threads, size", [(1, 2), (2, 1)])
def test_answers_have_the_same_digits_in_any_batch_with_any_number_of_threads(nano, listed, threads, size):
    torch.set_num_threads(threads)
    try:
        batches = [IMAGES[first : first + size] for first in range(0, len(IMAGES), size)]
        found = [one.objects for batch in batches for one in find(nano, batch, LIST, FindOptions(masks=True))]
    finally:
        torch.set_num_threads(1)
    assert repr(found) == repr(listed(True))  # of what was not written the score is NaN


def test_the_questions_may_be_put_in_any_portions(nano, listed, monkeypatch):
    whole = listed(True)
    monkeypatch.setattr(finding, "ROWS", 3)
    portions = [found.objects for found in find(nano, IMAGES, LIST, FindOptions(masks=True))]
    assert all(same(one, other) for one, other in zip(whole, portions, strict=True))


def test_an_image_is_read_once_however_many_things_are_asked(nano, monkeypatch):
    read, really = [], nano.model.tower.read
    monkeypatch.setattr(nano.model.tower, "read", lambda x, *rest: read.append(len(x)) or really(x, *rest))
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in IMAGES]  # which no other test has it read
    find(nano, mirrored, LIST[:3], FindOptions(masks=True))
    assert sum(read) == len(mirrored)


def test_every_object_of_a_segmentation_has_a_mask_and_the_box_of_the_detection(listed):
    for boxes, masks in zip(listed(False), listed(True), strict=True):
        assert [(one.label, one.loc) for one in boxes] == [(one.label, one.loc) for one in masks]
        assert all(len(one.seg) == 16 for one in masks)
    assert any(listed(True))


def test_boxes_that_are_given_get_the_codes_that_they_get_when_they_are_found(nano, monkeypatch):
    monkeypatch.setattr(finding, "ROWS", 2)
    found = find(nano, IMAGES[:2], ["person", "cats"], FindOptions(masks=True))
    boxes = [[(one.label, tuple(one.loc[i] / 1023 for i in (1, 0, 3, 2))) for one in own.objects] for own in found]
    boxes[0].append(("unicorn", (0.0, 0.0, 0.5, 0.5)))
    given = outline(nano, IMAGES[:2], boxes)
    codes = [[(one.label, one.loc, one.seg) for one in own.objects] for own in given]
    assert codes[0].pop()[0::2] == ("unicorn", None)
    assert codes == [[(one.label, one.loc, one.seg) for one in own.objects] for own in found]
    assert given[0].problems == ('nano does not know "unicorn", so that has no mask',) and sum(map(len, codes)) > 2


def test_the_text_of_an_answer_says_its_objects(nano):
    for found in find(nano, IMAGES, ["person", "cat"], FindOptions(masks=True)):
        tokens = [Token(id, 0.0) for id in nano.processor.tokenizer.encode(found.text).ids]
        parsed = parse(tokens, nano.processor.grammar, nano.processor.decode, masks=True)
        assert parsed.problems == []
        assert [(f.label, f.loc, f.seg) for f in parsed.objects] == [(f.label, f.loc, f.seg) for f in found.objects]


def test_a_thing_keeps_the_name_that_the_user_gave_it(nano):
    [named] = find(nano, IMAGES[:1], ["Cats"], FindOptions())
    [plain] = find(nano, IMAGES[:1], ["cat"], FindOptions())
    assert {found.label for found in named.objects} == {"Cats"}
    assert [found.loc for found in named.objects] == [found.loc for found in plain.objects]


def test_a_thing_that_nano_does_not_know_is_not_guessed_at(nano):
    assert [found.objects for found in find(nano, IMAGES, ["unicorn"], FindOptions(masks=True))] == [(), (), ()]


def test_an_answer_that_is_cut_off_says_so(nano):
    [found] = find(nano, IMAGES[:1], ["cat"], FindOptions(max_tokens=3))
    assert not found.ended


def test_a_crowd_is_written_down(nano):
    """Nine people side by side: the decoder writes more than a few of them."""
    person, crowd = IMAGES[1].resize((200, 200)), Image.new("RGB", (600, 600))
    for number in range(9):
        crowd.paste(person, (200 * (number % 3), 200 * (number // 3)))
    asked = [Asked(0, "person", "person")]
    propose(nano, look(nano, [crowd]), asked)
    places = [token for token in asked[0].tokens if nano.processor.grammar.location(token.id) is not None]
    assert 6 <= len(places) / CORNERS <= MOST_OBJECTS and asked[0].ended


def test_both_parts_of_the_model_have_their_say(nano, monkeypatch):
    """What only the decoder knows is found, and so is what the decoder does not say."""
    found = [f.objects for f in find(nano, IMAGES, ["cat", "cup", "spoon", "person"], FindOptions(least=0.01))]
    assert {o.found_by for objects in found for o in objects} >= {"both", "detector"}
    monkeypatch.setattr(nano.model, "config", replace(nano.config, absent_bias=30.0))  # it has to write something
    clothes = find(nano, IMAGES[1:2], ["coat", "dress", "suit", "jacket"], FindOptions(least=0.0))[0].objects
    assert {o.found_by for o in clothes} == {"decoder"}


def test_detections_are_classified_by_the_proposal_that_overlaps_them_and_proposals_stand_behind_them():
    proposals = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]])
    logits, classified = torch.full((1, 2, 80), -6.0), torch.full((1, 2, 80), -5.0)
    classified[0, 0, 15], classified[0, 1, 15], logits[0, 1, 16] = 3.0, 1.0, -1.0
    seen = finding.Seen(torch.zeros(0), torch.zeros(0), [], proposals, logits, classified, torch.zeros(1, 80))
    boxes = torch.tensor([[[0.1, 0.1, 0.5, 0.48], [0.0, 0.6, 0.2, 0.9]]])
    own = torch.tensor([[0.5, -2.0]])
    boxes, own, others, by_classifier = finding.classify_detections(
        seen, torch.tensor([0]), torch.tensor([15]), boxes, own, torch.full_like(own, -3.0)
    )
    assert boxes.shape == (1, 4, 4) and torch.equal(boxes[0, 2:], proposals[0])
    assert own.tolist() == [[0.5, -2.0, -6.0, -6.0]] and others.tolist() == [[-3.0, -3.0, -6.0, -1.0]]
    assert by_classifier.tolist() == [[3.0, UNCLASSIFIED, 3.0, 1.0]]


def test_boxes_are_located_and_left_out_all_at_once_as_one_by_one():
    generator = torch.Generator().manual_seed(0)
    ends = torch.rand(2, 60, 2, 2, generator=generator).sort(2).values * 1.1 - 0.05  # some reach out of the image
    boxes = (0.3 * ends).flatten(2)
    boxes[0, :2] = torch.tensor([[0.5, 0.2, 0.5, 0.4], [0.0, 0.0, 1.0, 1.0]])
    locs = finding.located(boxes)
    assert locs.tolist() == [[list(encode_box(tuple(box), 1, 1)) for box in row] for row in boxes.tolist()]
    there = torch.rand(2, 60, generator=generator) < 0.7
    for most in (CROWDED, 0.2):
        expected = torch.zeros_like(there)
        for row in range(2):
            left: list[list[int]] = []
            for place, loc in enumerate(locs[row].tolist()):
                if there[row, place] and all(overlap(loc, other) < most for other in left):
                    left.append(loc)
                    expected[row, place] = True
        assert 0 < expected.sum() < there.sum()
        assert torch.equal(uncrowded(locs.double(), there, most), expected)


@pytest.mark.parametrize("masks", [False, True], ids=["detect", "segment"])
def test_as_many_questions_as_on_a_gpu_give_the_same_answers(nano, alone, monkeypatch, masks):
    monkeypatch.setattr(finding, "ROWS", 5)
    filled = finding._filled
    monkeypatch.setattr(finding, "_filled", lambda rows, _: filled(rows, torch.device("cuda")))
    asked = []
    write = finding._write
    monkeypatch.setattr(finding, "_write", lambda *given: asked.append(len(given[2])) or write(*given))
    [found] = find(nano, IMAGES[:1], ["cat"], FindOptions(masks=masks))
    assert asked == [5] * len(asked) and same(found.objects, alone("cat", masks)[0])
    ids = [id for one in found.objects for id in (*one.loc, *(one.seg or ()))]
    assert len(found.ids) <= len(ids) + 2, "what fills a batch writes nothing into the answer"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("masks", [False, True], ids=["detect", "segment"])
def test_on_a_gpu_neighbours_change_no_digit(masks):
    nano = load(resolve("nano"), "cuda")
    many = [image.rotate(turn) for turn in range(0, 60, 10) for image in IMAGES]  # 18, more than it reads at a time

    def facts(found):
        return [(one.label, one.loc, one.seg, one.score, one.probability) for one in found.objects]

    whole = [facts(found) for found in find(nano, many, LIST, FindOptions(masks=masks))]
    for size in (1, 7):
        parts = [many[i : i + size] for i in range(0, len(many), size)]
        assert repr(
            [facts(found) for part in parts for found in find(nano, part, LIST, FindOptions(masks=masks))]
        ) == repr(whole)
    single = [facts(found) for found in find(nano, many, ["cup"], FindOptions(masks=masks))]
    assert repr([[one for one in facts if one[0] == "cup"] for facts in whole]) == repr(single)
