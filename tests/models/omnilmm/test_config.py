"""config.json of OmniLMM: the published sizes, and what is refused."""

import pytest
import torch
from omnilmm_folders import CONFIGS, PUBLISHED, shapes
from places import stages_of

from mmcli.engine.inputs import Inputs
from mmcli.errors import ModelError
from mmcli.hub.weights import place
from mmcli.models.load import build_empty
from mmcli.models.omnilmm import FAMILY, OmniLMMConfig
from mmcli.models.omnilmm import model as module


def test_the_published_sizes():
    config = OmniLMMConfig.from_hf(PUBLISHED)
    assert (config.vision.depth, config.vision.grid, config.vision.trained_grid) == (63, 32, 16)
    assert (config.resampler.heads, config.resampler.query_grid) == (32, (8, 8))
    assert (config.decoder.window, config.bos, config.stop_ids) == (4096, 1, {2})
    model = build_empty(FAMILY, config)
    total = sum(tensor.numel() for tensor in model.state_dict().values())
    assert total == sum(stage.parameters for stage in stages_of(FAMILY, config))
    assert total / 1e9 == pytest.approx(11.6, abs=0.05)  # as its authors count
    assert "64 × 4096" in [stage.output for stage in stages_of(FAMILY, config)]


def test_the_published_tensors_fill_the_model_and_no_other_is_taken():
    """Written out from the modules of the reference; those of a small one are checked against it as they are read."""
    config = OmniLMMConfig.from_hf(PUBLISHED)
    vision = {"img_size": 224, "patch_size": 14, "embed_dim": 1792, "depth": 64, "mlp_hidden_dim": 15360}
    table, wanted = FAMILY.rules(config), build_empty(FAMILY, config).state_dict()
    found = {place(table, name)[1]: shape for name, shape in shapes(PUBLISHED | {"vision_config": vision}).items()}
    assert found == {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    last = "model.vision_tower.blocks.{}.attn.qkv.weight"
    assert place(table, last.format(63))[0] is not None and place(table, last.format(63))[1] is None
    assert place(table, "model.vision_tower.rope.freqs") == (None, None)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"mm_vision_tower": None}, "no mm_vision_tower"),
        ({"mm_use_im_start_end": False}, "mm_use_im_start_end to False"),
        ({"num_query": 60}, "num_query to 60; expected a square number"),
        ({"num_query": None}, "no num_query"),
        ({"image_size": 450}, "450 pixels cannot be cut into patches of 14"),
        ({"image_size": None}, "no image_size"),
        ({"hidden_size": 4160, "num_attention_heads": 40}, "hidden_size to 4160; expected a multiple of 128"),
        ({"vision_config": {"num_heads": 15}}, "among 15 heads"),
        ({"vision_config": {"depth": 1}}, "vision_config.depth to 1"),
        ({"hidden_act": "gelu"}, "hidden_act to 'gelu'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear' rope"),
    ],
)
def test_what_is_not_supported_is_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        OmniLMMConfig.from_hf(PUBLISHED | changes)


def test_the_window_may_be_none():
    assert OmniLMMConfig.from_hf(PUBLISHED | {"sliding_window": None}).decoder.window is None


def test_images_are_in_the_tower_a_few_at_once(monkeypatch):
    torch.manual_seed(0)
    ours = FAMILY.build(OmniLMMConfig.from_hf(CONFIGS[2])).eval()
    for parameter in ours.requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images = tuple(torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(1)))
    inputs = Inputs(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), images)
    whole = ours.soft_tokens(inputs)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    torch.testing.assert_close(ours.soft_tokens(inputs), whole, rtol=1e-4, atol=1e-5)
    assert whole.shape == (45, 128)
