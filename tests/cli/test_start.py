import torch
from command import environment

from mmcli.cli import start
from mmcli.cli.options import ModelOptions
from mmcli.hub.resolve import resolve


def test_a_model_larger_than_the_machine_is_announced(tiny, monkeypatch):
    monkeypatch.setattr(start, "memory_of", lambda device: 500_000)
    streams = environment()
    start.report_size(streams, resolve(str(tiny)), torch.device("cpu"), ModelOptions())
    assert "need 685 kB as float32, but cpu has 500 kB in all" in streams.stderr.getvalue()


def test_the_size_is_told_in_the_type_that_will_be_used(tiny):
    streams = environment(stderr_tty=True)
    start.report_size(streams, resolve(str(tiny)), torch.device("cpu"), ModelOptions(dtype="bfloat16"))
    assert streams.stderr.getvalue() == f"loading {tiny} on cpu as bfloat16: 342 kB\n"


def test_the_loader_loads_as_asked(tiny):
    loaded = start.loader(environment(), ModelOptions(model=str(tiny), device="cpu", dtype="bfloat16"))()
    assert loaded.dtype == torch.bfloat16 and loaded.device.type == "cpu"
