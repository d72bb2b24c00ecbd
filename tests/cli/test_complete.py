"""What Tab offers in a shell: asked for as the shells' own scripts ask."""

import os
import shutil
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "PIL", "tokenizers", "rich")


@pytest.fixture
def shell(tmp_path):
    """What completes a line; the cache has one model, one of which nothing is here, and hostile folders."""
    for name in ("someone--tiny", "x--$(touch pwned)", "x--\x1b[2J", "x--`id`"):
        folder = tmp_path / "hub" / f"models--{name}" / "snapshots" / "abc"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (tmp_path / "hub" / "models--someone--nothing" / "snapshots").mkdir(parents=True)
    (tmp_path / "hub" / "datasets--someone--data").mkdir()

    def complete(*words: str) -> list[str]:
        code = (
            "import sys\nfrom mmcli.cli.app import run\n"
            f"try: run([])\nfinally: sys.stderr.write(repr([name for name in {HEAVY} if name in sys.modules]))"
        )
        asked = {"_MMCLI_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("mmcli", *words))}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        environment = kept | asked | {"COMP_CWORD": str(len(words)), "HF_HUB_CACHE": str(tmp_path / "hub")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stderr == "[]"
        return done.stdout.split("\n") if done.stdout.strip() else []

    return complete


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("transcribe", "--format", ""), ["text", "json", "jsonl", "csv", "srt", "vtt", "tsv"]),
        (("transcribe", "--task", "tran"), ["transcribe", "translate"]),
        (("caption", "--device", "c"), ["cpu", "cuda"]),
        (("doctor", "--dtype", "f"), ["float32", "float16"]),
        (("detect", "cat", "--loc-divisor", "10"), ["1023", "1024"]),
        (("segment", "cat", "--table", ""), ["auto", "cpu", "device"]),
        (("caption", "--model", "na"), ["nano"]),
        (("caption", "--model", "some"), ["someone/tiny"]),
        (("transcribe", "-M", "whisper-t"), ["whisper-tiny", "whisper-tiny.en"]),
        (("models", "info", "some"), ["someone/tiny"]),
        (("inspect", "n"), ["nano"]),
        (("caption", "--model", "./"), []),  # for the shell itself
        (("caption", "--prompt", ""), []),
        (("help", "ca"), ["caption"]),
        (("help", "models", "re"), ["remove"]),
        (("help", "caption", ""), []),
        (("models", "p"), ["pull"]),
    ],
)
def test_what_is_offered(shell, words, offered):
    assert [line for line in shell(*words) if line] == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_itself_completes_a_model(shell, tmp_path):
    """With the script that --show-completion gives, as bash runs it."""
    program = tmp_path / "mmcli"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mmcli "$@"\n')
    program.chmod(0o755)
    lines = [
        'eval "$(_MMCLI_COMPLETE=source_bash mmcli)"',
        "COMP_WORDS=(mmcli caption --model some); COMP_CWORD=3",
        "_mmcli_completion mmcli",
        'echo "${COMPREPLY[@]}"',
    ]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("someone/tiny\n", "")
