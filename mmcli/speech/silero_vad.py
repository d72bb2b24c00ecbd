"""Silero's voice activity network, many frames at once, with the weights that the package silero-vad carries.

After https://github.com/snakers4/silero-vad (MIT). The package's own runners take a frame at a time; everything but
the recurrent cell looks at one frame alone, so here the frames of a whole block go through it together. The package
itself is not imported: that would set the number of PyTorch's threads for the whole process.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcli.errors import ModelError

FRAME = 512  # samples that one probability is about
CONTEXT = 64  # samples before them that the network sees too
WIDTH = 128
BINS = 129  # of a Fourier transform over 256 samples

State = tuple[Tensor, Tensor]


class SileroVAD(nn.Module):
    """Frames of audio → the probability of speech in each; a state carries over to the next block."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm = nn.LSTM(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """`frames` [F, 64 + 512], each with the 64 samples before it → probabilities [F] and the state after them."""
        padded = F.pad(frames[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(padded).chunk(2, dim=1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        hidden, state = self.lstm(x.mT, state)  # a batch of one: [F, 1, 128]
        return self.final_conv(hidden.relu().mT).sigmoid().flatten(), state


def load_silero_vad() -> SileroVAD:
    """The network with the package's weights, on the CPU. Raises ModelError where the package is not there."""
    from safetensors.torch import load_file

    path = weights_path()
    if path is None:
        raise ModelError("Speech cannot be found without the package silero-vad", "Install it: pip install silero-vad")
    names = {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0", "bias_ih": "bias_ih_l0", "bias_hh": "bias_hh_l0"}
    with torch.device("meta"):
        network = SileroVAD()
    tensors = {}
    for name, value in load_file(path).items():
        owner, _, last = name.rpartition(".")
        tensors[f"lstm.{names[last]}" if owner == "lstm_cell" else name] = value
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{path} is not the network that mmcli knows", "Install silero-vad 6.2") from error
    return network.eval().requires_grad_(False)


def weights_path() -> Path | None:
    """The package's file of weights for 16 kHz, or None."""
    package = find_spec("silero_vad")
    folders = package.submodule_search_locations if package else None
    path = Path(folders[0]) / "data" / "silero_vad_16k.safetensors" if folders else None
    return path if path and path.is_file() else None
