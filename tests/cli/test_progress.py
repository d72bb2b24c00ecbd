"""How far an interrupted run came is said, whatever became of the Ctrl-C on its way."""

import pytest
from command import environment

from mmcli.cli.progress import Count, Progress, pace


def broken_off(error: BaseException, while_: BaseException | None = None) -> str:
    """What is said where two of four images are done and then an error comes."""
    streams = environment()
    error.__context__ = while_
    with pytest.raises(type(error)), Progress(streams, counted=Count("picture", 4)) as progress:
        progress.step()
        progress.step()
        raise error
    return streams.stderr.getvalue()


SAID = "mmcli: interrupted after 2 of 4 pictures; what was written by then is complete\n"


@pytest.mark.parametrize(
    ("error", "while_"),
    [
        (KeyboardInterrupt(), None),
        (SystemExit(143), None),
        (RuntimeError("cannot release un-acquired lock"), KeyboardInterrupt()),
        (RuntimeError("cannot release un-acquired lock"), SystemExit(143)),
    ],
    ids=repr,
)
def test_an_interrupted_run_says_how_far_it_came(error, while_):
    assert broken_off(error, while_) == SAID


def test_another_error_is_no_interruption():
    assert broken_off(RuntimeError("it failed"), ValueError()) == ""


@pytest.mark.parametrize(
    ("done", "left", "seconds", "text"),
    [
        (8, 22, 8.0, "1.0/s, 0:22 left"),
        (8, 22, 2.0, "4.0/s, 0:06 left"),
        (2, 4, 5.0, "2.5 s each, 0:10 left"),
        (1000, 9000, 500.0, "2.0/s, 1:15:00 left"),
        (3, 0, 1.0, "3.0/s, 0:00 left"),
    ],
)
def test_the_pace_is_that_of_the_whole_run(done, left, seconds, text):
    assert pace(done, left, seconds) == text
