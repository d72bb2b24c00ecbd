"""`mmcli tune` in two processes, each with a copy or a share of the weights: losses and files are those of one."""

import shutil
import socket
from contextlib import ExitStack
from pathlib import Path
from subprocess import DEVNULL

import pytest
import support
import torch
from command import finish, mmcli, running_mmcli
from safetensors.torch import load_file

from mmcli.training.watch import read_log

WORDS = (
    "a cat on the mat",
    "a dog",
    "the red ball",
    "the mat",
    "the cat",
    "a red mat",
    "what is it",
    "a ball",
    "it is",
)
USUAL = ("--steps", "4", "--batch-size", "4", "--eval-every", "3", "--lr", "0.003", "--eval", "0.3", "--device", "cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return support.captioned(tmp_path_factory.mktemp("base"), WORDS, second=True)


def command(base: Path, output: Path, *more: str) -> list[str]:
    return ["tune", str(base / "data.jsonl"), "--model", str(base / "model"), "-o", str(output), *USUAL, *more]


def by_two(*arguments: str) -> str:
    """Run a command in two processes, as torchrun starts them → what the first says."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    with ExitStack() as stack:
        ranks = ({"RANK": number, "LOCAL_RANK": number} for number in "01")
        started = [
            stack.enter_context(running_mmcli(*arguments, variables=place | own, stdout=DEVNULL)) for own in ranks
        ]
        said = [finish(child)[1].decode() for child in started]
        assert [child.wait() for child in started] == [0, 0], said
    return said[0]


def alike(ours: Path, theirs: Path) -> None:
    """The same losses to rounding, and the same weights."""
    for name in ("loss", "eval_loss", "gradient"):
        mine, other = ([line[name] for line in read_log(one) if name in line] for one in (ours, theirs))
        assert len(mine) > 1 and mine == pytest.approx(other, rel=1e-4)
    for path in (theirs / "checkpoints" / "step-0000004").glob("*.safetensors"):
        mine, other = load_file(ours / "checkpoints" / path.parent.name / path.name), load_file(path)
        assert mine.keys() == other.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-4)


def test_lora(base, tmp_path):
    more = ("--method", "lora")
    assert mmcli(*command(base, tmp_path / "one", *more)).code == 0
    assert "shared out" not in by_two(*command(base, tmp_path / "copies", *more))
    alike(tmp_path / "copies", tmp_path / "one")
    assert "shared out among 2" in by_two(*command(base, tmp_path / "shares", *more, "--shard"))
    alike(tmp_path / "shares", tmp_path / "one")


def test_what_one_process_began_two_that_share_it_go_on_with(base, tmp_path):
    more = ("--method", "full", "--ema", "0.9")
    assert mmcli(*command(base, tmp_path / "one", *more)).code == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-0000004")  # the third update is the last one known
    by_two(*command(base, tmp_path / "two", *more, "--resume", "--shard"))
    alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize(
    "more, words",
    [((), "several processes"), (("--quantize", "int8"), "in integers"), (("--model", "nano"), "nano is not shared")],
)
def test_what_is_not_shared_out(base, tmp_path, more, words):
    done = mmcli(*command(base, tmp_path / "out", "--shard", *more))
    assert done.code == 2 and words in done.err and not (tmp_path / "out").exists()
