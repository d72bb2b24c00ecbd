"""The encoder works a few frames at a time on a CPU: to the same numbers, in every arithmetic."""

import pytest
import torch

from mmcli.layers import encoder_decoder
from mmcli.layers.int8 import in_int8
from mmcli.models.stacks import StackConfig
from mmcli.models.whisper.model import EncoderLayer


@pytest.mark.parametrize("short", [None, torch.bfloat16])
@pytest.mark.parametrize("in_integers", [False, True])
@pytest.mark.parametrize("tiles", [False, True])
def test_a_layer_in_pieces_equals_the_whole(monkeypatch, short, in_integers, tiles):
    monkeypatch.setattr(encoder_decoder, "has_tiles", lambda: tiles)
    torch.manual_seed(1)
    layer = EncoderLayer(32, StackConfig(depth=1, heads=4, mlp_width=64), 1e-5).eval().requires_grad_(False)
    if in_integers:
        in_int8(layer)
    layer.attention.fuse()
    layer.attention.short = short
    x = torch.randn(2, 50, 32)
    whole = layer(x)
    monkeypatch.setattr(encoder_decoder, "PIECE", 16)
    torch.testing.assert_close(layer(x), whole, rtol=1e-5, atol=1e-2 if short else 1e-5)


@torch.inference_mode()
def test_attention_in_bfloat16_is_the_same_by_head_and_by_the_fused_kernel(monkeypatch):
    torch.manual_seed(1)
    layer = EncoderLayer(32, StackConfig(depth=1, heads=4, mlp_width=64), 1e-5).eval()
    layer.attention.short = torch.bfloat16
    qkv, found = torch.randn(2, 50, 96).to(torch.bfloat16), []
    for tiles in (False, True):
        monkeypatch.setattr(encoder_decoder, "has_tiles", lambda own=tiles: own)
        found.append(layer.attention.attend(qkv))
    torch.testing.assert_close(*found, rtol=2e-2, atol=1e-2)
