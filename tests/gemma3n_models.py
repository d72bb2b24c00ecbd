"""Small Gemma 3n models of transformers, with weights by which every part matters."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from gemma3n_folders import EOA, EOI, HARD, ROWS, TEXT, ids_config
from transformers import Gemma3nConfig, Gemma3nForCausalLM, Gemma3nForConditionalGeneration, Gemma3nTextConfig

WINDOW = 12
SLIDING, FULL = "sliding_attention", "full_attention"


# Of the blocks of the image tower's stages, which are alike but for their numbers: one of each kind.
OF_EACH_KIND = ((0, 1), (0, 1, 2), (0, 1, 8, 9, 10), (0, 1, 2))


@contextmanager
def shallow_tower() -> Iterator[None]:
    """The image tower of transformers and of mmcli, in its full width, has one block of each kind and not 87 blocks.

    So it has a sixth of the weights.
    """
    import pytest
    import timm.models.mobilenetv5 as timm_tower

    from mmcli.models.gemma3n import mobilenet_v5

    def chosen(stages: Sequence[Sequence]) -> list[list]:
        whole = any(len(stage) > len(kinds) for stage, kinds in zip(stages, OF_EACH_KIND, strict=True))
        kept = OF_EACH_KIND if whole else map(range, map(len, stages))  # it is shallow already
        return [[stage[i] for i in kinds] for stage, kinds in zip(stages, kept, strict=True)]

    channels, ours = zip(*mobilenet_v5.STAGES, strict=True)
    decode = timm_tower.decode_arch_def
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mobilenet_v5, "STAGES", tuple(zip(channels, map(tuple, chosen(ours)), strict=True)))
        patch.setattr(timm_tower, "decode_arch_def", lambda stages, **options: decode(chosen(stages), **options))
        yield


def text_settings(**changes) -> dict:
    """Every width its own number; two kinds of layers own keys, two share them, MLPs differ as in a MatFormer slice.

    Of so few gates, 0.95 would close almost all, and the norm behind would make rounding errors of what is left large.
    """
    return {
        "vocab_size": ROWS, "vocab_size_per_layer_input": TEXT, "hidden_size": 48, "hidden_size_per_layer_input": 6,
        "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": [80, 96, 80, 72, 80, 64, 80], "num_kv_shared_layers": 3,
        "layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING],
        "activation_sparsity_pattern": [0.8, 0.6, 0.0, 0.3, 0.0, 0.8, 0.0], "sliding_window": WINDOW,
        "laurel_rank": 5, "altup_num_inputs": 4, "rms_norm_eps": 1e-5,
    } | changes  # fmt: skip


def tiny_text_reference(seed: int = 0, **changes) -> Gemma3nForCausalLM:
    """A decoder alone."""
    torch.manual_seed(seed)
    return randomised(Gemma3nForCausalLM(Gemma3nTextConfig(**text_settings(**changes))).eval())


def tiny_reference(seed: int = 0, **text) -> Gemma3nForConditionalGeneration:
    """All of it: the real tower of images but for its depth, a small one of recordings, a small decoder."""
    audio = {
        "vocab_size": HARD, "vocab_offset": EOA, "hidden_size": 32, "conf_num_hidden_layers": 2,
        "conf_num_attention_heads": 4, "sscp_conv_channel_size": (6, 4),
    }  # fmt: skip
    vision = {"vocab_size": HARD, "vocab_offset": EOI}
    parts = {"text_config": text_settings(**text), "audio_config": audio, "vision_config": vision}
    torch.manual_seed(seed)
    with shallow_tower():
        model = Gemma3nForConditionalGeneration(Gemma3nConfig(**(ids_config() | parts))).eval()
    torch.manual_seed(seed)  # again, so that the decoder is the same with another tower
    return randomised(model)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough for every part to matter, norms and coefficients too; the image tower keeps its own."""
    for name, parameter in model.requires_grad_(False).named_parameters():
        if "vision_tower" not in name:
            parameter.copy_(torch.randn_like(parameter) * spread_of(name, parameter) + centre_of(name))
    return model


def spread_of(name: str, parameter: torch.Tensor) -> float:
    if "embed_tokens.weight" in name:
        return 0.25
    if "_coefs" in name:
        return 0.4
    return 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3


def centre_of(name: str) -> float:
    return 1.0 if "norm" in name or "output_scale" in name else 0.0
