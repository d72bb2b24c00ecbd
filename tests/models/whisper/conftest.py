"""A small multilingual Whisper in memory."""

import pytest


@pytest.fixture(scope="session")
def whisper(tmp_path_factory):
    import torch
    import whisper_folders

    from mmcli.hub.resolve import resolve
    from mmcli.models.load import load

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whisper")
    whisper_folders.write_checkpoint(folder, ends=1.5)  # some answers end, others are cut off
    return load(resolve(str(folder)), "cpu", "float32")
