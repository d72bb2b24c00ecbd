"""Attempts that grow warmer until a text passes."""

import pytest

from mmcli.errors import UsageError
from mmcli.speech.fallback import attempts, compression_ratio


def test_only_rows_that_fail_are_tried_again_and_only_until_they_pass():
    asked = []

    def write(rows, temperature):
        asked.append((rows, temperature))
        return [(row, temperature) for row in rows]

    passes_at = {0: 0.0, 1: 0.4, 2: 9.0}
    found = attempts(3, (0.0, 0.4, 0.8), write, lambda text: text[1] < passes_at[text[0]])
    assert asked == [([0, 1, 2], 0.0), ([1, 2], 0.4), ([2], 0.8)]
    assert found == [[(0, 0.0)], [(1, 0.0), (1, 0.4)], [(2, 0.0), (2, 0.4), (2, 0.8)]]


def test_nothing_is_decoded_without_a_temperature_or_a_row():
    with pytest.raises(UsageError, match="no temperature"):
        attempts(1, (), lambda rows, temperature: [], bool)
    assert attempts(0, (0.0,), lambda rows, temperature: pytest.fail("asked"), bool) == []


def test_repetition_shows_in_the_compression_ratio():
    assert compression_ratio("no " * 60) > 5 > 2 > compression_ratio("ask not what your country can do for you")
