"""The measures themselves, on cases whose answer is known."""

import numpy as np
import pytest

from mmcli.models.nano.joining import Candidate
from mmcli.training.metrics.cider import cider
from mmcli.training.recipes.nano.annotations import overlap
from mmcli.training.recipes.nano.boxes import Answered, summary


def box(*sides: float) -> np.ndarray:
    return np.array(sides)


A, B, FAR = box(0, 0, 10, 10), box(20, 20, 40, 40), box(50, 50, 60, 60)


@pytest.mark.parametrize(
    ("guesses", "truth", "expected", "why"),
    [
        ([[(0.9, A), (0.8, B)]], [[A, B]], 1.0, "all found, nothing else"),
        ([[(0.9, A)]], [[A, B]], 0.5, "half found"),
        ([[(0.9, FAR), (0.8, A)]], [[A]], 0.5, "a likelier wrong box halves the precision"),
        ([[(0.9, A), (0.8, A)]], [[A, B]], 0.5, "the second box on one object is wrong"),
        ([[], [(0.9, A)]], [[A], []], 0.0, "the right box in the wrong picture"),
        ([[(0.6, FAR)], [(0.9, A)]], [[], [A]], 1.0, "boxes of all pictures are ranked together"),
        ([[]], [[A]], 0.0, "nothing found"),
    ],
)
def test_average_precision(guesses, truth, expected, why):
    answers = [
        (
            Answered(str(i), "cat", [], [tuple(box) for box in real]),
            [Candidate(tuple(box), "both", (), 0.0, p) for p, box in own],
        )
        for i, (own, real) in enumerate(zip(guesses, truth, strict=True))
    ]
    result = summary(answers)
    assert result["mean ap50"] == pytest.approx(expected), why
    empty = [own for own, real in zip(guesses, truth, strict=True) if not real]
    assert result["absent"] == len(empty) and result["absent with boxes"] == (1.0 if any(empty) else 0.0)


def test_overlap_of_boxes():
    assert overlap(A, box(0, 0, 10, 5)) == 0.5
    assert overlap(A, FAR) == 0.0


def test_cider_is_ten_for_the_only_reference_and_zero_for_strangers():
    references = [["a cat sleeps on a red sofa"], ["two dogs run over the beach"], ["a man rides a horse"]]
    same = [sentences[0] for sentences in references]
    assert cider(same, references) == pytest.approx(10.0)
    assert cider(["xyz"] * 3, references) == 0.0


def test_cider_prefers_rare_words_over_common_ones():
    references = [["a cat sleeps"], ["a dog runs"], ["a bird flies"]]
    rare = cider(["cat", "dog", "bird"], references)
    common = cider(["a", "a", "a"], references)
    assert rare > common
