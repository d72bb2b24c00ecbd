"""What may follow what: the order of times, forbidden tokens, and times that are forced."""

import pytest
import torch

from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.vocabulary import Special

END, T = 10, 20  # text is 0..9, 10 ends, 11..19 are orders, times are 20..49
V = 50
SPECIAL = Special(
    end=END, start=11, languages={}, translate=12, transcribe=13, previous=14, no_speech=15, no_times=19,
    suppressed=(3, 11, 19), suppressed_first=(4, END), latest_first_time=5, alignment_heads=None,
)  # fmt: skip


def allowed(written: list[int], times: bool = True, favour: int | None = None) -> set[int]:
    """Ids left, where all are about as likely, or one much more so (without which a time is always forced)."""
    logits = torch.zeros(1, V)
    if favour is not None:
        logits[0, favour] = 20.0
    logits = WritingRules(SPECIAL, times)(logits, [written])
    return set((logits[0] > -torch.inf).nonzero()[:, 0].tolist())


NEVER = {3, 11, 19}
TEXT = set(range(T)) - NEVER


@pytest.mark.parametrize(
    "written, expected, reason",
    [
        ([], set(range(T, T + 6)), "a first time, and not a late one"),
        ([T], TEXT, "text follows a start"),
        ([T, 1], TEXT | set(range(T + 1, V)), "a segment takes time"),
        ([T + 3, 1, 2], TEXT | set(range(T + 4, V)), "times do not go back"),
        ([T, 1, T + 7], {END} | (TEXT - set(range(END))) | set(range(T + 7, V)), "an end: the next start or the end"),
        ([1, T + 7], {END} | (TEXT - set(range(END))) | set(range(T + 7, V)), "an end, though no start was written"),
        ([T, 1, T + 7, T + 7], TEXT, "text follows a start"),
        ([T, 1, T + 7, T + 9, 2], TEXT | set(range(T + 10, V)), "beyond the last start"),
    ],
)
def test_order_of_times(written, expected, reason):
    favour = 1 if 1 in expected else None
    found = allowed(written, favour=favour)
    if favour is None and written:  # without favour a time is forced, so only these are left
        assert found == {id for id in expected if id >= T}, reason
    else:
        assert found == expected, reason


def test_a_time_is_forced_where_times_together_are_likelier_than_any_word():
    logits = torch.zeros(2, V)
    logits[:, 1] = torch.tensor([2.0, 4.0])  # 29 times of weight 1 are worth log 29 = 3.4
    left = WritingRules(SPECIAL, True)(logits, [[T, 1], [T, 1]]) > -torch.inf
    assert not left[0, :T].any() and left[0, T + 1 :].all()
    assert left[1, 1]


def test_no_time_lies_behind_the_audio():
    logits = torch.zeros(3, V)
    rules = WritingRules(SPECIAL, True, seconds=[0.13, 9.0, 0.02])
    left = rules(logits, [[T + 3, 1], [T, 1], [T, 1, T + 1]], [0, 1, 2]) > -torch.inf
    assert left[0, T:].nonzero()[:, 0].tolist() == [4, 5, 6, 7]  # 0.14 s is where the last sample ends
    assert left[1, T + 1 :].all()
    assert left[2].nonzero()[:, 0].tolist() == sorted({END, T + 1} | (TEXT - set(range(END))))
    nothing_left = rules(torch.zeros(1, V), [[T, 1, T + 1, T + 1]], [2]) > -torch.inf
    assert nothing_left[0].nonzero()[:, 0].tolist() == sorted(TEXT)
    only = rules(torch.zeros(1, V), [[T + 1, 1]], [2]) > -torch.inf  # no time is left to end with: text or the end
    assert only[0].nonzero()[:, 0].tolist() == sorted(TEXT)


def test_a_recording_may_end_at_any_time_token_and_not_behind_it():
    """As many samples as there are in so many steps of time: floats are a little more or less than that."""
    steps = list(range(1, 1501))
    rules = WritingRules(SPECIAL, True, seconds=[320 * step / 16_000 for step in steps])
    left = rules(torch.zeros(len(steps), T + 1503), [[T, 1]] * len(steps)) > -torch.inf
    assert [row.nonzero().max().item() - T for row in left] == steps


@pytest.mark.parametrize(
    ("written", "may_end", "reason"),
    [
        ([T, 1, T + 5, T + 5], False, "a sentence was begun, and two seconds are to come"),
        ([T, 1, T + 5, T + 8, 1], True, "it was written"),
        ([T, 1, T + 5], True, "no sentence was begun"),
        ([T], True, "nothing was said at all"),
        ([T, 1, T + 50, T + 50], False, "a second is to come"),
        ([T, 1, T + 51, T + 51], True, "what is left is shorter than times are sure"),
    ],
)
def test_no_sentence_that_was_begun_is_left_to_another_window(written, may_end, reason):
    logits = torch.zeros(1, T + 200)
    logits[0, END] = 20.0  # it wants to end
    for spoken_to_end in (True, False):
        rules = WritingRules(SPECIAL, True, seconds=[2.0], spoken_to_end=spoken_to_end)
        left = rules(logits.clone(), [written], [0]) > -torch.inf
        assert left[0, END] == (may_end or not spoken_to_end), reason


def test_without_times_only_the_lists_count():
    assert allowed([], times=False) == set(range(V)) - NEVER - {4, END}
    assert allowed([1], times=False) == set(range(V)) - NEVER
