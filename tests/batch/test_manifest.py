"""The manifest of a folder: what was done survives whatever ends the run, and nobody else writes meanwhile."""

import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from mmcli.batch.manifest import NAME, Entry, Manifest, Stamp, read_records
from mmcli.errors import ExitCode, InputError, UsageError, WriteError
from mmcli.output.ledger import Written


def entry(key, **more) -> Entry:
    return Entry(key, Stamp(1, 2, "abc"), "recipe", (Written("--output", f"/out/{key}", "d"),), {"text": key} | more)


def test_what_was_put_is_there_when_it_is_opened_again(tmp_path):
    entries = [entry("b"), entry("a", error="no picture"), entry("ü\udce9\n")]
    with Manifest(tmp_path / "new/out") as manifest:
        for one in entries:
            manifest.put(one)
        manifest.put(entries[0])
    with Manifest(tmp_path / "new/out") as manifest:
        assert [manifest.get(one.key) for one in entries] == entries and manifest.get("c") is None
        assert {one.key for one in manifest.entries()} == {one.key for one in entries}
        assert [one.failed for one in entries] == [False, True, False]


def test_more_entries_than_are_read_at_a_time(tmp_path):
    with Manifest(tmp_path) as manifest:
        for number in range(600):
            manifest.put(entry(f"{number:03}"))
    assert [record["text"] for record in read_records(tmp_path)] == [f"{number:03}" for number in range(600)]


HOLDS = """
import sys
from pathlib import Path
from mmcli.batch.manifest import Entry, Manifest, Stamp
manifest = Manifest(Path(sys.argv[1]))
for number in range(50):
    manifest.put(Entry(str(number), Stamp(), "recipe", (), {"text": ""}))
print("there", flush=True)
sys.stdin.read()
"""


def test_a_second_run_is_refused_and_what_a_killed_one_did_is_kept(tmp_path):
    command = [sys.executable, "-c", HOLDS, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout.readline() == b"there\n"
            with pytest.raises(UsageError, match="Another run of mmcli is writing into"):
                Manifest(tmp_path)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    with Manifest(tmp_path) as manifest:
        assert len(list(manifest.entries())) == 50


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_said(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(WriteError, match=r"is damaged.*Remove it") as raised:
        Manifest(tmp_path)
    assert raised.value.exit_code == ExitCode.MACHINE


def test_a_damaged_entry_is_said(tmp_path):
    with Manifest(tmp_path) as manifest:
        manifest.put(entry("a"))
    base = sqlite3.connect(tmp_path / NAME)
    base.execute("UPDATE inputs SET record = x'00'")
    base.commit()
    base.close()
    with Manifest(tmp_path) as manifest, pytest.raises(WriteError, match="is damaged"):
        manifest.get("a")


def test_another_versions_file_is_left_alone(tmp_path):
    base = sqlite3.connect(tmp_path / NAME)
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(UsageError, match="another version"):
        Manifest(tmp_path)


@pytest.mark.parametrize("tail", ["", "-wal"])
def test_nothing_is_written_through_a_link(tmp_path, tail):
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "out" / f"{NAME}{tail}").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="is a link"):
        Manifest(tmp_path / "out")
    assert (tmp_path / "precious").read_bytes() == b""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(WriteError):
        Manifest(tmp_path / "out")
