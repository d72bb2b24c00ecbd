import threading
from inspect import signature

import pytest
from command import PATIENCE

from mmcli.batch import images, read
from mmcli.batch.prefetch import prefetch
from mmcli.batch.sizes import ON_CPU
from mmcli.media.limits import HELD_PIXELS


def results(pairs):
    return [(item, future.result()) for item, future in pairs]


def test_results_come_in_the_order_of_the_items_however_long_each_takes():
    others = threading.Event()

    def slow_first(number):
        if number == 0:
            others.wait()
        elif number == 2:
            others.set()
        return number * number

    assert results(prefetch(slow_first, range(9), depth=4, threads=3)) == [(n, n * n) for n in range(9)]


def test_an_error_belongs_to_its_item_and_the_others_go_on():
    def fail_on_two(number):
        if number == 2:
            raise ValueError("two")
        return number

    outcomes = [future.exception() for _, future in prefetch(fail_on_two, range(4), depth=2)]
    assert [type(error) for error in outcomes] == [type(None), type(None), ValueError, type(None)]


def test_an_error_of_the_items_is_raised_after_those_before_it():
    def items():
        yield 1
        raise OSError("the list broke off")

    taken = []
    with pytest.raises(OSError, match="broke off"):
        for item, _ in prefetch(str, items(), depth=2):
            taken.append(item)
    assert taken == [1]


def test_no_more_than_depth_items_are_prefetched():
    drawn = []

    def items():
        for number in range(100):
            drawn.append(number)
            yield number

    for taken, (number, _) in enumerate(prefetch(str, items(), depth=3), start=1):
        assert number == taken - 1
        assert len(drawn) <= taken + 3 + 1  # the one that waits for room is drawn already


def test_a_slow_list_of_items_does_not_hold_back_what_is_done():
    more = threading.Event()

    def items():
        yield "first"
        more.wait()
        yield "second"

    pairs = prefetch(str.upper, items(), depth=4)
    assert next(pairs)[1].result() == "FIRST"  # else both wait for ever
    more.set()
    assert next(pairs)[1].result() == "SECOND"


def test_threads_end_when_the_taker_goes_away():
    pairs = prefetch(str, iter(int, 1), depth=2)
    next(pairs)
    pairs.close()
    for thread in threading.enumerate():
        if thread.name.startswith("prefetch"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "threads were left behind"


def test_no_items():
    assert results(prefetch(str, [], depth=2)) == []


@pytest.mark.parametrize("module", [images, read])
def test_what_waits_keeps_the_threads_busy_and_fits_beside_a_model(module):
    """One result waits while each thread makes another; the largest images that may wait take a seventh of 2 GB."""
    assert signature(prefetch).parameters["threads"].default < module.PREFETCHED
    assert module.PREFETCHED * HELD_PIXELS * 3 <= (2 << 30) / 7


def test_a_batch_of_images_is_read_while_the_model_works_on_another():
    assert images.PREFETCHED >= ON_CPU
