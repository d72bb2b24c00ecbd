from types import SimpleNamespace

from mmcli.escape import LONGEST
from mmcli.tasks.transcribe import Passage, notes_of, span


def test_every_place_without_words_is_told_in_notes_that_are_not_cut():
    nothing = SimpleNamespace(segments=[])
    passages = [Passage(3600.0 + 30 * i, 3620.0 + 30 * i, nothing) for i in range(50)]
    notes = notes_of(passages)
    assert all(len(note) < LONGEST - 60 for note in notes)  # a name comes before them
    assert [place for note in notes for place in note.partition("from ")[2].split(", ")] == list(map(span, passages))
