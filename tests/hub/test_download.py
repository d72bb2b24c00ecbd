"""Downloading, listing, verifying and removing, against a hub that runs on this machine."""

import json
import re
from pathlib import Path

import pytest
import torch
from command import PATIENCE
from hub_server import COMMIT, hub, run_python
from pickles import saved
from safetensors.torch import save

from mmcli.hub.layout import BUNDLED
from mmcli.hub.resolve import pinned_revision

TESTS = Path(__file__).parents[1]

NAME = "someone/model"
FILES = {
    "config.json": b'{"model_type": "paligemma"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": save({"x": torch.arange(6.0)}),
    "README.md": b"not needed",
    "modeling.py": b"never to be fetched",
    "pytorch_model.bin": b"never to be fetched",
}
WANTED = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]

SHOW = """
import json
import re
from mmcli.errors import MmcliError
from mmcli.hub.resolve import resolve
from mmcli.hub import cache, download, verify
def attempt(call):
    try:
        return call()
    except MmcliError as error:
        return f"{type(error).__name__}: {error}"
def show(value):
    print(json.dumps(value, default=str))
"""


def run(code: str, home, endpoint: str, **environment: str) -> list:
    return [json.loads(line) for line in run_python(SHOW + code, home, endpoint, **environment).splitlines()]


def test_a_model_is_planned_fetched_found_again_verified_and_removed(tmp_path):
    with hub({NAME: FILES}) as (endpoint, asked):
        code = f"""
plan = download.plan({NAME!r})
show([plan.files, plan.size, plan.revision])
found = resolve({NAME!r})
show([sorted(path.name for path in found.folder.iterdir()), found.revision, found.config, found.name])
show([[m.name, m.revision, m.references, m.size] for m in cache.cached_models()])
show([[f.file.name, f.problem, f.checked] for f in verify.verify({NAME!r})])
"""
        planned, found, listed, verified = run(code, tmp_path, endpoint)
        sizes = {name: len(FILES[name]) for name in WANTED}
        assert planned == [sizes, sum(sizes.values()), COMMIT]
        assert found == [WANTED, COMMIT, {"model_type": "paligemma"}, NAME]
        assert [listed[0][0], listed[0][1], listed[0][2]] == [NAME, COMMIT, ["main"]]
        assert verified == [
            ["chat_template.jinja", "", "git-sha1"],
            ["config.json", "", "git-sha1"],
            ["model.safetensors", "", "sha256"],
            ["tokenizer.json", "", "git-sha1"],
        ]
        assert not any(path.endswith((".py", ".bin", ".md")) for path in asked)

        before = len(asked)
        again = f"show(resolve({NAME!r}).revision); show(resolve({NAME!r}, 'main').revision)"
        assert run(again, tmp_path, endpoint) == [COMMIT, COMMIT]
        assert len(asked) == before, "what is in the cache is not asked for"

    weights = next((tmp_path / "hub").rglob("model.safetensors")).resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code = f"""
show([[f.file.name, f.problem] for f in verify.verify({NAME!r}) if f.problem])
show(cache.remove({NAME!r}) > 0)
show(attempt(lambda: verify.verify({NAME!r})))
show(cache.cached_models())
"""
    damaged, removed, gone, left = run(code, tmp_path, "http://127.0.0.1:9")
    assert damaged[0][0] == "model.safetensors" and "sha256" in damaged[0][1]
    assert removed is True and "not in the cache" in gone and left == []


@pytest.mark.parametrize("sharded", [False, True])
def test_pickles_are_fetched_only_where_there_is_nothing_else(tmp_path, sharded):
    shards = {f"pytorch_model-{number:05}-of-00002.bin": saved({f"x{number}": torch.ones(3)}) for number in (1, 2)}
    index = {"weight_map": {f"x{number}": name for number, name in enumerate(shards, start=1)}}
    files = {key: FILES[key] for key in ("config.json", "tokenizer.json", "modeling.py")} | shards
    files |= {"pytorch_model.bin.index.json": json.dumps(index).encode(), "training_args.bin": b"x", "old.pt": b"x"}
    files |= {} if sharded else {"pytorch_model.bin": saved({"x": torch.ones(6)})}
    wanted = {*shards} if sharded else {"pytorch_model.bin"}
    with hub({NAME: files}) as (endpoint, asked):
        code = f"""
plan = download.plan({NAME!r})
show([sorted(plan.files), plan.weights])
show(sorted(path.name for path in download.fetch({NAME!r}, weights=False).iterdir()))
found = resolve({NAME!r})
show([sorted(path.name for path in found.folder.iterdir()), found.note])
show([[f.file.name, f.problem, f.checked] for f in verify.verify({NAME!r})])
"""
        (planned, size), small, (there, note), verified = run(code, tmp_path, endpoint)
    kept = {"config.json", "tokenizer.json", "pytorch_model.bin.index.json"}
    assert set(planned) == set(there) == kept | wanted and set(small) == kept
    assert size == sum(len(files[name]) for name in wanted)
    assert f"mmcli models convert {NAME} -o FOLDER" in note
    assert {name: problem for name, problem, _ in verified} == dict.fromkeys(kept | wanted, "")
    assert not any(path.endswith((".py", "args.bin", ".pt")) for path in asked)


def test_an_incomplete_model_in_the_cache_is_completed(tmp_path):
    with hub({NAME: FILES}) as (endpoint, _):
        run(f"resolve({NAME!r})", tmp_path, endpoint)
        weights = next((tmp_path / "hub").rglob("model.safetensors"))
        weights.resolve().unlink()
        weights.unlink()
        assert run(f"show((resolve({NAME!r}).folder / 'model.safetensors').exists())", tmp_path, endpoint) == [True]


def test_what_the_hub_refuses_is_said_with_the_way_out(tmp_path):
    repositories = {
        "google/gated": "GatedRepo",
        NAME: FILES,
        "old/pickle": {"config.json": b"{}", "model.pt": b"x"},
        "no/weights": {"README.md": b"x"},
    }
    with hub(repositories) as (endpoint, _):
        code = f"""
for name, revision in [("google/gated", None), ("someone/absent", None), ({NAME!r}, "v9"),
                       ("old/pickle", None), ("no/weights", None)]:
    show(attempt(lambda: resolve(name, revision)))
"""
        gated, absent, revision, pickle, empty = run(code, tmp_path, endpoint)
    assert all(text.startswith("ModelError: ") for text in (gated, absent, revision, pickle, empty))
    assert "https://huggingface.co/google/gated" in gated and "licence" in gated
    assert "hf auth login" in gated and "HF_TOKEN" in gated
    assert "someone/absent" in absent and "hf auth login" in absent
    assert "no revision v9" in revision
    assert "only in a form that mmcli does not read" in pickle
    assert "no safetensors" in empty


@pytest.mark.parametrize(
    "environment, message",
    [({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids"), ({}, "the hub cannot be reached")],
)
def test_without_network_it_says_so(tmp_path, environment, message):
    code = f"show(attempt(lambda: resolve({NAME!r}))); show(attempt(lambda: resolve({NAME!r}, download=False)))"
    offline, undesired = run(code, tmp_path, "http://127.0.0.1:9", **environment)
    assert offline.startswith(f"ModelError: {NAME} is no folder here and not in the cache") and message in offline
    assert f"mmcli models pull {NAME}" in undesired


def test_a_short_name_is_that_of_a_model_on_the_hub(tmp_path):
    code = "show(attempt(lambda: resolve('whisper-small.en')))"
    [absent] = run(code, tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "openai/whisper-small.en" in absent and f"(bundled: {', '.join(BUNDLED)})" in absent
    with hub({"openai/whisper-small.en": FILES}) as (endpoint, _):
        code = "found = resolve('whisper-small.en'); show(found.name); show(found.revision)"
        found, revision = run(code, tmp_path, endpoint)
        code = """
from command import mmcli
show(mmcli("models", "verify", "whisper-small.en").out.count("sound"))
show(mmcli("models", "remove", "--yes", "whisper-small.en").code)
show(cache.cached_models())
"""
        assert (found, revision) == ("openai/whisper-small.en", pinned_revision("whisper-small.en"))
        assert run(f"import sys; sys.path.insert(0, {str(TESTS)!r})" + code, tmp_path, endpoint) == [4, 0, []]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(tmp_path):
    ranges, content = [], bytes(range(256)) * (24 << 12)  # what is kept of it are blocks of 10 MB
    with hub({NAME: FILES | {"model.safetensors": content}}, {"model.safetensors": 1}, ranges) as (endpoint, _):
        run(f"download.fetch({NAME!r})", tmp_path, endpoint)
    (weights,) = (tmp_path / "hub").rglob("model.safetensors")
    assert weights.read_bytes() == content
    first, second = [start for file, start in ranges if file == "model.safetensors"]
    assert first == 0 < second


@pytest.mark.parametrize(
    "refusal, message",
    [
        ("BadToken", r"refused someone/model \(.*401.*Log in again"),
        ("403", "403.*Ask for access at https://huggingface.co/someone/model"),
        ("429", "too many requests"),
        ("500", "500.*Try again later"),
    ],
)
def test_what_a_refusal_means(tmp_path, refusal, message):
    with hub({NAME: refusal}) as (endpoint, _):
        (said,) = run(f"show(attempt(lambda: resolve({NAME!r})))", tmp_path, endpoint)
    assert re.search(f"^ModelError: .*{message}", said)


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"HTTP_PROXY": "nonsense://x", "NO_PROXY": ""}, r"cannot be asked for someone/model .*Check HF_TOKEN.*proxy"),
        ({"HTTP_PROXY": "socks5://127.0.0.1:1", "NO_PROXY": ""}, "cannot be asked|cannot be reached"),
        ({"HF_TOKEN": "schlüssel"}, "cannot be asked for someone/model"),
        ({"HF_ENDPOINT": "nonsense"}, "the hub cannot be reached"),
        ({"HF_HOME": "/dev/null"}, r"DiskError: .*cannot be saved \(.*folder in which you may write"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_make_no_sense(tmp_path, environment, message):
    with hub({NAME: FILES}) as (endpoint, _):
        (said,) = run(f"show(attempt(lambda: resolve({NAME!r})))", tmp_path, endpoint, **environment)
    assert re.search(message, said)


def test_a_disk_that_is_full_is_the_machines_fault(tmp_path):
    """A limit on the size of files stands in for it: the system call fails in the same place."""
    with hub({NAME: FILES | {"model.safetensors": bytes(1 << 20)}}) as (endpoint, _):
        code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
from mmcli.cli.app import run
show(run(["models", "pull", {NAME!r}]))
show(attempt(lambda: resolve({NAME!r})))
"""
        code, said = run(code, tmp_path, endpoint)
    assert code == 4 and "DiskError: someone/model cannot be saved" in said and "Free some space" in said


def test_what_a_model_offers_twice_is_fetched_once(tmp_path):
    shards = {"model-00001-of-00001.safetensors": FILES["model.safetensors"], "model.safetensors.index.json": b"{}"}
    with hub({NAME: FILES | shards}) as (endpoint, _):
        (files,) = run(f"show(sorted(download.plan({NAME!r}).files))", tmp_path, endpoint)
    assert files == WANTED


def test_the_older_revision_is_used_where_the_hub_is_out_of_reach(tmp_path):
    with hub({NAME: FILES}) as (endpoint, _):
        run(f"resolve({NAME!r})", tmp_path, endpoint)
    (main,) = (tmp_path / "hub").rglob("refs/main")
    main.write_text("b" * 40)  # an update that was begun
    (revision, note) = run(f"m = resolve({NAME!r}); show(m.revision); show(m.note)", tmp_path, "http://127.0.0.1:9")
    assert revision == COMMIT and "not complete" in note


def test_a_hub_that_never_answers_is_not_waited_for(tmp_path):
    import os
    import socket
    import subprocess
    import sys

    code = "from mmcli.hub import download; download.ANSWER = 0.2; download.plan('a/b')"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, timeout=PATIENCE
        )
    assert b"the hub cannot be reached" in done.stderr
