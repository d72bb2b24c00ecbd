"""What nano computes in on a CPU where nobody says: int8 and bfloat16 where it has them, else float32 as before."""

from copy import deepcopy

import pytest
import torch
from nano_models import CONFIG, answers, batch_of

from mmcli.layers.convolution import PackedConv, packed_convolutions_work
from mmcli.layers.fusing import fuse
from mmcli.layers.int8 import ReadInInt8
from mmcli.layers.int8_step import StepInt8Linear, StepInt8Table, step_packing_works
from mmcli.models.load import build_empty
from mmcli.models.nano import FAMILY, Nano
from mmcli.models.nano import model as nano_model

needs_int8 = pytest.mark.skipif(not step_packing_works(), reason="this CPU has no fast int8")
PROMPTS = [[2, 5, 6, 7], [2, 9], [2, 5, 6, 7, 8, 3, 4]]


@pytest.fixture(scope="module")
def plain() -> Nano:
    torch.manual_seed(1)
    return Nano(CONFIG).eval()


def chosen(plain: Nano, monkeypatch, *, int8: bool, bfloat16: bool) -> Nano:
    monkeypatch.setattr(nano_model, "int8_pays", lambda: int8)
    monkeypatch.setattr(nano_model, "bfloat16_pays", lambda: bfloat16)
    model = deepcopy(plain)
    assert model.quantise() is int8
    fuse(model)
    return model


@needs_int8
def test_each_part_is_in_its_arithmetic(plain, monkeypatch):
    model = chosen(plain, monkeypatch, int8=True, bfloat16=True)
    layer = model.decoder.layers[0]
    products = (layer.attention.qkv, layer.attention.out, layer.mlp.gate, layer.mlp.up, layer.mlp.down)
    assert all(isinstance(product, StepInt8Linear) for product in products)
    assert isinstance(model.decoder.embedding, StepInt8Table) and model.like.dtype == torch.float32
    if packed_convolutions_work(torch.bfloat16):
        kinds = {part.dtype for part in model.tower.features.modules() if isinstance(part, PackedConv)}
        assert kinds == {torch.bfloat16}
        kinds = {part.dtype for part in model.tower.detector.modules() if isinstance(part, PackedConv)}
        assert kinds == {torch.float32}


@needs_int8
@torch.inference_mode()
def test_what_it_sees_is_nearly_the_same(plain, monkeypatch):
    pixels = torch.rand(2, 3, 128, 128)
    exact, model = plain.look(pixels), chosen(plain, monkeypatch, int8=True, bfloat16=True)
    seen = model.look(pixels)
    assert seen.store.dtype == torch.bfloat16
    for ours, theirs in (
        (seen.store.float(), exact.store),
        (seen.planes.maps, exact.planes.maps),
        (seen.there, exact.there),
    ):
        assert ours.dtype == torch.float32
        assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()


@needs_int8
@torch.inference_mode()
def test_a_batch_is_its_singles_in_every_digit(plain, monkeypatch):
    model = chosen(plain, monkeypatch, int8=True, bfloat16=True)
    pixels = torch.rand(3, 3, 128, 128)
    together, alone = model.look(pixels), [model.look(one[None]) for one in pixels]
    assert torch.equal(together.store, torch.cat([one.store for one in alone], 2))
    assert torch.equal(together.classified, torch.cat([one.classified for one in alone]))
    written = answers(model, batch_of(PROMPTS, pixels))
    assert written == [
        answers(model, batch_of([prompt], one[None]))[0] for prompt, one in zip(PROMPTS, pixels, strict=True)
    ]


@torch.inference_mode()
def test_nothing_changes_where_the_cpu_has_neither(plain, monkeypatch):
    model, fused = chosen(plain, monkeypatch, int8=False, bfloat16=False), deepcopy(plain)
    fuse(fused)
    pixels = torch.rand(1, 3, 128, 128)
    assert torch.equal(model.look(pixels).store, fused.look(pixels).store)


@needs_int8
def test_weights_are_put_in_int8_as_they_are_read(monkeypatch):
    monkeypatch.setattr(nano_model, "int8_pays", lambda: True)
    model = build_empty(FAMILY, CONFIG)
    assert isinstance(model, Nano)
    model.expect_int8()
    waiting = [name for name, part in model.named_modules() if isinstance(part, ReadInInt8)]
    assert len(waiting) == 1 + 7 * CONFIG.decoder.depth and "decoder.embedding" in waiting
