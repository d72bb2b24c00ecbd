"""The line after a caption of the bundled model that names a better one."""

from datetime import date
from pathlib import Path

import pytest
from command import Terminal, environment, mmcli

from mmcli.cli import hint as module
from mmcli.cli.hint import hint
from mmcli.engine import machine
from mmcli.engine.machine import Machine
from mmcli.hub.known import IMAGE_MODEL
from mmcli.models.registry import FAMILIES

CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"
DAY = date(2026, 3, 1)
LINE = "Try: mmcli caption x.jpg -M "


@pytest.fixture
def said(tmp_path, monkeypatch):
    """What a hint says on a machine with 24 GB; the state is in a folder of the test's own."""
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(2, 24 * 10**9))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def say(model=IMAGE_MODEL, today=DAY, model_from="", variables=None, **settings):
        own = {"HOME": str(tmp_path), "MMCLI_CONFIG": str(tmp_path / "config.toml")} | (variables or {})
        terminals = {"stderr_tty": True, "stdout_tty": True} | settings
        streams = environment(variables=own, **terminals)
        streams.model_from = model_from
        hint(streams, model, "mmcli caption x.jpg", today)
        return " ".join(streams.stderr.getvalue().split())

    return say


def test_it_names_an_open_model_and_the_line_to_type(said):
    text = said()
    assert text.startswith("mmcli: nano is small and often wrong; ") and LINE in text
    assert "(MIT" in text or "(Apache-2.0" in text


def test_it_comes_once_a_day(said):
    assert said() and not said() and said(today=date(2026, 3, 2)) and not said(today=date(2026, 3, 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"stderr_tty": False},
        {"stdout_tty": False},
        {"quiet": True},
        {"model": "smolvlm-256m"},
        {"model_from": "MMCLI_MODEL"},  # nano, but by the user's own choice
        {"variables": {"MMCLI_HINTS": "0"}},
        {"variables": {"MMCLI_HINTS": "off"}},
    ],
)
def test_when_nothing_is_said(said, settings, tmp_path):
    assert said(**settings) == "" and not (tmp_path / ".local").exists()
    assert said() != ""  # it was not used up


def test_the_configuration_file_switches_it_off_and_the_variable_goes_before(said, tmp_path):
    (tmp_path / "config.toml").write_text("hints = false\n")
    assert said() == "" and said(variables={"MMCLI_HINTS": "1"}) != ""


def test_nothing_is_said_where_no_better_model_is_to_be_had(said, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert said() == ""


def test_only_models_whose_family_is_registered_are_named(said, monkeypatch):
    for kind in [kind for kind in FAMILIES if kind not in ("mmcli-nano", "paligemma", "whisper")]:
        monkeypatch.delitem(FAMILIES, kind)
    assert said() == ""  # PaliGemma's licence is to be accepted first


def test_a_state_that_cannot_be_written_says_nothing_at_all(said, tmp_path):
    (tmp_path / ".local").write_text("a file where a folder should be")
    assert said() == ""


def test_a_state_full_of_nonsense_is_written_anew(said, tmp_path):
    assert said()
    (tmp_path / ".local/state/mmcli/hint").write_bytes(b"\xff\xfe")
    assert said() and not said()


def test_the_command_says_nothing_in_a_pipe(tmp_path):
    own = {"HOME": str(tmp_path), "MMCLI_CONFIG": ""}
    for settings in ({}, {"stderr_tty": True}):
        done = mmcli("caption", CAT, variables=dict(own), **settings)
        assert done.code == 0 and "Try:" not in done.err
    assert "Try:" not in mmcli("caption", CAT, "--json", variables=dict(own), stderr_tty=True, stdout_tty=True).err
    assert not (tmp_path / ".local").exists()


def test_on_a_real_terminal(tmp_path):
    """The caption first, then one hint; on the same day none again, and none with --quiet."""

    def asked(name, **more):
        return {"MMCLI_HINTS": "1", "MMCLI_CONFIG": "", "XDG_STATE_HOME": str(tmp_path / name), **more}

    def errors(name, *arguments):
        done = mmcli("caption", CAT, *arguments, variables=asked(name), stderr_tty=True, stdout_tty=True)
        assert done.code == 0
        return done.err

    assert "Try:" not in errors("here", "--quiet")
    first = Terminal("caption", CAT, variables=asked("here", HF_HUB_OFFLINE="", COLUMNS="300"))
    assert first.end() == 0
    lines = first.screen.decode().replace("\r", "").splitlines()
    place = next(i for i, line in enumerate(lines) if "cat" in line and "mmcli" not in line)
    assert f"Try: mmcli caption {CAT} -M " in lines[place + 1]
    assert "Try:" not in errors("here") and "Try:" in errors("elsewhere")


def test_the_day_is_that_of_the_machine(monkeypatch, said, tmp_path):
    said(today=None)
    assert (tmp_path / ".local/state/mmcli/hint").read_text().strip() == module.date.today().isoformat()
