"""How batches share PyTorch's threads."""

import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from command import PATIENCE

from mmcli.batch.lanes import MOST_LANES, Lanes
from mmcli.batch.sizes import LARGE_FOR_AUDIO
from mmcli.engine import cpu


@pytest.fixture
def threads(request):
    """PyTorch is set to use six."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(6)


def model(parameters: int = 10, device: str = "cpu") -> SimpleNamespace:
    with torch.device("meta"):
        weights = torch.nn.ParameterList([torch.nn.Parameter(torch.empty(parameters))])
    return SimpleNamespace(model=weights, device=torch.device(device))


@pytest.mark.parametrize(
    ("loaded", "most", "count"),
    [
        (model(), 3, 3),
        (model(), 9, 6),  # no more than there are threads
        (model(LARGE_FOR_AUDIO + 1), 3, 1),
        (model(device="cuda"), 3, 1),
    ],
)
def test_so_many_batches_at_once_as_pay(threads, loaded, most, count):
    lanes = Lanes(most)
    lanes.leave_to_batches()
    lanes.open(loaded)
    assert (lanes.most, lanes.count) == (most, count)


def test_cores_on_which_others_were_at_work_have_lanes_unless_the_user_counted_threads(threads, monkeypatch):
    monkeypatch.setattr(cpu, "allowed_cores", lambda: 6)
    monkeypatch.setattr(cpu, "_others", lambda: 10**6)
    for variables, count in (({}, 3), ({"OMP_NUM_THREADS": "1"}, 1)):
        monkeypatch.setattr(cpu, "_lowered", False)
        cpu.settle_threads(variables)
        assert variables["OMP_NUM_THREADS"] == "1"
        torch.set_num_threads(1)  # as it does by itself in a process of its own
        lanes = Lanes(3)
        lanes.open(model())
        assert lanes.count == count
        with lanes.one(8):
            assert torch.get_num_threads() == 1


def test_nobody_says_how_many():
    assert 1 <= Lanes().most <= MOST_LANES


def test_each_lane_has_its_share_of_the_threads_and_the_last_window_all(threads):
    lanes = Lanes(3)
    lanes.leave_to_batches()
    assert torch.get_num_threads() == 1
    lanes.leave_to_batches()  # of the next recording
    lanes.open(model())
    with lanes.one(8):
        assert torch.get_num_threads() == 2
    with lanes.one(1):
        assert torch.get_num_threads() == 6


def test_a_lane_of_a_small_model_has_no_more_threads_than_it_may(threads):
    for loaded, share in ((model(), 4), (model(LARGE_FOR_AUDIO + 1), 6)):
        lanes = Lanes(1, most_threads=4)
        lanes.open(loaded)
        for items in (1, 8):
            with lanes.one(items):
                assert torch.get_num_threads() == share
        lanes.close()


def test_a_batch_waits_for_a_lane(threads):
    lanes = Lanes(1)
    lanes.leave_to_batches()
    lanes.open(model())
    order = []

    def second():
        with lanes.one(2):
            order.append("second")

    thread = threading.Thread(target=second)
    with lanes.one(2):
        thread.start()
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["first", "second"]


def test_threads_are_left_as_they_were_to_those_that_come_later(threads):
    lanes = Lanes(3)
    lanes.leave_to_batches()
    lanes.open(model())
    lanes.close()
    assert torch.get_num_threads() == 6
