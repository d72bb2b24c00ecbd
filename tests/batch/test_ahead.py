import threading
import time

import pytest

from mmcli.batch.ahead import ahead


def results(pairs):
    return [(item, future.result()) for item, future in pairs]


def test_results_come_in_the_order_of_the_items_however_long_each_takes():
    def slow_first(number):
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert results(ahead(slow_first, range(9), depth=4, threads=3)) == [(n, n * n) for n in range(9)]


def test_an_error_belongs_to_its_item_and_the_others_go_on():
    def fail_on_two(number):
        if number == 2:
            raise ValueError("two")
        return number

    outcomes = [future.exception() for _, future in ahead(fail_on_two, range(4), depth=2)]
    assert [type(error) for error in outcomes] == [type(None), type(None), ValueError, type(None)]


def test_an_error_of_the_items_is_raised_after_those_before_it():
    def items():
        yield 1
        raise OSError("the list broke off")

    taken = []
    with pytest.raises(OSError, match="broke off"):
        for item, _ in ahead(str, items(), depth=2):
            taken.append(item)
    assert taken == [1]


def test_no_more_than_depth_items_are_ahead_of_the_taker():
    started = []
    pairs = ahead(started.append, range(100), depth=3)
    next(pairs)
    time.sleep(0.1)
    assert len(started) <= 3 + 1


def test_a_slow_list_of_items_does_not_hold_back_what_is_done():
    more = threading.Event()

    def items():
        yield "first"
        more.wait(5)
        yield "second"

    pairs = ahead(str.upper, items(), depth=4)
    started = time.perf_counter()
    assert next(pairs)[1].result() == "FIRST"
    assert time.perf_counter() - started < 4
    more.set()
    assert next(pairs)[1].result() == "SECOND"


def test_threads_end_when_the_taker_goes_away():
    pairs = ahead(str, iter(int, 1), depth=2)
    next(pairs)
    pairs.close()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("ahead") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "threads were left behind"
        time.sleep(0.01)


def test_no_items():
    assert results(ahead(str, [], depth=2)) == []
