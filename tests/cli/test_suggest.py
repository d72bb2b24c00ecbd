"""Which models are suggested for which machine."""

import json
import os
import sys

import pytest
from command import ONE_THREAD, forked, mmcli

from mmcli.cli.suggest import EXAMPLES, as_text, line_of, size_of
from mmcli.engine.machine import Machine
from mmcli.hub import here as here_module
from mmcli.hub.here import Here
from mmcli.hub.known_models import BY_NAME
from mmcli.models.registry import FAMILIES
from mmcli.models.suggest import best_open, suggest

GB = 10**9
BUNDLED = frozenset(("nano", "whisper-base"))
ONLINE = Here(BUNDLED, online=True, free=70 * GB, place="/cache")
OFFLINE = Here(BUNDLED, online=False, offline_why="the hub cannot be reached", free=70 * GB, place="/cache")
LAPTOP = Machine(cores=2, memory=24 * GB)
SMALL = Machine(cores=2, memory=4 * GB)
DESK = Machine(cores=16, memory=64 * GB, gpu="a GPU", gpu_memory=24 * GB)


def names(task, machine, here, obstacle=""):
    return [one.model.name for one in suggest(task, machine, here) if one.obstacle == obstacle]


def test_on_a_laptop_with_a_network():
    fitting = names("transcribe", LAPTOP, ONLINE)
    assert fitting[0] == "whisper-large-v3-turbo"  # the largest of those that are not slow
    assert fitting.index("whisper-large-v3") > fitting.index("whisper-tiny")  # it would be slow
    by_name = {one.model.name: one for one in suggest("caption", LAPTOP, ONLINE)}
    assert not by_name["paligemma2-3b-mix-448"].obstacle and by_name["paligemma2-3b-mix-448"].slow
    assert not by_name["smolvlm-500m"].slow and by_name["paligemma2-10b-mix-448"].obstacle == "memory"


def test_what_does_more_comes_first_then_the_larger_or_what_is_near_it():
    fitting = names("caption", LAPTOP, ONLINE)
    quick = fitting[: fitting.index("nano") + 1]  # then what is slow
    wanted = ["florence-2-base", "florence-2-large", "smolvlm-500m", "smolvlm2-500m", "smolvlm-256m", "smolvlm2-256m"]
    assert quick == [*wanted, "nano"]
    chatting = [one.model for one in suggest("chat", DESK, ONLINE) if not (one.obstacle or one.slow)]
    turns = ["turns" in model.can for model in chatting]
    assert any(turns) and turns == sorted(turns, reverse=True)  # what forgets the turns comes after what does not
    by_name = [model.name for model in chatting]
    assert by_name.index("smolvlm2-2.2b") < by_name.index("minicpm-v-2") < by_name.index("smolvlm-2.2b")
    suggested = names("transcribe", DESK, ONLINE)
    assert suggested.index("gemma-3n-e4b") > suggested.index("whisper-tiny.en")  # it times no words
    assert suggested[0] == "whisper-large-v3"


def test_without_a_network_only_what_is_here():
    assert names("caption", LAPTOP, OFFLINE) == ["nano"]
    assert "smolvlm-256m" in names("caption", LAPTOP, OFFLINE, "network")
    cached = Here(BUNDLED | {"smolvlm-256m"}, online=False)
    assert names("caption", LAPTOP, cached) == ["smolvlm-256m", "nano"]


def test_in_four_gigabytes():
    assert "smolvlm-500m" in names("chat", SMALL, ONLINE) and "smolvlm-2.2b" in names("chat", SMALL, ONLINE, "memory")
    by_name = {one.model.name: one for one in suggest("transcribe", SMALL, ONLINE)}
    turbo = by_name["whisper-large-v3-turbo"]
    assert turbo.options == "--dtype bfloat16" and not turbo.obstacle  # in float32 it does not fit
    assert line_of(turbo) == "mmcli transcribe talk.mp3 -M whisper-large-v3-turbo --dtype bfloat16"
    assert all(one.needed <= 0.9 * SMALL.memory for one in by_name.values() if not one.obstacle)


def test_what_the_disk_has_no_room_for():
    full = Here(BUNDLED, online=True, free=GB // 2)
    assert names("transcribe", LAPTOP, full, "disk") and "whisper-tiny" in names("transcribe", LAPTOP, full)


def test_with_a_gpu():
    by_name = {one.model.name: one for one in suggest("caption", DESK, ONLINE)}
    assert by_name["paligemma2-3b-mix-448"].options == "" and not by_name["paligemma2-3b-mix-448"].slow
    large = by_name["paligemma2-10b-mix-448"]  # larger than the GPU's memory
    assert large.options == "--device cpu" and large.slow
    # What stays in the file takes no memory: 5.4 billion parameters, two of them in a table.
    table = by_name["gemma-3n-e2b"]
    assert table.needed < 10 * GB


def test_the_best_open_model():
    best = best_open("caption", LAPTOP, ONLINE)
    assert best.model.licence in ("MIT", "Apache-2.0") and not best.model.gated and not best.model.bundled
    [first, *_] = [one for one in suggest("caption", LAPTOP, ONLINE) if not one.model.gated]
    assert best == first and best.model.name == "florence-2-base"
    assert best_open("chat", LAPTOP, ONLINE).model.name == "smolvlm-500m"
    assert best_open("caption", LAPTOP, OFFLINE) is None
    assert best_open("caption", Machine(2, GB), ONLINE) is None


def test_a_model_whose_family_is_not_registered_is_not_suggested(monkeypatch):
    monkeypatch.delitem(FAMILIES, BY_NAME["smolvlm-256m"].type)
    assert not any("smolvlm-" in one.model.name for one in suggest("caption", LAPTOP, ONLINE))


def test_every_line_is_one_that_fits():
    for task in EXAMPLES:
        for one in suggest(task, LAPTOP, ONLINE):
            assert task in one.model.tasks and line_of(one).startswith(f"mmcli {task} ")
    [nano] = [one for one in suggest("caption", LAPTOP, ONLINE) if one.model.bundled]
    assert line_of(nano) == "mmcli caption photo.jpg"


@pytest.mark.parametrize("columns", [60, 100, None])
def test_the_table(columns):
    found = {task: suggest(task, LAPTOP, ONLINE) for task in EXAMPLES}
    text = as_text(LAPTOP, ONLINE, found, columns)
    lines = text.splitlines()
    assert lines[0].startswith("2 cores, 24.0 GB of memory, no GPU, 70.0 GB free in /cache")
    assert [line for line in lines if line in EXAMPLES] == list(EXAMPLES)
    assert "too large for the memory: paligemma2-10b-mix-448" in " ".join(text.split())
    if columns is None:
        [row] = [line for line in lines if "-M smolvlm-500m" in line and "chat" in line]
        assert row.split()[:4] == ["smolvlm-500m", "1.0", "GB", "Apache-2.0"] and " open " in row
        assert any("gated" in line and "paligemma2-3b-mix-448" in line and "slow" in line for line in lines)
    else:
        assert all(len(line) <= columns for line in lines)


def test_the_command_offline_and_pretending(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(here_module, "reachable", None)  # nobody is asked
    done = mmcli("models", "suggest", "--memory", "4GB", "--task", "caption")
    assert (done.code, done.err) == (0, "") and "4.0 GB of memory" in done.out
    assert "the network is forbidden" in done.out and "mmcli caption photo.jpg\n" in done.out
    facts = json.loads(mmcli("models", "suggest", "--memory", "4GB", "--json").out)
    assert facts["machine"]["memory"] == 4 * GB and facts["machine"]["online"] is False
    fitting = {(one["task"], one["name"]) for one in facts["suggestions"] if one["obstacle"] is None}
    assert {("detect", "nano"), ("transcribe", "whisper-base")} <= fitting


def test_a_hub_out_of_reach_is_said_and_no_fault(monkeypatch):
    monkeypatch.setattr(here_module, "reachable", lambda: False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = mmcli("models", "suggest", "--task", "segment")
    assert done.code == 0 and "the hub cannot be reached" in done.out.splitlines()[0]
    assert "not here, and not to be had without the network: " in done.out


@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v that counts")
def test_a_limit_of_address_space_counts(tmp_path):
    code = "from mmcli.engine.memory import memory_limit; import resource; "
    code += f"resource.setrlimit(resource.RLIMIT_AS, ({3 * GB}, {3 * GB})); print(memory_limit())"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(3 * GB), done.stderr


@pytest.mark.parametrize("size", ["much", "", "-4GB", "0", "4 elephants", "nan"])
def test_a_size_that_is_none(size):
    done = mmcli("models", "suggest", "--memory", size)
    assert done.code == 2 and "is no size" in done.err


def test_sizes_and_tasks():
    assert [size_of(text) for text in ("4GB", "4 gb", "1.5G", "800MB", "512", "2GiB")] == [
        4 * GB, 4 * GB, GB * 3 // 2, 800_000_000, 512, 2 * GB,
    ]  # fmt: skip
    assert mmcli("models", "suggest", "--task", "paint").code == 2


def test_the_real_command_in_a_pipe():
    done = forked("models", "suggest", "--offline", variables=os.environ | ONE_THREAD | {"COLUMNS": "40"})
    assert done.code == 0 and "mmcli transcribe talk.mp3" in done.out
