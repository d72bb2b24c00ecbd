"""What a MiniCPM-V's config.json may say."""

from math import sqrt

import pytest
from minicpmv_folders import CONFIGS, TOWER

from mmcli.errors import ModelError
from mmcli.models.minicpmv.config import MiniCPMVConfig


def read(kind: str, /, **changes) -> MiniCPMVConfig:
    raw = CONFIGS[kind] | changes
    return MiniCPMVConfig.from_hf({key: value for key, value in raw.items() if value is not ...})


@pytest.mark.parametrize("version", CONFIGS)
def test_versions_are_told_apart(version):
    assert read(version).version == version


def test_without_a_version_a_tower_of_its_own_is_that_of_2_5():
    assert read("2.5", version=...).version == "2.5"


@pytest.mark.parametrize("version", ["4.0", 4.5, "2.8", 3, "2"])
def test_other_versions_are_refused_with_those_that_are_read(version):
    with pytest.raises(ModelError, match=f"version '{version}' of MiniCPM-V; mmcli reads 1.0, 2.0, 2.5 and 2.6"):
        read("2.6", version=version)


def test_each_version_has_its_decoder():
    minicpm, llama, qwen = (read(version).decoder for version in ("2.0", "2.5", "2.6"))
    scales = [(one.embedding_scale, one.residual_scale, one.logit_scale) for one in (minicpm, llama, qwen)]
    assert scales == [(12.0, 1.4 / sqrt(3), 64 / 256), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)]
    assert [one.qkv_bias for one in (minicpm, llama, qwen)] == [False, False, True]
    assert [one.rope_base for one in (minicpm, llama, qwen)] == [1e4, 5e5, 1e6]
    assert [one.key_heads for one in (minicpm, llama, qwen)] == [4, 2, 2]
    assert not minicpm.tied and qwen.window is None


def test_each_version_has_its_tower():
    timm, row, sampled = (read(version) for version in ("2.0", "2.5", "2.6"))
    assert [one.places for one in (timm, row, sampled)] == ["stretched", "in a row", "sampled"]
    assert [one.vision.exact_gelu for one in (timm, row, sampled)] == [True, False, False]
    assert [one.vision.depth for one in (timm, row, sampled)] == [2, 3, 3]
    assert read("2.6", drop_vision_last_layer=True).vision.depth == 2
    assert [one.resampler.query_grid for one in (timm, row, sampled)] == [(2, 2), None, None]


def test_a_tower_that_is_only_named_has_its_published_sizes():
    vision = read("2.0", vision_config=...).vision
    assert (vision.width, vision.depth, vision.mlp_width, vision.heads, vision.patches) == (1152, 26, 4304, 16, 27 * 27)


def test_the_first_version_squeezes_images_to_a_square():
    first = read("1.0")
    assert (first.slicing, first.square, first.vision.depth) == (None, 84, 2)
    assert first.resampler.stretched and not read("2.0").resampler.stretched and read("2.0").square is None
    assert first.decoder == read("2.0").decoder
    assert read("1.0", image_size=...).square == 448
    assert read("1.0", vision_encoder="vit_so400m_patch14_siglip_384").vision == first.vision


def test_slices_are_as_the_file_says_and_else_as_published():
    assert read("2.6").slicing == read("2.0").slicing
    slicing = read("2.6", slice_config={"patch_size": 14}).slicing
    assert (slicing.side, slicing.most, slicing.patch) == (448, 9, 14)


@pytest.mark.parametrize(
    "version, changes, words",
    [
        ("2.0", {"vision_encoder": "resnet50"}, "vision_encoder .*vit_so400m_patch14_siglip_384.webli"),
        ("1.0", {"query_num": 5}, "query_num .*square"),
        ("1.0", {"image_size": 85}, "image_size to 85; expected a multiple of 14"),
        ("1.0", {"slice_mode": False}, "slice_mode"),
        ("2.0", {"query_num": 5}, "query_num .*square"),
        ("2.0", {"scale_depth": 0}, "scale_depth .*above 0"),
        ("2.0", {"scale_emb": "12"}, "scale_emb"),
        ("2.6", {"slice_mode": False}, "slice_mode"),
        ("2.6", {"hidden_size": 192}, "multiple of 128"),
        ("2.6", {"slice_config": {"patch_size": 16}}, "slice_config.patch_size"),
        ("2.6", {"slice_config": {"max_slice_nums": 0}}, "slice_config.max_slice_nums"),
        ("2.6", {"slice_config": {"scale_resolution": None, "max_slice_nums": 10**9}}, "max_slice_nums"),
        ("2.6", {"vision_config": TOWER | {"model_type": "vit"}}, "vision_config.model_type"),
        ("2.6", {"vision_config": []}, "vision_config"),
        ("2.6", {"bos_token_id": -1}, "bos_token_id"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(version, changes, words):
    with pytest.raises(ModelError, match=words):
        read(version, **changes)
