"""The EVA-02-E tower against timm's, on small configurations of the same kind: float32 on the CPU."""

import foreign  # noqa: F401 (before timm, which may bring torchaudio in)
import pytest
import timm
import torch
from timm.models.eva import Eva

from mmcli.hub.weights import Rule, place
from mmcli.models.omnilmm.eva import EvaConfig, EvaTower
from mmcli.models.omnilmm.weights import VISION_TENSORS

RULES = [Rule(theirs, ours) for theirs, ours in VISION_TENSORS.items()]
SIZES = {"width": 24, "mlp_width": 40, "heads": 3, "patch_size": 4, "trained_size": 16}


def small(depth: int, seed: int) -> Eva:
    """The arguments that distinguish `eva02_enormous_patch14_clip_224` from other EVAs, with other sizes."""
    model = Eva(
        img_size=16, patch_size=4, embed_dim=24, depth=depth, num_heads=3, mlp_ratio=40 / 24, use_post_norm=True,
        global_pool="token", num_classes=0, dynamic_img_size=True, dynamic_img_pad=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.requires_grad_(False).named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        wide = parameter.ndim > 1 and "pos_embed" not in name
        parameter.copy_(noise * (parameter[0].numel() ** -0.5 if wide else 0.5))
    return model.eval()


def ours_like(reference: Eva, depth: int, image_size: int) -> EvaTower:
    tower = EvaTower(EvaConfig(depth=depth, image_size=image_size, **SIZES))
    tower.load_state_dict({place(RULES, name)[1]: tensor for name, tensor in reference.state_dict().items()})
    return tower.eval().requires_grad_(False)


@pytest.mark.parametrize("image_size", [16, 28, 8], ids=["as trained", "larger", "smaller"])
@pytest.mark.parametrize("depth", [1, 3])
def test_every_patch_is_that_of_the_reference(depth, image_size):
    reference = small(depth, seed=depth)
    pixels = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(5))
    expected = reference.forward_features(pixels)[:, reference.num_prefix_tokens :]
    found = ours_like(reference, depth, image_size)(pixels)
    assert expected.shape == (2, (image_size // 4) ** 2, 24) and expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_published_variant_has_exactly_our_names_and_shapes():
    """Of all its 64 blocks; OmniLMM leaves the last one out."""
    with torch.device("meta"):
        reference = timm.create_model("eva02_enormous_patch14_clip_224.laion2b_plus", num_classes=0)
        config = EvaConfig(
            width=1792, depth=64, mlp_width=15360, heads=16, patch_size=14, image_size=448, trained_size=224
        )
        ours = EvaTower(config)
    assert type(reference.blocks[0]).__name__ == "EvaBlockPostNorm" and reference.rope is None
    shapes = {place(RULES, name)[1]: tensor.shape for name, tensor in reference.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in ours.state_dict().items()}
