"""SigLIP's tower through fused kernels against the plain one: on a CUDA device, or on a CPU with TRITON_INTERPRET=1."""

import pytest
import torch
from cuda_only import INTERPRETED, needs_kernels

from mmcli.layers import kernels
from mmcli.layers.fusing import fuse
from mmcli.layers.siglip import SiglipConfig, SiglipTower

needs_kernels()
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.mark.parametrize("images", [1, 3])
def test_a_tower_through_the_kernels_equals_the_plain_one(images, monkeypatch):
    from mmcli.layers.kernels import residual_layer_norm

    torch.manual_seed(0)
    tower = SiglipTower(SiglipConfig(48, 3, 80, 4, 28, 7)).to(DEVICE).eval().requires_grad_(False)
    for parameter in tower.parameters():
        parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))
    fuse(tower)
    pixels = torch.rand(images, 3, 28, 28, device=DEVICE)
    monkeypatch.setattr(kernels, "DTYPES", (torch.float32,))
    run, calls = residual_layer_norm.residual_layer_norm, []
    monkeypatch.setattr(residual_layer_norm, "residual_layer_norm", lambda *given: calls.append(1) or run(*given))
    with torch.inference_mode():
        monkeypatch.setenv(kernels.SWITCH, "0")
        plain = tower(pixels)
        assert not calls
        monkeypatch.setenv(kernels.SWITCH, "1")
        torch.testing.assert_close(tower(pixels), plain, rtol=1e-4, atol=1e-4)
    assert len(calls) == 6
