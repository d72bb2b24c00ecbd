"""Which windows go through the model together."""

import pytest
from loudness import LoudnessModel, events, recording

from mmcli.batch.batcher import even, shares


@pytest.mark.usefixtures("loudness_is_speech")
def test_the_first_batch_is_small_for_those_who_watch():
    model = LoudnessModel()
    events([recording("a", *[0.2] * 7)], model, batch_size=4, first_soon=True)
    assert model.batches == [2, 4, 1]


def test_what_is_left_at_the_end_is_shared_among_the_lanes():
    entries = [("a", 1), ("a", 2), ("a", None), ("b", 3), ("b", 4), ("b", 5), ("b", None)]
    assert list(shares(entries, 2)) == [entries[:4], entries[4:]]
    assert list(shares(entries, 1)) == [entries]
    assert list(shares(entries, 9)) == [entries[:1], entries[1:3], entries[3:4], entries[4:5], entries[5:]]
    assert list(shares(entries[2:3], 2)) == [entries[2:3]] and list(shares([], 2)) == []


@pytest.mark.parametrize(
    ("seconds", "lanes", "size", "reason"),
    [
        (60, 2, 8, "more may follow"),
        (300, 2, 6, "twelve windows"),
        (600, 2, 6, "twenty-three: two rounds"),
        (3600, 2, 8, "many rounds"),
        (300, 1, 6, "alone: two even batches"),
        (300, 4, 3, "a window more or less for each"),
    ],
)
def test_batches_are_of_a_size_that_lets_the_lanes_end_together(seconds, lanes, size, reason):
    assert even(8, seconds, lanes) == size, reason
