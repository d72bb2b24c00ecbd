import copy
import json

import pytest
import torch
from command import mmcli

from mmcli.cli.doctor import CHECK_TOKENS, CHECKED, check_image, devices, forced_logits
from mmcli.hub.known import IMAGE_MODEL
from mmcli.hub.layout import BUNDLED

BUNDLED_YET = (BUNDLED["nano"] / "model.safetensors").exists()
needs_nano = pytest.mark.skipif(not BUNDLED_YET, reason="the model is not bundled yet")


@pytest.fixture(scope="module")
def inputs(loaded):
    return loaded.processor.inputs([[check_image()]], ["caption en"])


def test_the_same_model_gives_the_same_logits_for_forced_tokens(loaded, inputs):
    wanted, tokens = forced_logits(loaded.model, inputs, None)
    got, _ = forced_logits(loaded.model, inputs, tokens)
    assert len(tokens) == CHECK_TOKENS and wanted.shape[0] == CHECK_TOKENS
    torch.testing.assert_close(got, wanted)
    assert tokens == wanted.argmax(-1).tolist()


def test_a_wrong_weight_shows(loaded, inputs):
    wanted, tokens = forced_logits(loaded.model, inputs, None)
    broken = copy.deepcopy(loaded.model)
    with torch.no_grad():
        broken.decoder.layers[1].mlp.up.weight[0] += 1
    got, _ = forced_logits(broken, inputs, tokens)
    allowed = torch.isfinite(wanted)
    assert (got[allowed] - wanted[allowed]).abs().max() > 0.05


def test_the_cpu_is_always_there():
    first = devices()[0]
    assert first["device"] == "cpu" and first["memory"] > 1e8 and first["dtype"] in ("float32", "bfloat16")
    assert not first["kernels"]


@pytest.fixture(scope="module")
def facts():
    done = mmcli("doctor", "--device", "cpu", "--json")
    assert done.code == 0, done
    return json.loads(done.out)


@needs_nano
def test_doctor_finds_this_machine_well(facts):
    assert facts["missing"] == [] and facts["check"]["ok"]
    assert facts["check"]["tokens_agree"] == facts["check"]["tokens"] == CHECK_TOKENS
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0]


@needs_nano
def test_doctor_holds_bfloat16_against_float32(monkeypatch):
    monkeypatch.setattr("mmcli.cli.doctor.CHECKED", {"check": IMAGE_MODEL})
    done = mmcli("doctor", "--device", "cpu", "--dtype", "bfloat16", "--json")
    check = json.loads(done.out)["check"]
    assert done.code == 0 and check["dtype"] == "bfloat16" and check["ok"] and check["largest_difference"] > 0


@needs_nano
def test_doctor_tells_people(facts, monkeypatch):
    found = {model: facts[check] for check, model in CHECKED.items()}
    monkeypatch.setattr("mmcli.cli.doctor.self_check", lambda model, *more: found[model])  # it was just made
    text = mmcli("doctor", "--device", "cpu").out
    assert "self-check: ok" in text and "\ntorch " in text and "\ncpu " in text
