"""Which device and type are chosen, and what is said where one is not there."""

import pytest
import torch

from mmcli.engine.device import bfloat16_pays, choose_device, choose_dtype, has_tiles, int8_pays, sent_together
from mmcli.errors import UsageError

CPU = torch.device("cpu")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_auto_finds_a_device_that_works():
    assert torch.ones(2, device=choose_device("auto")).sum() == 2


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", "cuda:99", ""])
def test_devices_that_are_not_there_are_usage_errors(name):
    with pytest.raises(UsageError):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_asking_for_cuda_without_cuda_names_the_way_out():
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("shapes", [[], [(3, 4)], [(3, 4)] * 5, [(3, 4), (2, 4), (3, 4)]])
def test_tensors_that_go_together_arrive_as_they_are(shapes, device):
    tensors = [torch.randn(shape) for shape in shapes]
    there = sent_together(tensors, torch.device(device), torch.bfloat16)
    assert [one.device.type for one in there] == [device] * len(shapes)
    for one, other in zip(there, tensors, strict=True):
        assert torch.equal(one.cpu(), other.to(torch.bfloat16))


def test_types_by_name():
    assert choose_dtype("float16", CPU) is torch.float16
    with pytest.raises(UsageError, match="bfloat16"):
        choose_dtype("half", CPU)


def test_small_models_stay_in_float32():
    assert choose_dtype("auto", CPU, parameters=10_000_000) is torch.float32


@pytest.mark.parametrize(("parameters", "dtype"), [((1 << 28) - 1, torch.float32), (1 << 28, torch.bfloat16)])
def test_small_is_what_takes_less_than_a_gibibyte_in_float32(monkeypatch, parameters, dtype):
    """Where the CPU multiplies bfloat16 natively, that is: this one may not."""
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)
    assert choose_dtype("auto", CPU, parameters) is dtype


def test_a_named_type_wins_over_the_size():
    assert choose_dtype("bfloat16", CPU, parameters=10) is torch.bfloat16


def test_auto_on_metal_is_float32():
    assert choose_dtype("auto", torch.device("mps")) is torch.float32


@pytest.mark.parametrize(("switch", "native"), [(None, True), ("1", True), ("0", False)])
def test_a_variable_turns_off_what_not_all_cpus_have(monkeypatch, switch, native):
    for probe in ("_is_avx512_bf16_supported", "_is_vnni_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: True, raising=False)
    monkeypatch.delenv("MMCLI_CPU_NATIVE", raising=False)
    if switch is not None:
        monkeypatch.setenv("MMCLI_CPU_NATIVE", switch)
    assert bfloat16_pays() is int8_pays() is has_tiles() is native
