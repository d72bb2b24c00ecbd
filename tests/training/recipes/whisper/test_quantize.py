"""GPTQ on a small Whisper: outputs on the inputs it was shown change less than by rounding to the nearest, and what is
written loads as the model that was measured."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmcli.hub.quantized import GROUP, ZERO, multiplied, pack
from mmcli.hub.save import checkpoint_name
from mmcli.hub.weights import load_strict
from mmcli.models.stacks import StackConfig
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper
from mmcli.models.whisper.weights import rules
from mmcli.training.recipes.whisper.gptq import Moments, quantize
from mmcli.training.recipes.whisper.quantize import Quantizer

CONFIG = WhisperConfig(80, 8, 64, 20, 16, StackConfig(1, 1, 96), StackConfig(2, 2, 96), start=70, end=69)


def correlated(count: int, width: int) -> torch.Tensor:
    """Inputs as layers get them: few directions of large variance, and a mean."""
    return torch.randn(count, width) @ torch.randn(width, width) * torch.linspace(0.1, 2, width) + 1


def test_outputs_change_less_than_by_rounding():
    torch.manual_seed(0)
    weight, inputs = torch.randn(48, 2 * GROUP) * 0.1, correlated(500, 2 * GROUP)
    moments = Moments(2 * GROUP)
    for part in inputs.split(100):
        moments.add(part)
    assert torch.allclose(moments.mean, inputs.mean(dim=0), atol=1e-4)
    assert torch.allclose(moments.covariance, inputs.T.cov(correction=0), rtol=1e-3, atol=1e-3)
    integers, scales = quantize(weight, moments.covariance)
    assert integers.min() >= -8 and integers.max() <= 7 and scales.dtype == torch.float16
    nearest = weight.unflatten(1, (-1, GROUP)).abs().amax(dim=2, keepdim=True) / 7
    rounded = ((weight.unflatten(1, (-1, GROUP)) / nearest).round() * nearest).flatten(1)
    centred = inputs - inputs.mean(dim=0)

    def error(matrix: torch.Tensor) -> float:
        return float((centred @ (matrix - weight).T).square().mean())

    assert error(multiplied(pack(integers + ZERO), scales)) < 0.5 * error(rounded)


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    torch.manual_seed(0)
    return Whisper(CONFIG).eval().requires_grad_(False)


def test_what_is_written_is_the_model_that_was_quantised(whisper, tmp_path):
    table = rules(CONFIG)
    named = {checkpoint_name(table, name): tensor.clone() for name, tensor in whisper.state_dict().items()}
    quantizer = Quantizer(whisper)
    with torch.inference_mode():
        features = [torch.randn(1, 8, 40) for _ in range(3)]
        quantizer.encoder(features)
        quantizer.decoder([whisper.encoder(one) for one in features], [[70, 1, 2, 3], [70, 4], [70, 5, 69]])
    layers = [part for part in whisper.modules() if isinstance(part, nn.Linear)]
    assert set(quantizer.kept) == set(layers)
    save_file(quantizer.stored(named), tmp_path / "model.safetensors")
    with torch.device("meta"):
        read = Whisper(CONFIG)
    load_strict(read, tmp_path, table, torch.device("cpu"), torch.float32)
    exact = {f"{name}.weight" for name, part in whisper.named_modules() if part in quantizer.kept}
    for name, tensor in read.state_dict().items():  # the rest is kept in float16, the table in int8
        assert torch.allclose(tensor, whisper.state_dict()[name], rtol=0, atol=0.0 if name in exact else 0.03), name
