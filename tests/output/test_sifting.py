"""Which objects are kept, held against torchvision's non-maximum suppression."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from mmcli.boxes import overlap
from mmcli.output.schema import Object
from mmcli.output.sifting import sift

corners = st.tuples(*[st.integers(0, 30)] * 4)


def boxed(corner) -> tuple[float, float, float, float]:
    x, y, w, h = corner
    return float(x), float(y), float(x + w + 1), float(y + h + 1)


def thing(box, label="cat", **more) -> Object:
    return Object(label=label, box=box, raw_box=(), **more)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(corners, st.sampled_from("ab")), max_size=12, unique=True),
    st.sampled_from([0.0, 0.3141, 0.7071]),
)
def test_the_same_are_kept_as_by_torchvision(found, limit):
    objects = [thing(boxed(c), label, probability=(i * 7 % 13) / 13) for i, (c, label) in enumerate(found)]
    kept = sift(objects, nms=limit)
    boxes = torch.tensor([one.box for one in objects]).reshape(-1, 4)
    scores = torch.tensor([one.probability for one in objects])
    theirs = batched_nms(boxes, scores, torch.tensor([ord(one.label) for one in objects]), limit)
    assert kept == [objects[i] for i in sorted(theirs.tolist())]


@settings(max_examples=30, deadline=None)
@given(corners, corners)
def test_overlap_is_torchvisions(one, other):
    theirs = box_iou(torch.tensor([boxed(one)]), torch.tensor([boxed(other)]))
    assert overlap(boxed(one), boxed(other)) == pytest.approx(theirs.item(), abs=1e-6)


def test_the_best_are_kept_in_their_order():
    objects = [thing((i, 0, i + 1, 1), probability=p) for i, p in enumerate((0.2, 0.9, 0.5))]
    assert sift(objects, most=2) == objects[1:]
    unsure = [thing((i, 0, i + 1, 1), score=s) for i, s in enumerate((-1.0, None, -0.5))]
    assert sift(unsure, most=2) == [unsure[0], unsure[2]]
    assert sift(unsure) == unsure and sift([], nms=0.5, most=1) == []


def test_a_box_without_area_overlaps_nothing():
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0
