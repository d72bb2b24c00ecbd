"""The tower of Llama 3.2 Vision from graphs: what is played back is what it makes of an image (CUDA devices only)."""

import pytest
import torch
from cuda_only import needs_cuda
from every_family import write_family
from support import random_image

from mmcli.engine import cuda_graph
from mmcli.engine.inputs import Inputs, joined
from mmcli.hub.resolve import resolve
from mmcli.models.load import load
from mmcli.tasks.answer import inputs_of
from mmcli.tasks.caption import CaptionRequest

needs_cuda()
SIZES = ((20, 20), (56, 20), (20, 56), (56, 56))  # one tile, two beside and above each other, four


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load(resolve(str(write_family(tmp_path_factory.mktemp("mllama"), "mllama"))), "cuda", "float32")


def inputs(loaded, *sizes: tuple[int, int], seed: int) -> Inputs:
    images = [random_image(seed + number, *size) for number, size in enumerate(sizes)]
    rows = joined([inputs_of(loaded, CaptionRequest(), image) for image in images])
    return rows.to(torch.device("cuda"), torch.float32)


@torch.inference_mode()
def test_images_of_all_numbers_of_tiles(loaded, monkeypatch):
    replays, play = [], cuda_graph.EncoderGraph.__call__
    monkeypatch.setattr(
        cuda_graph.EncoderGraph, "__call__", lambda own, *given: replays.append(own) or play(own, *given)
    )
    rows = [inputs(loaded, size, seed=seed) for seed in range(3) for size in SIZES]
    found = [loaded.model.image_states(row) for row in rows]
    assert {row.image_layouts for row in rows} == {((1, 1),), ((1, 2),), ((2, 1),), ((2, 2),)}
    # Both arrangements of two tiles share a graph: it is recorded for the second of them.
    assert len(replays) == 2 + 5 + 2 and len(set(replays)) == 3
    monkeypatch.setenv(cuda_graph.SWITCH, "0")
    for row, states in zip(rows, found, strict=True):
        torch.testing.assert_close(states, loaded.model.image_states(row), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_several_images_are_as_each_alone(loaded):
    several = inputs(loaded, *SIZES, *SIZES, seed=7)
    together = loaded.model.image_states(several)
    for place, states in enumerate(together):
        own = slice(place, place + 1)
        alone = Inputs(several.tokens[:1], several.valid[:1], several.images[own], several.image_layouts[own])
        torch.testing.assert_close(states[None], loaded.model.image_states(alone), rtol=1e-4, atol=1e-4)
