"""Items worked on several at a time, in their order."""

import threading

import pytest
from command import PATIENCE

from mmcli.batch.side_by_side import side_by_side


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_come_in_the_order_of_the_items(count):
    assert list(side_by_side(lambda x: x * x, range(20), lambda: count)) == [x * x for x in range(20)]


def test_as_many_are_worked_on_together_as_is_said():
    """Each of three waits for the two others: one after another they would wait for ever."""
    together = threading.Barrier(3, timeout=PATIENCE)
    assert list(side_by_side(lambda _: together.wait() >= 0, range(6), lambda: 3)) == [True] * 6


def test_one_at_a_time_stays_in_the_calling_thread():
    assert set(side_by_side(lambda _: threading.get_ident(), range(3), lambda: 1)) == {threading.get_ident()}


def test_how_many_at_once_may_be_settled_by_the_first_item():
    settled = []
    items = (settled.append(2) or x for x in range(4))
    assert list(side_by_side(str, items, lambda: settled[0])) == list("0123")


def test_no_more_items_are_drawn_than_are_worked_on_and_one_that_waits():
    drawn = []
    results = side_by_side(str, (drawn.append(x) or x for x in range(50)), lambda: 2)
    for done, _ in enumerate(results, 1):
        assert len(drawn) <= done + 2
    assert len(drawn) == 50


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_comes_in_the_place_of_its_result(count, error):
    def work(x):
        if x == 2:
            raise error
        return x

    results = side_by_side(work, range(9), lambda: count)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(error):
        next(results)


def test_what_waits_behind_an_error_is_not_begun_and_no_thread_stays():
    begun, hold = [], threading.Event()

    def work(x):
        begun.append(x)
        if x == 0:
            raise ValueError
        assert hold.wait(PATIENCE)

    before = set(threading.enumerate())
    with pytest.raises(ValueError):
        list(side_by_side(work, range(9), lambda: 2))
    hold.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert set(begun) <= {0, 1, 2}


def test_at_the_end_no_thread_is_left_to_disturb_that_of_the_process():
    before = set(threading.enumerate())
    assert list(side_by_side(str, range(5), lambda: 2)) == list("01234")
    assert set(threading.enumerate()) <= before
