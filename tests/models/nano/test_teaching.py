"""Nano is taught what it is asked in use: the same tokens, the same logits, new labels in its configuration."""

import random

import pytest
import support
import torch

from mmcli.errors import InputError
from mmcli.example import Example, Exchange, LabelledObject, Polygons
from mmcli.hub.resolve import resolve
from mmcli.models.finding import FindOptions
from mmcli.models.load import load
from mmcli.models.nano.finding import find
from mmcli.models.objects_in_text import labels_of, with_objects
from mmcli.models.teaching import IGNORED

CAT = LabelledObject("Cat", (0.1, 0.2, 0.5, 0.9), Polygons(((0.1, 0.2, 0.5, 0.2, 0.3, 0.9),)))
DOG = LabelledObject("dog", (0.0, 0.0, 0.25, 0.25))


@pytest.fixture(scope="module")
def nano():
    return load(resolve("nano"), "cpu", torch.float32, fused=False)


@pytest.fixture
def image(tmp_path):
    support.random_image(1).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_each_question_has_the_logits_that_it_has_alone_in_use(nano, image):
    """Every question of a row, and a mask's codes, against steps with a cache."""
    example = Example("segment", "x", (image,), objects=(CAT, DOG), exhaustive=frozenset({"horse"}))
    teaching = nano.family.teaching
    [row] = teaching.rows(nano, example, random.Random(0))
    batch = teaching.batch([row, row])
    with torch.no_grad():
        logits = teaching.logits(nano.model, teaching.states(nano.model, batch))[1]
    asked = max(row.question)
    assert asked == 4, "two labels that are there, one that is not, and a mask"
    for number in range(1, asked + 1):
        places = [place for place, own in enumerate(row.question) if own == number]
        prompt = [row.tokens[place] for place in places if row.prefix[place]]
        answer = [row.tokens[place] for place in places if not row.prefix[place]]
        soft = [nano.config.image_token] * nano.config.soft_tokens
        inputs = nano.processor.inputs([[support.random_image(1)]], ["detect cat"])
        tokens = torch.tensor([[*soft, *prompt]])
        inputs = type(inputs)(tokens, torch.ones_like(tokens, dtype=torch.bool), inputs.images)
        with torch.inference_mode():
            cache = nano.model.new_cache(1, tokens.shape[1] + len(answer))
            step = nano.model.prefill(inputs, cache)[0]
            step[nano.config.eos_token] += nano.config.absent_bias  # of which training knows nothing
            first = places[len(prompt)] - 1
            for place, token in enumerate(answer):
                seen = torch.isfinite(step)
                torch.testing.assert_close(logits[first + place][seen], step[seen], rtol=1e-3, atol=1e-3)
                step = nano.model.step(torch.tensor([token]), cache)[0]


def test_only_answers_are_learned(nano, image):
    example = Example("chat", "x", (image,), exchanges=(Exchange("answer en what is this?", "a cat"),))
    teaching = nano.family.teaching
    batch = teaching.batch(list(teaching.rows(nano, example, random.Random(0))))
    learned = [id for id in batch.targets[0].tolist() if id != IGNORED]
    assert nano.processor.decode(learned).strip() == "a cat" and learned[-1] == nano.config.eos_token


def test_objects_that_stand_in_a_text_are_learned_as_marked_ones_are(nano, image):
    answer = "<loc0204><loc0102><loc0921><loc0512> cat ; <loc0000><loc0000><loc0255><loc0255> dog"
    text = Example("detect", "x", (image,), exchanges=(Exchange("detect cat ; dog ; horse", answer),))
    marked = with_objects(text)
    assert len(marked.objects) == 2 and marked.exhaustive == {"cat", "dog", "horse"}
    rows = [nano.family.teaching.rows(nano, one, random.Random(0))[0].tokens for one in (text, marked)]
    assert rows[0] == rows[1] and labels_of([text]) == ["cat", "dog", "horse"]


def test_boxes_stay_on_their_objects_in_varied_images(nano, image):
    """What is cut and mirrored shows the same pixels inside its box."""
    from mmcli.models.nano.teaching import _varied

    picture = support.random_image(1, 200, 160)
    for seed in range(12):
        shown, changed = _varied(picture, Example("detect", "x", (image,), objects=(DOG,)), random.Random(seed))
        if changed.objects == (DOG,):
            continue
        x0, y0, x1, y1 = changed.objects[0].box
        area = (x1 - x0) * shown.width * (y1 - y0) * shown.height
        assert area <= 50 * 40 * 1.1 and 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


def test_new_labels_stand_behind_the_known_ones(nano):
    raw, teaching = nano.checkpoint.config, nano.family.teaching
    assert teaching.configured(raw, ["cat", "sofa", "Dogs"]) is raw, "known under these names"
    things = teaching.configured(raw, ["Blue  Widget", "cat"])["things"]
    assert things[-1] == "blue widget" and len(things) == len(nano.config.things) + 1
    assert nano.family.read_config(raw | {"things": things}).things[-1] == "blue widget"


def test_what_is_asked_for_is_found_under_a_new_label(nano):
    config = nano.family.read_config(nano.family.teaching.configured(nano.checkpoint.config, ["widget"]))
    taught = load(resolve("nano"), "cpu", torch.float32)
    taught.config = config
    [answer] = find(taught, [support.random_image(1)], ["widgets"], FindOptions(least=0.0))
    assert answer.ids, "it was asked"


def test_labels_of_no_use_are_named(nano, image):
    box = (0.1, 0.1, 0.5, 0.5)
    example = Example("detect", "data.json:3", (image,), objects=(LabelledObject("a;b", box),))
    with pytest.raises(InputError, match="data.json:3"):
        nano.family.teaching.rows(nano, example, random.Random(0))
