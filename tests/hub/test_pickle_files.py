"""Weights as pickles: whole ones are read to the last bit, hostile ones are refused in one sentence, and never run."""

import argparse
import io
import os
import pickle
import pickletools
import subprocess
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from pickles import Calls, archive, entries, old, saved, system, with_pickle

from mmcli.errors import ModelError
from mmcli.hub.pickle_files import PickleTensors, pickle_header, read_pickle
from mmcli.hub.pickle_scan import scan

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
         torch.uint8, torch.bool)  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    """One of each type, and odd shapes."""
    torch.manual_seed(0)
    table = {str(kind).removeprefix("torch."): (torch.randn(3, 5) * 9).to(kind) for kind in KINDS}
    return table | {"none": torch.empty(0, 4), "number": torch.tensor(2.5)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pytorch_model.bin"


@pytest.mark.parametrize("write", [saved, old], ids=["zip", "old"])
def test_tensors_of_every_type_come_back_bit_by_bit(path, write):
    wanted = tensors()
    path.write_bytes(write(OrderedDict(wanted)))
    found = read_pickle(path)
    assert list(found) == list(wanted) and all(torch.equal(found[name], one) for name, one in wanted.items())
    assert all(found[name].dtype == one.dtype for name, one in wanted.items())
    header = pickle_header(path)
    assert {name: info.shape for name, info in header.items()} == {name: tuple(t.shape) for name, t in wanted.items()}
    assert header["bfloat16"].dtype == "BF16"
    assert scan(path) == ([one.nbytes for one in wanted.values()] if write is saved else None)


@pytest.mark.parametrize("write", [saved, old], ids=["zip", "old"])
def test_shared_numbers_views_and_parameters(path, write):
    table = torch.arange(24.0).view(4, 6)
    wanted = {
        "table": table, "head": table, "turned": table.T, "part": table[1:3, ::2],
        "parameter": torch.nn.Parameter(table.clone()), "still": torch.nn.Parameter(table[0], requires_grad=False),
    }  # fmt: skip
    path.write_bytes(write(wanted))
    found = read_pickle(path)
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
    assert found["table"].data_ptr() == found["head"].data_ptr()
    with PickleTensors(path) as file:
        assert file.get_tensor("turned").is_contiguous() and torch.equal(file.get_tensor("turned"), table.T)
        assert torch.equal(file.get_slice("part")[1], wanted["part"][1])
        assert file.get_slice("part").get_shape() == [2, 3]


def test_the_state_of_a_module_with_its_notes(path):
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    path.write_bytes(saved(module.state_dict()))
    assert read_pickle(path).keys() == module.state_dict().keys()


def test_numbers_are_mapped_from_the_file_and_changes_stay_out_of_it(path):
    path.write_bytes(saved({"a": torch.ones(1000)}))
    read_pickle(path)["a"].fill_(7)
    assert torch.equal(read_pickle(path)["a"], torch.ones(1000))


# -- hostile -----------------------------------------------------------------------------------------------------------

ONES = {"a": torch.ones(4, 4)}


def stretched(data: bytes) -> bytes:
    """A tensor of 2^40 numbers over the four that there are: every step along it is none."""
    return with_pickle(data, lambda inner: inner.replace(b"K\x01K\x04\x86", b"K\x00K\x00\x86"))


def expanded(side: int) -> bytes:
    return saved({"a": torch.ones(1).expand(side, side)})


def overlapping() -> bytes:
    """Two entries that are the same bytes: such archives unfold into far more than they are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, data in (entries(saved(ONES)) | {"archive/data/1": b"x" * 64}).items():
            written.writestr(name, data)
        written.filelist[-1].header_offset = written.filelist[0].header_offset
    return file.getvalue()


def numbers(value: int) -> bytes:
    """The file says that it has so many."""
    data = value.to_bytes(8, "little")
    return with_pickle(saved(ONES), lambda inner: inner.replace(b"K\x10t", b"\x8a\x08" + data + b"t"))


def lying_old(value: int) -> bytes:
    whole = old(ONES)
    assert b"K\x10N" in whole
    return whole.replace(b"K\x10N", b"J" + value.to_bytes(4, "little") + b"N")


def old_with_keys(keys: bytes) -> bytes:
    """The old form with another pickle in place of the last, which lists the tensors behind it."""
    data = old(ONES)
    file = io.BytesIO(data)
    ends = []
    for _ in range(5):
        list(pickletools.genops(file))
        ends.append(file.tell())
    return data[: ends[3]] + keys + data[ends[4] :]


def bomb() -> bytes:
    content = entries(saved({"a": torch.zeros(1 << 20)}))
    return archive(content, zipfile.ZIP_DEFLATED)


def twice(data: bytes) -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as written:
            written.writestr(written.namelist()[0], pickle.dumps({}))
        return file.getvalue()


HOSTILE = {
    # code
    "a command": (lambda run: system(run), "holds code: it names '(posix|nt).system'"),
    "a command, protocol 0": (lambda run: system(run, 0), "holds code: it names '(posix|nt).system'"),
    "a command, protocol 4": (lambda run: system(run, 4), "holds code: it names '(posix|nt).system'"),
    "a command among tensors": (
        lambda run: saved(ONES | {"b": Calls(os.system, run)}), "holds code: it names '(posix|nt).system'"),
    "a command in the old form": (
        lambda run: old(ONES | {"b": Calls(os.system, run)}), "holds code: it names '(posix|nt).system'"),
    "a command deep below": (
        lambda run: saved({"a": [{"b": ({"c": Calls(os.system, run)},)}]}), "holds code"),
    "a command in front of tensors": (
        lambda run: with_pickle(saved(ONES), lambda inner: system(run)[:-1] + b"0" + inner), "holds code"),
    "a command in place of the mark": (lambda run: system(run) + old(ONES), "holds code"),
    "a command as the list of keys": (lambda run: old_with_keys(system(run)), "holds code"),
    "text that is evaluated": (lambda run: saved({"a": Calls(eval, "1")}), "holds code: it names '__builtin__.eval'"),
    "a shell": (lambda run: saved({"a": Calls(subprocess.Popen, run)}), "holds code: it names '.*.Popen'"),
    "a partial": (lambda run: saved({"a": partial(os.system, run)}), "it names 'functools.partial'"),
    "a download": (lambda run: saved({"a": Calls(torch.hub.load, "x", "y")}), "it names 'torch.hub.load'"),
    "another load": (lambda run: saved({"a": Calls(torch.load, "x")}), "holds code: it names 'torch.serialization"
                     "|holds more than plain tensors: it names 'torch.serialization.load'"),
    "a class of old": (lambda run: b"\x80\x02(iposix\nsystem\n.", "holds code: it names 'posix.system'"),
    "an extension": (lambda run: b"\x80\x02\x82\x01.", "holds code: it names 'the extension 1'"),
    # more than tensors
    "a number": (lambda run: saved({"a": 3}), "holds more than tensors by their names: 'a' is a int"),
    "settings": (lambda run: saved({"a": argparse.Namespace()}), "names 'argparse.Namespace'"),
    "a training state": (lambda run: saved({"state_dict": ONES, "epoch": 3}), "'state_dict' is a dict"),
    "an array": (lambda run: saved({"a": np.ones(3)}), "holds more than plain tensors: it names 'numpy"),
    "a list": (lambda run: saved([torch.ones(2)]), "holds no table of tensors"),
    "nothing": (lambda run: saved({}), "holds no table of tensors"),
    "a name that is a number": (lambda run: saved({3: torch.ones(2)}), "holds more than tensors by their names"),
    "a sparse tensor": (lambda run: saved({"a": torch.ones(2, 2).to_sparse()}), "more than plain tensors"),
    "a complex tensor": (lambda run: saved({"a": torch.ones(2, dtype=torch.complex64)}), "ComplexFloatStorage"),
    "a module": (lambda run: saved(torch.nn.Linear(2, 2)), "holds code: it names 'torch.nn.modules.linear.Linear'"),
    # damage
    "empty": (lambda run: b"", "damaged: it is cut off, or no file of PyTorch's weights"),
    "words": (lambda run: b"these are no weights", "damaged"),
    "a pickle of something": (lambda run: pickle.dumps({"a": 1}), "is a pickle, but not one of PyTorch's weights"),
    "half": (lambda run: saved({"a": torch.ones(4000)})[:9000], "damaged: it is cut off"),
    "half in the old form": (lambda run: old({"a": torch.ones(4000)})[:9000], "damaged"),
    "a cut pickle in the old form": (lambda run: old(ONES)[:150], "damaged: it is cut off"),
    "a pointer": (lambda run: b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    "a page": (lambda run: b"<!doctype html><title>no</title>", "a web page"),
    "a program of PyTorch": (
        lambda run: archive({"m/data.pkl": b"N.", "m/code/__torch__.py": b""}), "holds a program"),
    "another archive": (lambda run: archive({"a": b"b"}), "without data.pkl"),
    "a record that is gone": (
        lambda run: archive({n: d for n, d in entries(saved(ONES)).items() if "/data/" not in n}), "damaged"),
    "a record that is short": (
        lambda run: archive({n: d[:8] if "/data/" in n else d for n, d in entries(saved(ONES)).items()}),
        "more or fewer than it says"),
    "a pickle that is short": (lambda run: with_pickle(saved(ONES), lambda inner: inner[:-9]), "damaged"),
    "steps of nonsense": (lambda run: with_pickle(saved(ONES), lambda inner: b"\x80\x02\xff."), "damaged"),
    "a hole in the memo": (lambda run: with_pickle(saved(ONES), lambda inner: b"\x80\x02h\x09."), "damaged"),
    # bombs
    "a compressed archive": (lambda run: bomb(), "unfolds into more than it is"),
    "compressed a little": (
        lambda run: archive(entries(saved(ONES)) | {"x": os.urandom(99)}, zipfile.ZIP_DEFLATED),
        "compressed|unfolds"),
    "an entry twice": (lambda run: twice(saved(ONES)), "twice there or overlap|unfolds"),
    "endless numbers": (lambda run: numbers(1 << 50), "speaks of 1125899906842624 numbers"),
    "a few numbers too many": (lambda run: numbers(17), "damaged"),
    "endless numbers in the old form": (lambda run: lying_old(1 << 30), "speaks of 1073741824 numbers"),
    "one number as a million times a million": (lambda run: expanded(1 << 20), "speaks of 1048576 numbers"),
    "one number as nine times nine": (lambda run: expanded(9), "larger than its numbers in the file"),
    "entries that overlap": (lambda run: overlapping(), "twice there or overlap"),
    "a row of stacks": (
        lambda run: with_pickle(saved(ONES), lambda inner: b"\x80\x02" + b"(" * 20_000 + b"."), "damaged"),
    "lists within lists": (
        lambda run: with_pickle(saved(ONES), lambda inner: b"\x80\x02" + b"]" * 9_999 + b"a" * 9_998 + b"."),
        "holds no table"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_one_sentence_and_nothing_of_them_runs(path, make, message, monkeypatch):
    ran = path.with_name("ran")
    path.write_bytes(make(f"touch {ran}"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for read in (read_pickle, pickle_header):
        with pytest.raises(ModelError, match=message) as raised:
            read(path)
        text = str(raised.value)
        assert str(path) in text and "\n" not in text and len(text) < 700 and raised.value.exit_code == 3
    assert not ran.exists()


def test_a_stretched_tensor_is_found_by_pytorchs_own_numbers(path):
    """16 numbers with steps of none between them: as many as there are places, and so within the file."""
    path.write_bytes(stretched(saved(ONES)))
    found = read_pickle(path)["a"]
    assert found.shape == (4, 4) and found.nbytes == 64


def test_what_pytorch_refuses_by_itself_is_a_sentence_too(path, monkeypatch):
    """The restricted unpickler stands behind the look at the instructions."""
    monkeypatch.setattr("mmcli.hub.pickle_files.scan", lambda path: [])
    ran = path.with_name("ran")
    path.write_bytes(saved(ONES | {"b": Calls(os.system, f"touch {ran}")}))
    with pytest.raises(ModelError, match="is damaged: Weights only load failed"):
        read_pickle(path)
    assert not ran.exists()


def test_a_program_has_an_end(path, monkeypatch):
    monkeypatch.setattr("mmcli.hub.pickle_scan.MOST_STEPS", 1000)
    path.write_bytes(with_pickle(saved(ONES), lambda inner: b"\x80\x02" + b"N0" * 501 + inner))
    with pytest.raises(ModelError, match="more than 1000 steps"):
        read_pickle(path)
    monkeypatch.setattr("mmcli.hub.pickle_scan.LARGEST_PICKLE", 1000)
    with pytest.raises(ModelError, match="its data.pkl is larger"):
        read_pickle(path)


def test_no_memory_is_not_called_damage(path, monkeypatch):
    path.write_bytes(saved(ONES))

    def load(*given, **settings):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        read_pickle(path)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ModelError, match="is no file"):
        read_pickle(tmp_path / "pytorch_model.bin")
    os.mkfifo(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="is no file"):
        read_pickle(tmp_path / "pytorch_model.bin")
