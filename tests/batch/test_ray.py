"""A Ray cluster: how many workers it has room for, what is said where there is none, and a real one of two nodes."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from command import mmcli
from fragile import CHOICE, Fragile, texts

from mmcli.batch import ray_cluster, ray_engine
from mmcli.batch.manifest import read_records
from mmcli.batch.ray_cluster import Plan, check_address, missing_package, plan
from mmcli.errors import MachineError, UsageError

GB = 1 << 30
EXAMPLES = Path(__file__).parents[2] / "examples"


def node(cpu, memory, gpu=0):
    return {"CPU": cpu, "memory": memory * GB} | ({"GPU": gpu} if gpu else {})


@pytest.mark.parametrize(
    ("nodes", "device", "memory", "workers", "expected"),
    [
        ([node(1, 4), node(1, 4)], "auto", 2, None, Plan(2, 1)),
        ([node(16, 64), node(16, 64)], "auto", 2, None, Plan(32, 1)),
        ([node(16, 10), node(16, 10)], "auto", 4, None, Plan(4, 8)),  # memory for two on each
        ([node(16, 64), node(4, 1)], "cpu", 2, None, Plan(16, 1)),
        ([node(8, 64)], "auto", 2, 3, Plan(3, 2)),
        ([node(1, 4)], "auto", 2, 4, Plan(4, 1)),  # three wait until the cluster grows
        ([node(8, 64, gpu=4), node(8, 64)], "auto", 2, None, Plan(4, 1, 1.0)),
        ([node(8, 64, gpu=2)], "cuda", 2, 4, Plan(4, 1, 0.5)),
        ([node(8, 64, gpu=2)], "cpu", 16, None, Plan(4, 2)),
    ],
)
def test_workers_fill_the_cluster(nodes, device, memory, workers, expected):
    assert plan(nodes, device, memory * GB, workers) == expected


def test_a_cluster_without_room_is_told():
    with pytest.raises(MachineError, match="has a core and 8.6 GB"):
        plan([node(4, 2), node(0, 64)], "auto", 8 * GB)
    with pytest.raises(UsageError, match="has a GPU"):
        plan([node(4, 64)], "cuda", GB)


@pytest.mark.parametrize(
    "address", ["", "localhost", "ray://head:10001", "http://head:80", "head:0", "head:70000", "a b:1"]
)
def test_what_is_no_address_is_told(address):
    with pytest.raises(UsageError, match="--address"):
        check_address(address)


@pytest.mark.parametrize("address", ["auto", "head:6379", "192.0.2.1:6379", "[::1]:6379"])
def test_addresses(address):
    check_address(address)


def test_ray_that_is_missing_is_told(album, monkeypatch):
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: None)
    done = mmcli("caption", "album", "--engine", "ray")
    assert (
        done.code == 2 and "--engine ray needs the extra package ray. Install it: pip install 'mmcli[ray]'" in done.err
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "ray", "--devices", "cpu"], "--devices is for this machine alone"),
        (["--address", "auto"], "--address is for a cluster"),
        (["--workers", 2], "--workers is for a cluster"),
        (["--devices", "cpu", "--device", "cpu"], "--device and --devices contradict each other"),
        (["--engine", "ray", "--device", "cuda:1"], "--device cuda:1 is one GPU of this machine"),
        (["--engine", "ray", "--every", "1s"], "Videos are not shared out to workers"),
        (["--engine", "spark"], "'spark' is none of local, ray"),
        (["--devices", ","], "--devices ',' names no devices"),
        (["--devices", "cpu,tpu"], "There is no device 'tpu'"),
    ],
)
def test_options_that_do_not_go_together(album, options, said):
    done = mmcli("caption", "album", *options)
    assert done.code == 2 and said in done.err, done.err


needs_ray = pytest.mark.skipif(missing_package() is not None, reason="the extra mmcli[ray] is not installed")


@needs_ray
def test_where_nothing_answers_that_is_told(album, monkeypatch):
    monkeypatch.setattr(ray_cluster, "BUSY", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = mmcli("caption", "album", "--engine", "ray", "--address", address)
    assert done.code == 4 and f"No Ray cluster answers at {address}" in done.err
    closed = mmcli("caption", "album", "--engine", "ray", "--address", address)
    assert closed.code == 4 and f"No Ray cluster answers at {address}" in closed.err


@pytest.fixture(scope="module")
def cluster():
    """The address of a cluster of two nodes with a core each, on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # where workers find what the tests send them
        from ray.cluster_utils import Cluster

        each = {"num_cpus": 1, "object_store_memory": 80 << 20}
        nodes = Cluster(initialize_head=True, head_node_args=each | {"include_dashboard": False})
        try:
            nodes.add_node(**each)
            yield nodes.address
        finally:
            nodes.shutdown()


@needs_ray
def test_workers_that_die_lose_nothing(tmp_path, monkeypatch, cluster):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_engine, "RETRIES", 1)
    found = texts(tmp_path, 15)
    work = Fragile(CHOICE, once="03.txt", always="11.txt")
    answers = sorted(ray_engine.run(work, found, address=cluster), key=lambda answer: answer[0])
    assert [number for number, _ in answers] == list(range(16))
    said = [outcome.record.error or outcome.record.text for _, outcome in answers]
    why = "every process that worked on it ended before it could answer"
    dead = f"11.txt cannot be read: {why}. Try it alone, with --debug."
    good = [f"this is {number:02}.txt" for number in range(15)]
    assert said[:15] == [*good[:11], dead, *good[12:]] and "nowhere.txt does not exist" in said[15]


def results(folder):
    """The files of a folder and the records of its manifest, without times."""
    records = [record | {"timings": None} for record in read_records(Path(folder))]
    files = {path.relative_to(folder): path.read_text() for path in Path(folder).rglob("*.jsonl")}
    return records, {name: json.loads(text) | {"timings": None} for name, text in files.items()}


@needs_ray
def test_a_folder_is_done_as_it_is_here(tmp_path, monkeypatch, cluster):
    monkeypatch.chdir(tmp_path)
    Path("photos/sub").mkdir(parents=True)
    for source, name in (("cat.jpg", "a.jpg"), ("astronaut.jpg", "sub/b.jpg"), ("tower.jpg", "c.jpg")):
        shutil.copy(EXAMPLES / source, Path("photos", name))
    Path("photos/d.jpg").write_bytes(b"no picture")
    command = ("segment", "cat ; person", "photos", "--format", "jsonl", "--batch-size", 1)
    here = mmcli(*command, "-o", "here/")
    there = mmcli(*command, "-o", "there/", "--engine", "ray", "--address", cluster)
    assert (there.code, there.out) == (here.code, here.out) == (1, "")
    assert "photos/d.jpg is text" in there.err and "3 pictures done" in there.err and "1 failed" in there.err
    assert len(there.err.splitlines()) == 2, there.err
    assert results("there") == results("here") and len(results("there")[1]) == 3
    assert "0 pictures done, 3 done before, 1 failed before" in mmcli(*command, "-o", "there/").err
