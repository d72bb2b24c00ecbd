"""Which COCO objects a caption names, and how often they are not there."""

import pytest

from mmcli.training.recipes.nano.hallucination import chair, named_classes


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a man riding a wave on a surfboard", {"person", "surfboard"}),
        ("two hot dogs on a plate", {"hot dog"}),
        ("a teddy bear and a bear", {"teddy bear", "bear"}),
        ("people sitting on benches, knives beside them", {"person", "bench", "knife"}),
        ("a red sky over the carpet", set()),
    ],
)
def test_names_plurals_and_synonyms_are_recognised_and_parts_of_words_are_not(caption, named):
    assert named_classes(caption) == named


def test_chair_counts_captions_with_something_absent():
    rates = chair(["a dog and a cat", "a dog", "grass"], [{"dog"}, {"dog"}, {"cow"}])
    assert rates == {"sentences": 0.3333, "named": 0.6667, "instances": 0.3333}
