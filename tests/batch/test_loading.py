"""A model that is loaded in the background."""

import threading

import pytest

from mmcli.batch.loading import BackgroundModel
from mmcli.errors import ModelError


def test_it_is_loaded_once_and_in_a_thread_of_its_own(loaded):
    threads, go_on = [], threading.Event()

    def load():
        threads.append(threading.current_thread())
        go_on.wait()
        return loaded

    model = BackgroundModel(load)
    assert model.now() is None and threads == []
    model.start()
    model.start()
    assert model.now() is None
    go_on.set()
    assert model.wait() is loaded and model.now() is loaded
    assert len(threads) == 1 and threads[0].daemon and threads[0] is not threading.current_thread()


def test_what_loading_raises_is_raised_whenever_the_model_is_asked_for():
    def load():
        raise ModelError("It is damaged", "Get another")

    model = BackgroundModel(load)
    model.start()
    for _ in range(2):
        with pytest.raises(ModelError, match="It is damaged"):
            model.wait()
    with pytest.raises(ModelError, match="It is damaged"):
        model.now()
