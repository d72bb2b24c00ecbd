"""What is collected of the decode loop's steps: tokens, log-probabilities, ends, and what an interruption leaves."""

import pytest

from mmcli.engine.collect import collect
from mmcli.engine.generate import TokenEvent

END = 9
STOP = frozenset({END})


def steps(*lists, closed=None):
    """The steps of a loop; what stands for an error is raised."""
    try:
        for events in lists:
            if isinstance(events, BaseException):
                raise events
            yield [TokenEvent(*event) for event in events]
    finally:
        if closed is not None:
            closed.append(True)


def test_each_row_has_its_tokens_and_their_log_probabilities_and_the_ends():
    tokens = []
    first, second, empty = collect(
        steps([(0, 1, -0.5), (1, 2, -1.0), (2, END, -0.25)], [(0, END, -0.1), (1, 3, -2.0)]),
        3,
        STOP,
        on_token=lambda row, id: tokens.append((row, id)),
    )
    assert (first.ids, first.logprobs, first.ended) == ((1,), (-0.5, -0.1), True)
    assert (second.ids, second.logprobs, second.ended) == ((2, 3), (-1.0, -2.0), False)
    assert (empty.ids, empty.logprobs, empty.ended) == ((), (-0.25,), True)
    assert tokens == [(0, 1), (1, 2), (1, 3)]
    assert [(token.id, token.logprob) for token in first.tokens] == [(1, -0.5)]
    assert first.timings is second.timings and first.timings.batch == 3


def test_the_end_counts_in_the_mean():
    """As in openai/whisper: its log-probability is in the sum, and it is one more token."""
    ended, cut = collect(steps([(0, 1, -0.5), (1, 1, -0.5)], [(0, END, -0.1), (1, 2, -0.7)]), 2, STOP)
    assert ended.mean_logprob == pytest.approx(-0.6 / 2)
    assert cut.mean_logprob == pytest.approx(-1.2 / 3)


def test_what_was_written_before_an_interruption_stays_where_that_is_wanted():
    closed = []
    [said] = collect(steps([(0, 1, -0.5)], KeyboardInterrupt(), closed=closed), 1, STOP, interruptible=True)
    assert said.ids == (1,) and said.stopped and not said.ended and closed
    with pytest.raises(KeyboardInterrupt):
        collect(steps([(0, 1, -0.5)], KeyboardInterrupt()), 1, STOP)
    with pytest.raises(KeyboardInterrupt):  # nothing is written yet
        collect(steps(KeyboardInterrupt()), 1, STOP, interruptible=True)


def test_an_interruption_that_a_library_turned_into_another_error_ends_an_answer_too():
    def broken() -> RuntimeError:
        error = RuntimeError("cannot release un-acquired lock")
        error.__context__ = KeyboardInterrupt()
        return error

    [said] = collect(steps([(0, 1, -0.5)], broken()), 1, STOP, interruptible=True)
    assert said.ids == (1,) and said.stopped
    with pytest.raises(KeyboardInterrupt):
        collect(steps([(0, 1, -0.5)], broken()), 1, STOP)
    with pytest.raises(RuntimeError, match="its own"):
        collect(steps([(0, 1, -0.5)], RuntimeError("its own")), 1, STOP, interruptible=True)


def test_the_loop_is_closed_when_whoever_listens_fails():
    closed = []

    def listen(row, id):
        raise ValueError("the reader is gone")

    loop = steps([(0, 1, -0.5)], [(0, 2, -0.5)], closed=closed)  # held, so that nothing but collect closes it
    with pytest.raises(ValueError, match="gone"):
        collect(loop, 1, STOP, on_token=listen)
    assert closed
