"""The tower on slices of any shape: against timm's (2.0) and transformers' Idefics2 (2.5, 2.6)."""

import foreign  # noqa: F401 (before transformers)
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from transformers import Idefics2VisionConfig
from transformers.models.idefics2.modeling_idefics2 import Idefics2VisionTransformer

from mmcli.hub.weights import place
from mmcli.layers.resampler import ResamplerConfig
from mmcli.layers.siglip import SiglipConfig
from mmcli.models.minicpmv.vision import Vision, sampled_cells, stretched_table
from mmcli.models.minicpmv.weights import TIMM_TENSORS, Rule
from mmcli.models.siglip import tower_rules

SIDE, PATCH, WIDTH, INNER = 5, 7, 32, 56
GRIDS = [(5, 5), (3, 7), (1, 9), (11, 1), (12, 10)]
RESAMPLER = ResamplerConfig(queries=4, width=128, heads=1, input_width=WIDTH, query_grid=None, stretched=False)


def vision(places, reference, rules, **timm) -> Vision:
    """Ours, with the reference's weights in its tower."""
    config = SiglipConfig(WIDTH, 2, INNER, 4, SIDE * PATCH, PATCH, **timm)
    ours = Vision(config, places, RESAMPLER)
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {}
    for name, tensor in reference.state_dict().items():
        rule, target = place(rules, name)
        assert rule is not None, name
        if target is not None:
            state[target] = tensor
    ours.tower.load_state_dict(state)
    return ours.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stretched():
    torch.manual_seed(1)
    reference = VisionTransformer(
        img_size=SIDE * PATCH, patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=4, mlp_ratio=INNER / WIDTH,
        class_token=False, global_pool="map", num_classes=0, dynamic_img_size=True, dynamic_img_pad=True,
    ).eval().requires_grad_(False)  # fmt: skip
    reference.attn_pool = torch.nn.Identity()
    reference.pos_embed.normal_()
    rules = [Rule(name, own) for name, own in TIMM_TENSORS.items()]
    return reference, vision("stretched", reference, rules, exact_gelu=True, fused_qkv=True)


@pytest.fixture(scope="module")
def idefics():
    torch.manual_seed(2)
    config = Idefics2VisionConfig(
        hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2, num_attention_heads=4,
        image_size=SIDE * PATCH, patch_size=PATCH,
    )  # fmt: skip
    return Idefics2VisionTransformer(config).eval().requires_grad_(False)


def pixels(grid, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(grid[0] * 100 + grid[1])
    return torch.randn(count, 3, grid[0] * PATCH, grid[1] * PATCH, generator=generator)


@pytest.mark.parametrize("grid", GRIDS)
def test_stretched_positions_are_those_of_timm(stretched, grid):
    reference, ours = stretched
    with torch.inference_mode():
        read = ours.tower.read(pixels(grid), ours.placed(grid))
        torch.testing.assert_close(read, reference.forward_features(pixels(grid)), rtol=1e-4, atol=2e-5)


def test_positions_of_a_grid_one_column_wide_are_those_of_wider_ones_seen_sideways():
    table = torch.randn(SIDE * SIDE, 3)
    turned = table.unflatten(0, (SIDE, SIDE)).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(stretched_table(table, (9, 1)), stretched_table(turned, (1, 9)))


@pytest.mark.parametrize("grid", GRIDS)
def test_sampled_positions_are_those_of_idefics2(idefics, grid):
    ours = vision("sampled", idefics, tower_rules("", ""))
    with torch.inference_mode():
        read = ours.tower.read(pixels(grid), ours.placed(grid))
        torch.testing.assert_close(read, idefics(pixels(grid)).last_hidden_state, rtol=1e-4, atol=2e-5)


def test_patches_in_a_row_are_those_of_idefics2_reading_one_row(idefics):
    ours, grid = vision("in a row", idefics, tower_rules("", "")), (3, 7)
    rows = pixels(grid).unflatten(2, (3, PATCH)).unflatten(4, (7, PATCH))  # [B, C, rows, patch, columns, patch]
    one_row = rows.permute(0, 1, 3, 2, 4, 5).flatten(3)
    with torch.inference_mode():
        read = ours.tower.read(pixels(grid), ours.placed(grid))
        torch.testing.assert_close(read, idefics(one_row).last_hidden_state, rtol=1e-4, atol=2e-5)


def test_rounding_decides_at_borders_as_in_the_published_code():
    """Two of MiniCPM-V 2.6's rows of patches share a position by it; transformers' Idefics2 has it otherwise."""
    cells = sampled_cells((1, 70), 70)
    begins, borders = torch.arange(0, 1 - 1e-6, 1 / torch.tensor(70)), torch.arange(1 / 70, 1.0, 1 / 70)
    assert torch.equal(cells, torch.bucketize(begins, borders, right=True))
    assert sampled_cells((2, 3), 70).tolist() == [0, 23, 46, 2450, 2473, 2496]


def test_slices_of_many_shapes_come_back_in_order(stretched, monkeypatch):
    _, ours = stretched
    slices = tuple(one for grid in [(3, 7), (1, 9), (3, 7), (5, 5), (1, 9)] for one in pixels(grid, 1))
    slices = tuple(one * (place + 1) / 3 for place, one in enumerate(slices))
    with torch.inference_mode():
        expected = torch.cat([ours((one,)) for one in slices])
        torch.testing.assert_close(ours(slices), expected, rtol=1e-4, atol=1e-5)
        monkeypatch.setattr("mmcli.models.minicpmv.vision.PATCHES", 1)
        torch.testing.assert_close(ours(slices), expected, rtol=1e-4, atol=1e-5)
