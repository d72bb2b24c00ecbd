"""What a run tells while it goes on: lines without a terminal, TensorBoard's event file, and the clock it goes by."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import support
from command import mmcli

from mmcli.training import event_file, loop
from mmcli.training.watch import read_log

WORDS = ("a cat on the mat", "a dog", "the red ball", "the mat")
USUAL = ("--batch-size", "2", "--lr", "0.003", "--eval", "0.25", "--device", "cpu", "--method", "lora")
STEPS = ("--steps", "4", "--eval-every", "3")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return support.captioned(tmp_path_factory.mktemp("base"), WORDS, second=False)


def tune(base: Path, output: Path, *more: str):
    done = mmcli("tune", str(base / "data.jsonl"), "--model", str(base / "model"), "-o", str(output), *USUAL, *more)
    assert done.code == 0 and done.out == f"{output}\n", done.err
    return done


def test_without_a_terminal_each_report_is_a_line_on_stderr(base, tmp_path):
    lines = tune(base, tmp_path / "out", *STEPS).err.splitlines()
    assert all(line.startswith("mmcli: ") for line in lines)
    assert lines[0] == "mmcli: 3 examples to learn from, 1 held out, 0 replayed"
    kinds = [line.split()[1] for line in lines[1:]]
    assert kinds == ["held", "step", "step", "step", "held", "step", "held"]
    assert "step 4 (100 %): loss " in lines[-2] and "held out at step 4: loss " in lines[-1]
    assert tune(base, tmp_path / "quiet", *STEPS, "--quiet").err == ""


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads from a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_tensorboard_reads_the_numbers_of_the_log_once_each(base, tmp_path):
    pytest.importorskip("tensorboard")
    output, events = tmp_path / "out", tmp_path / "events"
    tune(base, output, *STEPS, "--tensorboard", str(events))
    shutil.rmtree(output / "checkpoints" / "step-0000004")  # the third update is the last one known
    tune(base, output, *STEPS, "--tensorboard", str(events), "--resume")
    found, log = scalars(events), read_log(output)
    for name, shown in (("loss", "loss"), ("rate", "rate"), ("gradient", "gradient"), ("eval_loss", "held out/loss")):
        lines = [line for line in log if name in line]
        assert [step for step, _ in found[shown]] == [line["step"] for line in lines]
        assert [value for _, value in found[shown]] == pytest.approx([line[name] for line in lines])


def test_a_missing_tensorboard_is_a_sentence(base, tmp_path, monkeypatch):
    monkeypatch.setattr(event_file.importlib.util, "find_spec", lambda name: None)
    chosen = ("tune", str(base / "data.jsonl"), "--model", str(base / "model"), "-o", str(tmp_path / "out"), *USUAL)
    done = mmcli(*chosen, "--tensorboard", str(tmp_path / "events"))
    assert done.code == 2 and done.err == (
        "mmcli: --tensorboard needs the package tensorboard. Install it: pip install 'mmcli[tensorboard]'.\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_clock_goes_on_where_the_run_stopped(base, tmp_path, monkeypatch):
    """Each update takes a second of this clock, which has no other time in it."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    chosen = ("--minutes", "0.095", "--eval-every", "4")  # it is over within the sixth update
    assert "step 6 (100 %)" in (said := tune(base, whole, *chosen).err) and "0:00 left" in said
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step-0000006")
    tune(base, stopped, *chosen, "--resume")
    for name in ("rate", "loss"):
        values = [line[name] for line in read_log(whole) if name in line]
        assert len(values) == 6
        assert values == [line[name] for line in read_log(stopped) if name in line]
