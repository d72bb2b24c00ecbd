"""A model that is loaded in the background."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmcli.models.loaded import Loaded


class BackgroundModel:
    """A model that is loaded once, in a thread of its own, as soon as it is certain to be needed.

    `load` may raise whatever it likes: that is raised again where the model is asked for.
    """

    def __init__(self, load: "Callable[[], Loaded]"):
        self._load = load
        self._loaded: Future[Loaded] = Future()
        self._started = False

    def start(self) -> None:
        """Load it, if that has not begun. For one thread only. The thread is a daemon, so that exit need not wait."""
        if not self._started:
            self._started = True
            threading.Thread(target=self._run, daemon=True, name="load").start()

    def now(self) -> "Loaded | None":
        """The model if it is there by now. Raises what loading raised."""
        return self._loaded.result() if self._loaded.done() else None

    def wait(self) -> "Loaded":
        """The model, when it is there; `start` must have been called. Raises what loading raised."""
        return self._loaded.result()

    def _run(self) -> None:
        try:
            self._loaded.set_result(self._load())
        except BaseException as error:  # for whoever asks for the model
            self._loaded.set_exception(error)
