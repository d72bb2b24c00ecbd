"""How far a change moves the distribution of tokens is foretold, and what is put back in int8 is what wins most."""

import pytest
import torch

from mmcli.hub.quantized import GROUP, multiplied
from mmcli.models.stacks import StackConfig
from mmcli.models.whisper.config import WhisperConfig
from mmcli.models.whisper.model import Whisper
from mmcli.training.recipes.whisper.sensitivity import bytes_more, chosen, divergences, logits_behind, mended

CONFIG = WhisperConfig(40, 8, 32, 10, 16, StackConfig(1, 1, 48), StackConfig(2, 2, 48), start=38, end=39)


@pytest.fixture
def whisper() -> Whisper:
    torch.manual_seed(0)
    model = Whisper(CONFIG).eval().requires_grad_(False)
    model.decoder.embedding.weight.mul_(0.2)  # or every token is sure, and the others are never drawn
    return model


@pytest.mark.parametrize("matrix", ["encoder.layers.0.mlp.down", "decoder.layers.1.cross.v", "decoder.layers.0.mlp.up"])
def test_the_divergence_is_that_which_the_change_causes(whisper, matrix):
    changes = {matrix: {f"{matrix}.{part}": torch.randn_like(whisper.get_parameter(f"{matrix}.{part}")) * 0.03
                        for part in ("weight", "bias")}}  # fmt: skip
    speech = [(torch.randn(1, 8, 20), [38, *torch.randint(38, (14,)).tolist()]) for _ in range(150)]
    foretold = divergences(whisper, changes, speech)[matrix]
    before = [logits_behind(whisper, *one)[2:-1].log_softmax(-1) for one in speech]
    for name, moved in changes[matrix].items():
        whisper.get_parameter(name).add_(moved)
    after = [logits_behind(whisper, *one)[2:-1].log_softmax(-1) for one in speech]
    caused = [(p.exp() * (p - q)).sum(-1).mean() for p, q in zip(before, after, strict=True)]
    assert foretold == pytest.approx(float(torch.stack(caused).mean()), rel=0.3)


def test_names_are_taken_by_what_they_win_a_byte_within_the_budget():
    worth, costs = {"a": 4.0, "b": 3.0, "c": 1.0}, {"a": 40, "b": 10, "c": 5}
    assert chosen(worth, costs, 100) == ["b", "c", "a"]
    assert chosen(worth, costs, 20) == ["b", "c"] and chosen(worth, costs, 4) == []


def test_a_matrix_put_back_is_that_of_the_exact_checkpoint():
    exact = {"x.weight": torch.randn(6, 2 * GROUP).half(), "x.bias": torch.randn(6).half(), "y.bias": torch.ones(2)}
    packed = {"x.weight": torch.zeros(6, GROUP, dtype=torch.uint8), "x.weight_scale": torch.ones(6, 2).half(),
              "x.bias": torch.zeros(6).half(), "y.bias": torch.zeros(2)}  # fmt: skip
    found = mended(exact, packed, ["x.weight"])
    wanted = exact["x.weight"].float()
    off = (multiplied(found["x.weight"], found["x.weight_scale"]) - wanted).abs().amax(dim=1)
    assert (off <= 0.01 * wanted.abs().amax(dim=1)).all()
    assert torch.equal(found["x.bias"], exact["x.bias"]) and torch.equal(found["y.bias"], packed["y.bias"])
    grown = sum(found[name].nbytes - packed[name].nbytes for name in found)
    assert grown == bytes_more(exact["x.weight"], packed["x.weight"], packed["x.weight_scale"])
