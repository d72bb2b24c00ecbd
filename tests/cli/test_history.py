"""The file of typed lines: where it is, that it stays small and one's own."""

import os
import stat
from pathlib import Path

import pytest

from mmcli.cli.history import LINES, History, history_path

HOME = {"HOME": "/home/me"}


@pytest.mark.parametrize(
    ("variables", "platform", "path"),
    [
        (HOME, "linux", "/home/me/.local/state/mmcli/history"),
        (HOME | {"XDG_STATE_HOME": "/var/me"}, "linux", "/var/me/mmcli/history"),
        (HOME | {"XDG_STATE_HOME": "relative"}, "linux", "/home/me/.local/state/mmcli/history"),
        (HOME, "darwin", "/home/me/Library/Application Support/mmcli/history"),
        (HOME | {"LOCALAPPDATA": "/C/local"}, "win32", "/C/local/mmcli/history"),
        (HOME | {"MMCLI_HISTORY": "/tmp/mine"}, "linux", "/tmp/mine"),
        (HOME | {"MMCLI_HISTORY": ""}, "linux", None),  # switched off
    ],
)
def test_where_it_is(variables, platform, path):
    assert history_path(variables, platform) == (None if path is None else Path(path))


def test_only_its_owner_reads_it(tmp_path):
    path = tmp_path / "new" / "history"
    History(path).add("what?")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_lines_come_back_in_order_and_none_twice_in_a_row(tmp_path):
    history = History(tmp_path / "history")
    assert history.lines() == []
    for line in ("one", "two", "two", "  ", "one", "a\nb", "caf\udce9"):
        history.add(line)
    assert history.lines() == ["one", "two", "one", "a b", "caf\udce9"]


def test_no_password_of_an_address_is_kept(tmp_path):
    history = History(tmp_path / "history")
    history.add("/image https://me:secret@example.org/a.jpg?token=secret 'b c.jpg'")
    assert history.lines() == ["/image https://***@example.org/a.jpg?token=*** 'b c.jpg'"]
    assert "secret" not in (tmp_path / "history").read_text()


def test_it_does_not_grow_for_ever(tmp_path):
    path, link = tmp_path / "history", tmp_path / "link"
    os.symlink(path, link)
    path.write_text("".join(f"{number}\n" for number in range(2 * LINES + 1)))
    history = History(link)
    assert history.lines() == [str(number) for number in range(LINES + 1, 2 * LINES + 1)]
    assert len(path.read_text().splitlines()) == LINES and link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(list(tmp_path.iterdir())) == 2


def test_what_goes_wrong_is_an_error_of_the_system_and_nothing_else(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        History(tmp_path / "file" / "history").add("what?")
    with pytest.raises(OSError):
        History(tmp_path).lines()
