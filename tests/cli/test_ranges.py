"""Every option that is a number has a range, and what lies outside is a usage error that names it."""

from inspect import signature
from typing import get_args

import pytest
from command import mmcli

from mmcli.cli import caption, chat, detect, doctor, inspect, segment, transcribe, tune
from mmcli.cli.options import RANGES

GROUPS = {"caption": ["a.jpg"], "detect": ["cat", "a.jpg"], "segment": ["cat", "a.jpg"], "chat": ["-m", "?", "a.jpg"]}
COMMANDS = {**GROUPS, "transcribe": ["a.wav"], "inspect": ["nano"]}
COMMANDS |= {"tune": ["data.jsonl", "--model", "nano", "--output", "out"]}


def name_of(setting) -> str:
    """Inside Annotated, Typer takes the first name for a default until it looks closer."""
    return str(setting.default)


def numeric() -> list[tuple[str, str, str]]:
    """(command, option, "int" or "float") of every option that takes a number as such."""
    found = []
    for module in (caption, detect, segment, chat, transcribe, inspect, doctor, tune):
        for parameter in signature(module.command).parameters.values():
            kind, *settings = get_args(parameter.annotation) or (None,)
            kinds = {kind, *get_args(kind)} & {int, float}
            if kinds and not settings[0].parser and "--loc-divisor" not in name_of(settings[0]):
                found.append((module.__name__.rpartition(".")[2], name_of(settings[0]), kinds.pop().__name__))
    return found


def test_every_numeric_option_has_a_range():
    assert {name for _, name, _ in numeric()} == set(RANGES)
    assert {command for command, _, _ in numeric()} == set(COMMANDS)


@pytest.mark.parametrize("command, name, kind", numeric())
def test_what_lies_outside_is_a_usage_error_that_says_the_range(command, name, kind):
    low, high = RANGES[name]
    wrong = ["-1", str(high * 10**3), "9" * 400, *(["nan", "inf", "-inf", "1e400"] if "float" in kind else [])]
    wrong += [] if low == 0 else ["0"]
    for value in wrong:
        done = mmcli(command, *COMMANDS[command], f"{name}={value}")
        assert (done.code, done.out) == (2, ""), value
        assert name in done.err and f"between {low:g} and {high:,}" in done.err, value
    for value in ("", "x", "1_0.5.", "١x"):
        assert mmcli(command, *COMMANDS[command], f"{name}={value}").code == 2, value


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e9", "9" * 400, "20000000", "1:99", ""])
@pytest.mark.parametrize("name", ["--start", "--duration"])
def test_times(name, value):
    done = mmcli("transcribe", "a.wav", f"{name}={value}")
    assert (done.code, done.out) == (2, "")
    assert name in done.err


def test_the_divisor_is_one_of_two():
    assert "neither 1023 nor 1024" in mmcli("detect", "cat", "a.jpg", "--loc-divisor=7").err
