"""Masks of boxes that are given, against transformers: the locations stand there, the likeliest code is taken."""

import pytest
import support
import torch
from support import random_image

from mmcli.decode.locations import DIVISOR, encode_box
from mmcli.models.outlining import outline

BOXES = [[("cat", (0.1, 0.2, 0.6, 0.9)), ("red ball", (0.0, 0.0, 1.0, 1.0))], [], [("cat", (0.5, 0.25, 0.5001, 0.75))]]


def codes_of_reference(pair, image, label: str, loc: list[int]) -> list[int]:
    """Without a cache: all is read anew for each code."""
    inputs = pair.reference_inputs([[image]], [f"segment {label}"])
    prefix = inputs["input_ids"].shape[1]
    ids = torch.cat((inputs["input_ids"], torch.tensor([[support.LOC + place for place in loc]])), 1)
    for _ in range(16):
        types = (torch.arange(ids.shape[1]) >= prefix).long()[None]
        logits = pair.reference(
            input_ids=ids,
            token_type_ids=types,
            attention_mask=torch.ones_like(ids),
            pixel_values=inputs["pixel_values"],
            use_cache=False,
        ).logits[0, -1]
        ids = torch.cat((ids, logits[support.SEG : support.SEG + 128].argmax()[None, None] + support.SEG), 1)
    return [id - support.SEG for id in ids[0, -16:].tolist()]


def places_of(box: tuple) -> list[int]:
    y0, x0, y1, x1 = encode_box(box, 1, 1)
    return [y0, x0, y1, x1 if x1 > x0 else x0 + 1]


def test_codes_are_those_of_the_reference(pair):
    images = [random_image(seed) for seed in range(3)]
    for image, boxes, found in zip(images, BOXES, outline(pair.ours, images, BOXES), strict=True):
        assert [(one.label, list(one.loc)) for one in found.objects] == [(lb, places_of(box)) for lb, box in boxes]
        expected = [codes_of_reference(pair, image, label, places_of(box)) for label, box in boxes]
        assert [list(one.seg) for one in found.objects] == expected
        assert found.text.count("<seg") == 16 * len(boxes) and len(found.ids) == 20 * len(boxes)
    assert len({one.seg for found in outline(pair.ours, images, BOXES) for one in found.objects}) == 3


@pytest.mark.parametrize("rows", [1, 2])
def test_boxes_do_not_depend_on_each_other(pair, monkeypatch, rows):
    images = [random_image(seed) for seed in range(3)]
    whole = outline(pair.ours, images, BOXES)
    monkeypatch.setattr("mmcli.models.outlining.ROWS", rows)
    for one, other in zip(whole, outline(pair.ours, images, BOXES), strict=True):
        assert [(o.loc, o.seg) for o in one.objects] == [(o.loc, o.seg) for o in other.objects]


def test_another_divisor_gives_other_places(pair):
    box = [("cat", (0.25, 0.25, 0.75, 0.75))]
    [usual] = outline(pair.ours, [random_image()], [box])
    [other] = outline(pair.ours, [random_image()], [box], divisor=DIVISOR + 1)
    assert usual.objects[0].loc == (256, 256, 767, 767) and other.objects[0].loc == (256, 256, 768, 768)
