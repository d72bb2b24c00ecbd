"""Downloading, listing, verifying and removing, against a hub that runs on this machine."""

import json

import pytest
import torch
from hub_server import COMMIT, hub, run_python
from safetensors.torch import save

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
        "old/pickle": {"config.json": b"{}", "pytorch_model.bin": b"x"},
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
    assert "pickle" in pickle
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
