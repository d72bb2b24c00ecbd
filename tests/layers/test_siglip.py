"""Learned positions of grids of patches that are not the tower's own, against the reference's."""

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from transformers.models.idefics3.modeling_idefics3 import (
    Idefics3VisionConfig,
    Idefics3VisionEmbeddings,
    Idefics3VisionTransformer,
)

from mmcli.layers.siglip import SiglipConfig, SiglipTower, fractional_positions
from mmcli.models.siglip import tower_rules


@pytest.mark.parametrize("side", [1, 2, 7, 24, 26, 27, 32])
def test_positions_are_those_of_the_reference(side):
    config = Idefics3VisionConfig(hidden_size=1, num_attention_heads=1, image_size=side, patch_size=1)
    embeddings = Idefics3VisionEmbeddings(config)
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(side * side)[:, None])
        for rows, columns in [(side, side), *((n, n + 3) for n in range(1, 40)), (5, 100), (100, 5)]:
            full = torch.ones(1, rows, columns, dtype=torch.bool)
            expected = embeddings(torch.zeros(1, 3, rows, columns), full)[0, :, 0].long()
            assert torch.equal(fractional_positions(rows, columns, side), expected), (rows, columns)


@pytest.mark.parametrize("side", [24, 26, 27, 32])
def test_grids_of_published_towers_have_all_positions_in_order(side):
    assert torch.equal(fractional_positions(side, side, side), torch.arange(side * side))


def test_rounding_lets_rows_share_a_position_where_it_does_in_the_reference():
    assert fractional_positions(1, 19, 19)[11:14].tolist() == [11, 11, 13]


def test_the_tower_reads_images_of_another_size_as_the_reference():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    reference = Idefics3VisionTransformer(Idefics3VisionConfig(**sizes, image_size=28, patch_size=7)).eval()
    ours = SiglipTower(SiglipConfig(16, 2, 24, 2, 28, 7))
    state = {}
    for name, tensor in reference.state_dict().items():
        [(rule, found)] = [(rule, rule.match(name)) for rule in tower_rules("", "") if rule.match(name) is not None]
        state[rule.target.format(*found)] = tensor
    ours.load_state_dict(state)
    pixels = torch.randn(2, 3, 14, 42)
    with torch.inference_mode():
        expected = reference(pixels).last_hidden_state
        read = ours.read_any(pixels)
        torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-5)
        assert (ours.read(pixels, ours.position[:12]) - expected).abs().max() > 1e-2
