"""`mmcli tune` as users run it, on small models: what it leaves, how it goes on after SIGKILL."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from audio_files import wav_bytes
from command import mmcli
from peft import PeftModel

from mmcli.training.watch import read_log

WORDS = (
    "a cat on the mat",
    "a dog",
    "the red ball",
    "a dog on the mat",
    "the cat",
    "a red mat",
    "what is it",
    "a ball",
)
STEPS = 8
USUAL = ("--steps", str(STEPS), "--batch-size", "4", "--eval-every", "3", "--lr", "0.003", "--eval", "0.25")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return support.captioned(tmp_path_factory.mktemp("base"), WORDS, second=True)


def command(base: Path, output: Path, *more: str, usual: tuple[str, ...] = USUAL) -> list[str]:
    own = ["tune", str(base / "data.jsonl"), "--model", str(base / "model"), "-o", str(output)]
    return [*own, "--device", "cpu", *usual, *more]


def tune(base: Path, output: Path, *more: str, usual: tuple[str, ...] = USUAL):
    done = mmcli(*command(base, output, *more, usual=usual))
    assert done.code == 0, done.err
    return done


def losses(output: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_log(output) if name in line]


def start(*arguments: str, **options) -> subprocess.Popen:
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, *arguments], env=settings, stderr=subprocess.PIPE, text=True, **options)


# Kills itself, as nothing can keep it from, behind the fifth update.
KILLED = """
import os, signal, sys
from mmcli.cli import app, tune_view

updated = tune_view.TuneView.updated

def killed(self, line):
    updated(self, line)
    if line["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

tune_view.TuneView.updated = killed
sys.exit(app.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("method", ["full", "lora", "head"])
def test_what_is_trained_becomes_better_and_is_loaded_by_every_command(base, tmp_path, method):
    output = tmp_path / "out"
    rate = "0.03" if method == "lora" else "0.003"
    done = tune(base, output, "--method", method, usual=(*USUAL[:6], "--lr", rate, "--eval", "0"))
    assert done.out == f"{output}\n"
    found = losses(output)
    assert len(found) == STEPS and found[-1] < found[0]
    assert (output / "README.md").is_file() and (output / "curves.png").is_file()
    image = str(base / "0.png")
    chosen = [str(base / "model"), "--adapter", str(output)] if method == "lora" else [str(output)]
    told = mmcli("caption", image, "--json", "--model", *chosen, "--dtype", "float32")
    assert told.code == 0 and told.records[0]["text"] != plain(base, image)
    assert told.records[0]["settings"].get("adapter") == (str(output) if method == "lora" else None)


def plain(base: Path, image: str) -> str:
    return mmcli("caption", image, "--json", "--model", str(base / "model"), "--dtype", "float32").records[0]["text"]


def test_transformers_loads_a_checkpoint(base, tmp_path):
    from transformers import PaliGemmaForConditionalGeneration

    tune(base, tmp_path / "full", "--method", "full", usual=(*USUAL[:6], "--eval", "0"))
    [*_, newest] = sorted((tmp_path / "full" / "checkpoints").iterdir())
    whole = PaliGemmaForConditionalGeneration.from_pretrained(newest, dtype=torch.float32)
    before = support.tiny_reference(support.tiny_config(True), 1).state_dict()
    moved = {name for name, tensor in whole.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any("language_model" in name for name in moved) and not any("vision_tower" in name for name in moved)
    tune(base, tmp_path / "lora", "--method", "lora", usual=(*USUAL[:6], "--eval", "0"))
    PeftModel.from_pretrained(support.tiny_reference(support.tiny_config(True), 1), tmp_path / "lora")


@pytest.mark.parametrize("more", [("--method", "full", "--ema", "0.9"), ("--method", "lora", "--dropout", "0.2")])
def test_a_run_that_was_killed_goes_on_with_the_same_losses(base, tmp_path, more):
    tune(base, tmp_path / "whole", *more)
    running = start("-c", KILLED, *command(base, tmp_path / "killed", *more))
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert len(losses(tmp_path / "killed")) == 5  # a checkpoint was written after the third update
    tune(base, tmp_path / "killed", *more, "--resume")
    for name in ("loss", "eval_loss", "gradient"):
        assert losses(tmp_path / "killed", name) == losses(tmp_path / "whole", name)


def test_other_settings_do_not_go_on(base, tmp_path):
    tune(base, tmp_path / "out")
    done = mmcli(*command(base, tmp_path / "out", "--resume", "--seed", "3"))
    assert done.code == 2 and "seed" in done.err
    done = mmcli(*command(base, tmp_path / "out"))
    assert done.code == 2 and "--resume" in done.err


def test_smaller_portions_and_computing_again_change_no_loss(base, tmp_path):
    tune(base, tmp_path / "whole", "--method", "full")
    tune(base, tmp_path / "parts", "--method", "full", "--micro-batch", "1", "--recompute")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_a_family_that_is_not_trained_is_named(tmp_path):
    import fuyu_folders

    fuyu_folders.write_checkpoint(tmp_path / "fuyu", fuyu_folders.tiny_reference(fuyu_folders.tiny_config()))
    (tmp_path / "data.jsonl").write_text("{}\n")
    done = mmcli("tune", str(tmp_path / "data.jsonl"), "--model", str(tmp_path / "fuyu"), "-o", str(tmp_path / "out"))
    assert done.code == 3 and "cannot train" in done.err


MISTAKES = {
    "both lengths": (("--epochs", "2"), "both say how long"),
    "no such part to freeze": (("--freeze", "decodr"), "begins with decodr. Its parts are decoder, vision, projector"),
    "no such part to train": (("--train", "tower", "--method", "full"), "begins with tower"),
    "nothing left": (("--freeze", "decoder", "--method", "lora"), "Nothing is left"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(base, tmp_path, mistake):
    more, words = MISTAKES[mistake]
    done = mmcli(*command(base, tmp_path / "out", *more))
    assert done.code == 2 and words in done.err.splitlines()[-1], done.err


def test_what_the_model_cannot_learn_is_said_before_anything_is_written(base, tmp_path):
    (tmp_path / "speech.jsonl").write_text('{"audio": "a.wav", "text": "hello"}\n')
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(1600, np.float32), 16_000))
    chosen = ["tune", str(tmp_path / "speech.jsonl"), "--model", str(base / "model"), "-o", str(tmp_path / "out")]
    done = mmcli(*chosen, "--eval", "0", "--device", "cpu")
    assert done.code == 2 and "no task 'transcribe'" in done.err and not (tmp_path / "out").exists(), done.err
    (tmp_path / "file").write_text("")
    done = mmcli(*command(base, tmp_path / "file" / "out"))
    assert done.code == 4 and "cannot be made" in done.err, done.err
