"""The MobileNetV5 tower in its full width against timm's, as transformers wraps it: float32 on the CPU."""

from typing import NamedTuple

import foreign  # noqa: F401 (before transformers)
import pytest
import timm
import torch
from gemma3n_models import shallow_tower
from torch import Tensor, nn
from transformers import AutoModel, Gemma3nVisionConfig

from mmcli.hub.weights import Rule, place
from mmcli.models.gemma3n.mobilenet_v5 import TENSORS, MobileNetV5

ARCHITECTURE = "mobilenetv5_300m_enc"
RULES = [Rule(pattern, target) for pattern, target in TENSORS.items()]


class Towers(NamedTuple):
    reference: nn.Module
    ours: MobileNetV5


def spread(name: str, parameter: Tensor) -> Tensor:
    """Random values by which every part matters: maps keep their size, no norm or scale is near 0 or all ones."""
    noise = torch.randn_like(parameter)
    if parameter.ndim == 4:
        return noise * parameter[0].numel() ** -0.5
    return noise * 0.3 if name.endswith("bias") else 0.3 * noise + 1


@pytest.fixture(scope="module")
def towers() -> Towers:
    """timm's tower with random weights, and ours with the same tensors: one block of each kind."""
    with shallow_tower():
        return both_towers()


def both_towers() -> Towers:
    torch.manual_seed(0)
    with torch.device("meta"):
        reference = timm.create_model(ARCHITECTURE, num_classes=0)
        ours = MobileNetV5()
    reference = reference.to_empty(device="cpu").eval().requires_grad_(False)
    for name, parameter in reference.named_parameters():
        parameter.copy_(spread(name, parameter))
    renamed = {place(RULES, name)[1]: tensor for name, tensor in reference.state_dict().items()}
    ours.load_state_dict(renamed, assign=True)
    return Towers(reference, ours.eval().requires_grad_(False))


def random_image(rows: int, columns: int, seed: int = 1, count: int = 1) -> Tensor:
    return torch.rand(count, 3, rows, columns, generator=torch.Generator().manual_seed(seed))


def error(ours: Tensor, reference: Tensor) -> float:
    """The largest difference, and the whole of all differences, relative to the reference's: the worse of the two."""
    assert ours.shape == reference.shape and reference.std() > 0.1
    difference = (ours - reference).double()
    whole = difference.norm() / reference.double().norm()
    return max(whole.item(), (difference.abs().max() / reference.abs().max()).item())


def test_names_and_shapes_are_those_of_the_reference_in_both_directions():
    with torch.device("meta"):
        reference = AutoModel.from_config(Gemma3nVisionConfig())
        ours = MobileNetV5()
    expected = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    placed = {}
    for name, tensor in reference.state_dict().items():
        rule, target = place(RULES, name.removeprefix("timm_model."))
        assert rule is not None, name
        assert target not in placed, f"{name} and {placed[target]} have one place"
        assert expected[target] == tensor.shape, name
        placed[target] = name
    assert placed.keys() == expected.keys()
    assert not dict(reference.named_buffers()) and not dict(ours.named_buffers())
    used = {place(RULES, name.removeprefix("timm_model."))[0] for name in reference.state_dict()}
    assert used == set(RULES)


@pytest.mark.parametrize(
    "rows, columns",
    [
        (256, 512),  # pooled, where a side is longer than the grid
        (64, 96),  # a grid smaller than 16, interpolated
    ],
)
def test_the_grid_equals_the_reference(towers, rows, columns):
    assert_same_grid(towers, random_image(rows, columns))


def test_the_grid_of_all_blocks_equals_the_reference():
    assert_same_grid(both_towers(), random_image(64, 96))


def assert_same_grid(towers: Towers, pixels: Tensor) -> None:
    with torch.inference_mode():
        expected = towers.reference.forward_features(pixels)
        assert expected.shape == (1, 2048, 16, 16)
        assert error(towers.ours(pixels), expected) < 1e-5


def test_maps_of_768_pixels_are_pooled_three_to_one_as_in_the_reference(towers):
    """What Gemma 3n reads. The stages before are convolutions, and attention that knows no places."""
    fine, coarse = torch.randn(1, 640, 48, 48), torch.randn(1, 1280, 24, 24)
    with torch.inference_mode():
        expected = towers.reference.msfa([fine, coarse])
        found = towers.ours.fusion(fine.permute(0, 2, 3, 1), coarse.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert expected.shape == (1, 2048, 16, 16) and error(found, expected) < 1e-5


def test_a_batch_equals_its_singles(towers):
    pixels = random_image(128, 128, seed=2, count=2)
    with torch.inference_mode():
        both = towers.ours(pixels)
        for i in range(2):
            assert error(both[i : i + 1], towers.ours(pixels[i : i + 1])) < 1e-5


def test_bfloat16_stays_as_near_to_float32_as_the_reference(towers):
    pixels = random_image(128, 128, seed=4)
    with torch.inference_mode(), shallow_tower():
        exact = towers.reference(pixels)
        with torch.device("meta"):
            reference, ours = timm.create_model(ARCHITECTURE, num_classes=0).eval(), MobileNetV5()
        half = {name: tensor.bfloat16() for name, tensor in towers.reference.state_dict().items()}
        reference.load_state_dict(half, assign=True)
        ours.load_state_dict({place(RULES, name)[1]: tensor for name, tensor in half.items()}, assign=True)
        expected, got = (error(tower(pixels.bfloat16()).float(), exact) for tower in (reference, ours))
    assert got < 1.2 * expected < 0.1
