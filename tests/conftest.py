"""What tests of several parts share."""

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before PyTorch is imported: the models here are so small that threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import command  # noqa: E402

from mmcli.hub.known import AUDIO_MODEL, IMAGE_MODEL  # noqa: E402

os.environ.update(command.OF_NOBODY)


def pytest_configure(config):
    """A job in the background ignores Ctrl-C, and so would all that it starts: tests send it, as a person would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # However slow the machine is: how long an example takes, or takes to draw, proves nothing.
    settings.register_profile("mmcli", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("mmcli")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported and collected stays to the end: the garbage collector need not look at it, then or later."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.fixture(autouse=True)
def _terminals():
    """No process outlives its test."""
    yield
    command.close_terminals()


@pytest.fixture(scope="session", autouse=True)
def _bundled_models_are_loaded_once():
    """Commands that run in this process share the bundled models, as all calls of one `mmcli.Model` do."""
    import bundled

    with bundled.loaded_once():
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """The folder of a PaliGemma 2 with random weights: it answers at once, in nonsense full of locations."""
    import support

    folder = tmp_path_factory.mktemp("tiny")
    support.write_checkpoint(folder, support.tiny_reference(support.tiny_config(True)))
    return folder


@pytest.fixture(scope="session")
def loaded(tiny):
    """The same, in memory."""
    import torch

    from mmcli.hub.resolve import resolve
    from mmcli.models.load import load

    torch.set_num_threads(1)
    return load(resolve(str(tiny)), "cpu", "float32")


@pytest.fixture(scope="session")
def tiny_audio(tmp_path_factory) -> Path:
    """The folder of a Whisper with random weights: a few letters of nonsense in three segments, at once."""
    import whisper_folders

    folder = tmp_path_factory.mktemp("tiny-audio")
    whisper_folders.write_checkpoint(folder, seconds=30, ends=3.5, seed=9)
    return folder


@pytest.fixture(scope="session")
def nano():
    """The bundled model that looks at images, in memory, in float32."""
    return _bundled(IMAGE_MODEL, "float32")


@pytest.fixture(scope="session")
def bundled_audio():
    """The bundled model that transcribes, in memory."""
    return _bundled(AUDIO_MODEL)


@pytest.fixture(scope="session")
def exact_audio():
    """The same in float32."""
    return _bundled(AUDIO_MODEL, "float32")


def _bundled(name: str, dtype: str = "auto"):
    import torch

    from mmcli.hub.resolve import resolve
    from mmcli.models import load  # its function is the one that tests share

    torch.set_num_threads(1)
    return load.load(resolve(name), "cpu", dtype)


@pytest.fixture
def album(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with the images a[red].png, b.jpg and sub/c.png in album/."""
    import support

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "album"
    for seed, name in enumerate(("a[red].png", "b.jpg", "sub/c.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        support.random_image(seed).save(path)
    return folder


@pytest.fixture(scope="module")
def shallow_tower():
    """Gemma 3n's image tower is built as that of the tests' small checkpoints is."""
    from gemma3n_models import shallow_tower

    with shallow_tower():
        yield
