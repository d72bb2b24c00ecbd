"""`mmcli models` and `mmcli inspect` against a hub that runs on this machine."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command import OF_NOBODY, forked, mmcli
from hub_server import COMMIT, hub

NAME = "someone/tiny"


@pytest.fixture
def shell(tiny, tmp_path, monkeypatch):
    """Run commands whose hub is a server on this machine; it holds the tiny model and a gated one."""
    monkeypatch.chdir(tmp_path)
    files = {path.name: path.read_bytes() for path in tiny.iterdir()}
    with hub({NAME: files, "someone/gated": "GatedRepo"}) as (endpoint, asked):
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        kept |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
        kept |= {"NO_PROXY": "127.0.0.1", "OMP_NUM_THREADS": "1"} | OF_NOBODY

        def command(*arguments):
            return forked(*arguments, variables=kept)

        command.asked = asked
        command.weights = len(files["model.safetensors"])
        yield command


def test_the_life_of_a_downloaded_model(shell, album):
    info = json.loads(shell("models", "info", NAME, "--json").out)
    assert info["folder"] is None and info["bytes"] > shell.weights

    pulled = shell("models", "pull", NAME)
    folder = Path(pulled.out.strip())
    assert pulled.code == 0 and pulled.err == "" and (folder / "model.safetensors").exists()

    listed = shell("models", "list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["nano", "whisper-base", NAME] and COMMIT[:12] in listed[2]

    info = shell("models", "info", NAME).out
    assert "on this machine     yes" in info and "memory as float32   685 kB" in info

    verified = shell("models", "verify", NAME)
    assert verified.code == 0 and "model.safetensors\tsound (sha256)" in verified.out

    asked = len(shell.asked)
    done = shell("caption", "album/b.jpg", "--model", NAME, "--max-tokens", "3", "--json", "--offline")
    [record] = done.records
    assert (record["model"], record["revision"]) == (NAME, COMMIT) and len(shell.asked) == asked

    refused = shell("models", "remove", NAME)
    assert refused.code == 2 and "--yes" in refused.err
    assert shell("models", "remove", NAME, "--yes").code == 0
    assert NAME not in shell("models", "list").out


def test_a_damaged_download_is_found(shell):
    folder = Path(shell("models", "pull", NAME).out.strip())
    weights = folder / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    done = shell("models", "verify", NAME)
    assert done.code == 3 and "does not have the sha256 checksum" in done.out
    assert f"{NAME} has 1 damaged or missing files" in done.err


def test_inspect_downloads_no_weights(shell):
    done = shell("inspect", NAME, "--json")
    facts = json.loads(done.out)
    assert facts["family"] == "PaliGemma" and facts["revision"] == COMMIT
    assert not any("model.safetensors" in path for path in shell.asked if "/resolve/" in path)
    assert NAME in shell("caption", "nothere.jpg", "--model", NAME, "--json").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["models", "pull", "someone/gated"],
            "accept its licence first. Accept it at https://huggingface.co/someone/gated",
        ),
        (["models", "pull", "someone/unknown"], "someone/unknown"),
        (["models", "pull", NAME, "--revision", "nope"], f"{NAME} has no revision nope"),
        (["models", "verify", NAME], f"{NAME} is not in the cache"),
        (["models", "remove", NAME, "--yes"], f"{NAME} is not in the cache"),
        (["models", "info", NAME, "--offline"], "not in the cache"),
    ],
)
def test_what_can_be_wrong_is_a_sentence_and_exit_code_3(shell, arguments, words):
    done = shell(*arguments)
    assert done.code == 3 and words in done.err and "Traceback" not in done.err and done.out == ""


@pytest.mark.parametrize("kind", ["llava", None, ["paligemma"], {"a": 1}, 7])
@pytest.mark.parametrize("arguments", [("info",), ("info", "--json"), ("verify",)])
def test_a_model_of_whatever_type_can_be_looked_at(kind, arguments, tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": kind}))
    command, *options = arguments
    done = mmcli("models", command, tmp_path / "model", *options)
    assert done.code in (0, 3) and "unexpected" not in done.err.lower() and done.err.count("\n") <= 1


def test_a_folder_can_be_looked_at_and_verified(tiny):
    assert "type                paligemma" in mmcli("models", "info", tiny).out
    assert mmcli("models", "verify", tiny).code == 0
    assert mmcli("models", "pull", tiny).code == 2
