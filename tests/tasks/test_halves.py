"""A window whose text repeats itself, or its halves: which of them stands in the transcript."""

import pytest

from mmcli.tasks.transcribe import Passage, better
from mmcli.types import Segment, WindowText


def passage(text: str, dropped: str = "", logprob: float = -0.5) -> Passage:
    segments = (Segment(0.0, 5.0, text),)
    return Passage(0.0, 5.0, WindowText("en", segments, (1, 2, 3), logprob, 1.0, 0.0, False, 5.0), dropped)


ENDLESS = "one that repeats itself endlessly"


@pytest.mark.parametrize(
    ("whole", "halves", "takes_whole"),
    [
        (passage("no no no no"), [passage("no no"), passage("never", ENDLESS)], True),
        (passage("no no no no", ENDLESS), [passage("no no"), passage("never", ENDLESS)], False),
        (passage("no no no no", ENDLESS), [passage("no no"), passage("never")], False),
        (passage("no no no no"), [], True),
        (passage("no no no no"), [passage("no no"), passage("no no", logprob=-0.7)], True),
        (passage("no no no no"), [passage("no no"), passage("no no", logprob=-0.2)], False),
        (passage("no no no no"), [passage("no no no"), passage("no no no", logprob=-0.9)], False),
    ],
    ids=["half dropped", "both dropped", "whole dropped", "no halves", "likelier", "less likely", "less said"],
)
def test_which_is_taken(whole, halves, takes_whole):
    assert better(whole, halves) == ([whole] if takes_whole else halves)
