"""The configuration file: what goes before what, what a broken one leads to, and how it is edited."""

import json
import os
import tomllib
from pathlib import Path

import pytest
from command import OF_NOBODY, Terminal, mmcli
from hypothesis import given
from hypothesis import strategies as st

from mmcli.cli.choice import BUILT_IN, choose
from mmcli.cli.config_file import LARGEST, TASKS, config_path, read_config, with_models
from mmcli.errors import UsageError

CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"


@pytest.fixture
def file(tmp_path):
    """Where a test's own configuration file is to be."""
    return tmp_path / "config.toml"


def variables(file: Path, **more: str) -> dict[str, str]:
    return OF_NOBODY | {"MMCLI_CONFIG": str(file)} | more


def models(file: Path, **more: str) -> dict[str, dict]:
    done = mmcli("config", "--json", variables=variables(file, **more))
    assert done.code == 0, done.err
    return json.loads(done.out)["models"]


# -- precedence --------------------------------------------------------------------------------------------------

FILE = {"caption": "from/file", "transcribe": "from/file"}
PRECEDENCE = [  # task, variables, in the file → the model, and what chose it
    ("caption", {}, {}, "nano", None),
    ("transcribe", {}, {}, "whisper-base", None),
    ("caption", {}, FILE, "from/file", "file"),
    ("detect", {}, FILE, "nano", None),
    ("caption", {"MMCLI_MODEL": "all/images"}, FILE, "all/images", "MMCLI_MODEL"),
    ("detect", {"MMCLI_MODEL": "all/images"}, FILE, "all/images", "MMCLI_MODEL"),
    ("transcribe", {"MMCLI_MODEL": "all/images"}, FILE, "from/file", "file"),
    ("transcribe", {"MMCLI_TRANSCRIBE_MODEL": "my/whisper"}, FILE, "my/whisper", "MMCLI_TRANSCRIBE_MODEL"),
    ("caption", {"MMCLI_MODEL": "a/b", "MMCLI_CAPTION_MODEL": "c/d"}, FILE, "c/d", "MMCLI_CAPTION_MODEL"),
    ("chat", {"MMCLI_MODEL": "a/b", "MMCLI_CAPTION_MODEL": "c/d"}, FILE, "a/b", "MMCLI_MODEL"),
    ("caption", {"MMCLI_MODEL": " ", "MMCLI_CAPTION_MODEL": ""}, FILE, "from/file", "file"),  # empty: not set
    ("read", {}, {}, "rapidocr", None),
    ("read", {}, {"read": "its/florence"}, "its/florence", "file"),
]


@pytest.mark.parametrize(("task", "named", "written", "model", "by"), PRECEDENCE)
def test_what_goes_before_what(task, named, written, model, by, file):
    if written:
        file.write_text("[models]\n" + "".join(f'{key} = "{value}"\n' for key, value in written.items()))
    found = models(file, **named)[task]
    assert found == {"model": model, "chosen_by": str(file) if by == "file" else by}


@pytest.mark.parametrize(("task", "named", "written", "model", "by"), [row for row in PRECEDENCE if row[4]])
def test_the_command_line_goes_before_all(task, named, written, model, by, file):
    """And without it a command does as `mmcli config` says."""
    file.write_text("[models]\n" + "".join(f'{key} = "{value}"\n' for key, value in written.items()))
    words = ["cat"] if task in ("detect", "segment") else ["-m", "what?"] if task == "chat" else []
    command = (task, *words, CAT if task != "transcribe" else CAT.with_name("jfk.flac"), "--offline")
    done = mmcli(*command, variables=variables(file, **named))
    assert done.code == 3 and f"{model} is no folder here and not in the cache" in done.err
    assert f"chosen by {file if by == 'file' else by})" in done.err
    done = mmcli(*command, "--model", "on/the-line", variables=variables(file, **named))
    assert done.code == 3 and "on/the-line is no folder here" in done.err and "chosen by" not in done.err


def test_the_bundled_model_can_be_had_back_on_the_command_line(file):
    file.write_text('[models]\ncaption = "no/such"\n')
    done = mmcli("caption", CAT, "--model", "nano", variables=variables(file))
    assert (done.code, done.err) == (0, "") and done.out == mmcli("caption", CAT).out


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"HOME": "/home/me"}, "/home/me/.config/mmcli/config.toml"),
        ({"HOME": "/home/me", "XDG_CONFIG_HOME": "/etc/mine"}, "/etc/mine/mmcli/config.toml"),
        ({"HOME": "/home/me", "XDG_CONFIG_HOME": "relative"}, "/home/me/.config/mmcli/config.toml"),
        ({"HOME": "/home/me", "MMCLI_CONFIG": "/tmp/own.toml"}, "/tmp/own.toml"),
        ({"HOME": "/home/me", "MMCLI_CONFIG": ""}, None),
    ],
)
def test_where_the_file_is(given, path):
    found = config_path(given)
    assert found is None if path is None else str(found) == path


# -- broken files ------------------------------------------------------------------------------------------------

BROKEN = {
    "no TOML": (b"models = [", "it is no TOML"),
    "twice": (b'[models]\ncaption = "a"\ncaption = "b"\n', "it is no TOML"),
    "too deep": (b"hints = " + b"[" * 5000, "it is no TOML"),
    "a long number": (b"hints = " + b"9" * 5000, "it is no TOML"),
    "a key": (b'model = "nano"\n', "it has the unknown key 'model'"),
    "a task": (b'[models]\npaint = "nano"\n', "models has the unknown key 'paint'"),
    "no table": (b'models = "nano"\n', "models is a text"),
    "a number": (b"[models]\ncaption = 3\n", "models.caption is a number"),
    "a list": (b'[models]\ncaption = ["nano"]\n', "models.caption is a list"),
    "a date": (b"[models]\ncaption = 2026-01-01\n", "models.caption is a date or time"),
    "nothing": (b'[models]\ncaption = "  "\n', "models.caption is empty"),
    "hints": (b"hints = 1\n", "hints is a number"),
    "UTF-16": ("hints = true".encode("utf-16"), "it is no text in UTF-8"),
    "huge": (b"#" * (LARGEST + 1), "it is larger than 64 KiB"),
    "control": (b"hints = true\n\x1b[2J = 1\n", "it is no TOML"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("command", [("caption", CAT), ("config",), ("models", "use", "nano", "--for", "caption")])
def test_a_broken_file_is_one_sentence(kind, command, file):
    content, words = BROKEN[kind]
    file.write_bytes(content)
    done = mmcli(*command, variables=variables(file))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"mmcli: The configuration file {file} cannot be used: {words}" in done.err and "\x1b" not in done.err
    assert file.read_bytes() == content


def test_what_is_no_file_is_one_sentence(file, tmp_path):
    os.mkfifo(file)  # which nobody writes to: reading it would never end
    done = mmcli("caption", CAT, variables=variables(file))
    assert done.code == 2 and f"{file} cannot be used: it is no plain file" in done.err
    done = mmcli("caption", CAT, variables=variables(tmp_path))
    assert done.code == 2 and f"{tmp_path} cannot be used: it is a folder" in done.err
    (tmp_path / "secret").write_text("hints = true")
    link = tmp_path / "loop"
    link.symlink_to(link)
    done = mmcli("caption", CAT, variables=variables(link))
    assert done.code == 2 and f"{link} cannot be used: " in done.err


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is hidden from root")
def test_a_file_that_may_not_be_read(file):
    file.write_text("hints = true")
    file.chmod(0)
    done = mmcli("caption", CAT, variables=variables(file))
    assert done.code == 2 and f"{file} cannot be used: Permission denied" in done.err


def test_a_command_that_was_given_its_model_needs_no_file(file):
    file.write_text("broken")
    assert mmcli("caption", CAT, "--model", "nano", variables=variables(file)).code == 0
    assert mmcli("caption", "--help", variables=variables(file)).code == 0
    assert mmcli("models", "list", variables=variables(file)).code == 0


def test_without_a_file_nothing_is_parsed(file, monkeypatch):
    monkeypatch.setattr(tomllib, "loads", None)
    assert choose("caption", variables(file)).model == BUILT_IN["caption"]


# -- editing -----------------------------------------------------------------------------------------------------

OWN = """\
# My own settings.
hints = false   # I know

[models]
# for holidays
caption = 'someone/old'  # was good
transcribe = "whisper-small"

# the end
"""


def test_use_changes_its_lines_and_nothing_else(file):
    file.write_text(OWN)
    done = mmcli("models", "use", "nano", "--for", "caption,detect", variables=variables(file))
    assert (done.code, done.err) == (0, "") and done.out.splitlines()[0] == f"caption  nano  {file}"
    changed = OWN.replace("'someone/old'", '"nano"').replace("# the end", 'detect = "nano"\n# the end')
    assert sorted(file.read_text().splitlines()) == sorted(changed.splitlines())
    assert 'caption = "nano"  # was good\n' in file.read_text()
    config = read_config(variables(file))
    assert config.models == {"caption": "nano", "transcribe": "whisper-small", "detect": "nano"}
    assert config.hints is False


def test_use_makes_the_file_and_its_folder(tmp_path):
    home = {"HOME": str(tmp_path), "MMCLI_HINTS": "0"}
    assert mmcli("models", "use", "nano", variables=home).code == 0
    text = (tmp_path / ".config/mmcli/config.toml").read_text()
    assert tomllib.loads(text) == {"models": dict.fromkeys(("caption", "detect", "segment", "chat"), "nano")}
    assert [path.name for path in (tmp_path / ".config/mmcli").iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    "text", ['models = {caption = "a"}\n', 'models.caption = "a"\n', '[models]\ncaption = """\na"""\n']
)
def test_a_file_in_another_style_is_left_alone(text, file):
    file.write_text(text)
    done = mmcli("models", "use", "nano", "--for", "caption", variables=variables(file))
    assert done.code == 2 and f"{file} is written in a way that is not edited here. Write under [models]" in done.err
    assert 'caption = "nano"' in done.err and file.read_text() == text


names = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1, max_size=12).filter(str.strip)


@given(st.dictionaries(st.sampled_from(TASKS), names), st.dictionaries(st.sampled_from(TASKS), names, min_size=1))
def test_edited_text_means_what_it_should(before, change):
    text = with_models("# a comment\n", before) if before else "hints = true"
    edited = with_models(text, change)
    assert tomllib.loads(edited)["models"] == before | change
    assert edited.startswith(text.splitlines()[0]) and with_models(edited, change) == edited


def test_line_ends_stay_as_they_are():
    assert with_models("hints = true\r\n", {"chat": "nano"}) == 'hints = true\r\n\r\n[models]\r\nchat = "nano"\r\n'


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["whisper-base", "--for", "caption"], 2, "whisper-base cannot caption. It can be used with transcribe."),
        (["nano", "--for", "read"], 2, "nano cannot read"),
        (["nano", "--for", "paint"], 2, "--for names 'paint', which is no task"),
        (["nano", "--for", " , "], 2, "--for names no task"),
        (["smolvlm-256m", "--for", "detect"], 2, "smolvlm-256m cannot detect"),
        (["someone/unknown"], 2, "someone/unknown is not here"),
        (["nanoo"], 3, "There is no model nanoo. Perhaps you mean nano"),
        (["./nothing"], 3, "There is no folder ./nothing"),
    ],
)
def test_what_cannot_be_used_is_not_written(arguments, code, words, file, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = mmcli("models", "use", *arguments, variables=variables(file))
    assert (done.code, done.out) == (code, "") and words in done.err and not file.exists()


def test_a_model_that_is_not_here_is_announced(file):
    done = mmcli("models", "use", "paligemma2-3b-mix-448", "--for", "segment", variables=variables(file))
    assert done.code == 0 and "is not here yet (6.1 GB)" in done.err and "hf auth login" in done.err
    done = mmcli("models", "use", "someone/unknown", "--for", "chat", variables=variables(file))
    assert done.code == 0 and models(file)["chat"]["model"] == "someone/unknown"


def test_a_folder_is_written_as_it_can_be_found_from_anywhere(file, tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    done = mmcli("models", "use", f"./{tiny.name}", "--for", "caption", variables=variables(file))
    assert done.code == 0 and models(file)["caption"]["model"] == str(tiny.resolve())
    done = mmcli("caption", CAT, "--json", "--max-tokens", 2, variables=variables(file))
    assert done.records[0]["model"] == str(tiny.resolve())


def test_a_variable_that_hides_what_was_written_is_said(file):
    done = mmcli("models", "use", "nano", "--for", "chat", variables=variables(file, MMCLI_MODEL="a/b"))
    assert done.code == 0 and "MMCLI_MODEL is set, so chat still uses a/b" in done.err


def test_on_a_terminal(file, tmp_path):
    asked = {"MMCLI_CONFIG": str(file)}
    terminal = Terminal("models", "use", "nano", "--for", "caption", variables=asked)
    assert terminal.end() == 0
    terminal = Terminal("config", variables=asked)
    terminal.until("nano")
    assert terminal.end() == 0 and b"caption" in terminal.screen


def test_an_empty_variable_for_the_file_means_none():
    done = mmcli("models", "use", "nano", variables={"MMCLI_CONFIG": ""})
    assert done.code == 2 and "MMCLI_CONFIG is empty" in done.err
    with pytest.raises(UsageError):
        read_config({"MMCLI_CONFIG": "/"})
