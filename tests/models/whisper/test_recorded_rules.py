"""The rules on the device choose what the rules on the host leave as the likeliest, step for step."""

import pytest
import torch
from cuda_only import INTERPRETED

from mmcli.engine.hand_over import SLOTS, HandOver
from mmcli.models.whisper.recorded_rules import RecordedWritingRules, plain
from mmcli.models.whisper.rules import WritingRules
from mmcli.models.whisper.vocabulary import Special

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
END, T = 30, 40  # text is 0..29, then come orders, and times from 40 on


def special(vocabulary):
    return Special(
        end=END, start=31, languages={}, translate=None, transcribe=None, previous=None, no_speech=None, no_times=T - 1,
        suppressed=(3, 31, T - 1), suppressed_first=(4, END), latest_first_time=min(50, vocabulary - T - 2),
        alignment_heads=None,
    )  # fmt: skip


def ways():
    yield "plain", plain
    if torch.cuda.is_available() or INTERPRETED:
        from mmcli.models.whisper.kernels.choice import choose

        yield "kernel", choose


def check(choose, vocabulary, times, to_end, seconds, steps=60):
    """A text of random logits in which times, the end and repetitions are likely, by both."""
    rules = WritingRules(special(vocabulary), times, DEVICE, seconds, to_end)
    recorded = RecordedWritingRules(rules, len(seconds), vocabulary, torch.device(DEVICE))
    states, barred = recorded.tensors
    written = [[] for _ in seconds]
    kinds = set()
    for _ in range(steps):
        logits = 2 * torch.randn(len(seconds), vocabulary, device=DEVICE)
        logits[:, T:] += 3 * torch.randn(len(seconds), 1, device=DEVICE)
        logits[:, END] += 2
        left = rules(logits.clone(), written)
        expected = left.log_softmax(dim=1).max(dim=1)
        ids, both = choose(logits, states, barred, recorded.settings)
        assert ids.tolist() == both[0].long().tolist() == expected.indices.tolist()
        torch.testing.assert_close(both[1], expected.values, rtol=1e-4, atol=1e-4)
        for row, id in zip(written, ids.tolist(), strict=True):
            row.append(id)
            kinds.add("time" if id >= T else "end" if id == END else "text")
    return kinds


@pytest.mark.parametrize("way", [name for name, _ in ways()])
@pytest.mark.parametrize("rows, vocabulary", [(1, 5001), (3, 64), (17, 1500)])
@pytest.mark.parametrize("times, to_end", [(True, False), (True, True), (False, False)])
def test_each_step_chooses_what_the_rules_leave(way, rows, vocabulary, times, to_end):
    torch.manual_seed(vocabulary)
    steps = 12 if INTERPRETED and way == "kernel" else 60
    seconds = [(30.0, 0.3, 7.77)[row % 3] for row in range(rows)]
    kinds = check(dict(ways())[way], vocabulary, times, to_end, seconds, steps)
    assert kinds >= {"time", "text"}


@pytest.mark.skipif("kernel" not in dict(ways()), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [1, 3, 17])
def test_what_is_chosen_is_handed_over_to_the_next_step_and_to_the_host(rows):
    from mmcli.models.whisper.kernels.choice import choose

    recorded = RecordedWritingRules(WritingRules(special(64), True, DEVICE), rows, 64, torch.device(DEVICE))
    tokens, cursor = torch.full((rows,), -1, device=DEVICE), torch.tensor([7], device=DEVICE)
    hand_over, found = HandOver.to(tokens, cursor), []
    for turn in range(SLOTS + 1):
        logits = torch.randn(rows, 64, device=DEVICE)
        ids, both = choose(logits, *recorded.tensors, recorded.settings, hand_over)
        assert hand_over.done and tokens.tolist() == ids.tolist() and cursor.item() == 8 + turn
        found.append(both.cpu())
    for turn in range(1, SLOTS + 1):
        assert torch.equal(hand_over.slots[turn % SLOTS], found[turn])


@pytest.mark.parametrize("way", [name for name, _ in ways()])
def test_logits_that_are_no_numbers_give_an_id_and_no_probability(way):
    rules = RecordedWritingRules(WritingRules(special(64), True, DEVICE), 2, 64, torch.device(DEVICE))
    ids, both = dict(ways())[way](torch.full((2, 64), torch.nan, device=DEVICE), *rules.tensors, rules.settings)
    assert all(0 <= id < 64 for id in ids.tolist()) and both[1].isnan().all()
