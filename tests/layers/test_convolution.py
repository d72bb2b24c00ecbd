"""Convolutions with their activation in one pass: the numbers of the two one after the other."""

import platform
import threading

import pytest
import torch

from mmcli.layers.convolution import FUSED, ActivatedConv, PackedConv, pack_convolutions, packed_convolutions_work

needs_packing = pytest.mark.skipif(not packed_convolutions_work(torch.float32), reason="this PyTorch cannot")


def maps(*shape: int) -> torch.Tensor:
    return (3 * torch.randn(*shape)).to(memory_format=torch.channels_last)


def test_it_works_where_it_is_meant_to():
    known = platform.machine() == "x86_64" and torch.backends.mkldnn.is_available()
    assert packed_convolutions_work(torch.float32) or not known


@needs_packing
@pytest.mark.parametrize("activation", FUSED)
@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "margin"),
    [(1, 1, 1, None), (3, 1, 16, None), (5, 2, 16, (1, 2, 1, 2)), (3, 2, 1, (0, 1, 0, 1)), (5, 2, 1, None)],
)
@torch.inference_mode()
def test_it_computes_what_both_do_one_after_the_other(activation, kernel, stride, groups, margin):
    torch.manual_seed(0)
    conv = ActivatedConv(16, 32, kernel, stride, groups, activation, margin)
    packed, x = PackedConv(conv, torch.float32), maps(1, 16, 12, 10)
    torch.testing.assert_close(packed(x), conv(x), rtol=1e-5, atol=1e-5)
    wider = maps(2, 16, 20, 14)  # than those for which weights were packed
    torch.testing.assert_close(packed(wider), conv(wider), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not packed_convolutions_work(torch.bfloat16), reason="this PyTorch cannot")
@torch.inference_mode()
def test_in_bfloat16_it_rounds_and_nothing_else():
    torch.manual_seed(0)
    conv, x = ActivatedConv(16, 32, 3, activation="hardswish"), maps(1, 16, 12, 10)
    y = PackedConv(conv, torch.bfloat16)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x), rtol=0.02, atol=0.02)


@needs_packing
@torch.inference_mode()
def test_threads_that_bring_the_first_map_together_get_the_same():
    conv, x = ActivatedConv(16, 32, 3), maps(1, 16, 12, 10)
    packed, start, results = PackedConv(conv, torch.float32), threading.Barrier(4), []

    def work() -> None:
        start.wait()
        with torch.inference_mode():
            results.append(packed(x))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(torch.equal(result, results[0]) for result in results)


@needs_packing
def test_only_its_own_kind_is_packed():
    parts = torch.nn.Sequential(ActivatedConv(4, 4), torch.nn.Conv2d(4, 4, 1), torch.nn.Sequential(ActivatedConv(4, 4)))
    pack_convolutions(parts, torch.float32)
    assert [type(part) for part in (parts[0], parts[1], parts[2][0])] == [PackedConv, torch.nn.Conv2d, PackedConv]
