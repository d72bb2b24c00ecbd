"""A disk that is full while weights are written: one sentence, nothing half done. A limit of files stands for it."""

import os

import pytest
import torch

from mmcli.errors import WriteError
from mmcli.hub.save import save_tensors
from mmcli.training.settings import TuneSettings
from mmcli.training.state import State, save

resource = pytest.importorskip("resource", reason="no limits of files here")
LARGE = 1 << 20


@pytest.fixture
def full():
    """Files take no more than 64 KiB. What is raised ends here, before anything else is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_that_do_not_fit_are_an_error_of_the_system(tmp_path, full):
    with pytest.raises(OSError, match="File too large") as error:
        save_tensors({"x": torch.zeros(LARGE)}, tmp_path / "x.safetensors")
    assert error.value.filename == os.fspath(tmp_path / "x.safetensors")


@pytest.mark.parametrize("weights", [LARGE, 1])
def test_a_checkpoint_that_does_not_fit_is_said_to_be(tmp_path, full, weights):
    def write(folder):
        save_tensors({"x": torch.zeros(weights)}, folder / "model.safetensors")

    optimizer = {"state": {0: {"exp_avg": torch.zeros(LARGE)}}}
    with pytest.raises(WriteError, match="step-0000000 cannot be written.*File too large"):
        save(tmp_path, State(), TuneSettings("full", 1, 1, 0.1), optimizer, {}, write)
    assert list((tmp_path / "checkpoints").iterdir()) == []
