"""What is asked of a model that transcribes, and how the texts of its windows become one."""

from types import SimpleNamespace

import pytest

from mmcli.escape import LONGEST
from mmcli.speech.fallback import DecodingOptions
from mmcli.tasks.transcribe import Passage, TranscribeRequest, joined, notes_of, span


def test_every_place_without_words_is_told_in_notes_that_are_not_cut():
    nothing = SimpleNamespace(segments=[])
    passages = [Passage(3600.0 + 30 * i, 3620.0 + 30 * i, nothing) for i in range(50)]
    notes = notes_of(passages)
    assert all(len(note) < LONGEST - 60 for note in notes)  # a name comes before them
    assert [place for note in notes for place in note.partition("from ")[2].split(", ")] == list(map(span, passages))


def test_the_settings_reach_the_model():
    request = TranscribeRequest(task="translate", language="de", hint="Anna", beams=3, temperature=0.5, seed=7)
    settings = {"task": "translate", "language": "de", "hint": "Anna", "beams": 3, "temperatures": (0.5,), "seed": 7}
    assert request.options() == DecodingOptions(**settings, spoken_to_end=True)
    assert TranscribeRequest().options() == DecodingOptions(spoken_to_end=True)


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        ([" One.", " Two."], "One. Two."),
        (["One.", "Two."], "One. Two."),
        (["一。", "二。"], "一。二。"),
        ([" One", "", " two"], "One two"),
        ([], ""),
    ],
)
def test_texts_of_windows_are_joined_as_their_language_does(texts, whole):
    assert joined(texts) == whole
