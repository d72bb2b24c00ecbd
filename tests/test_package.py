"""What is packed: what the package says of itself, and what its source archive and its wheel hold."""

import re
import subprocess
import sys
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The package's metadata and the files of its source archive, as setuptools lists them before it packs them."""
    pytest.importorskip("setuptools")
    place = tmp_path_factory.mktemp("egg")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", place]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [folder] = place.iterdir()
    about, listed = ((folder / name).read_text("utf-8") for name in ("PKG-INFO", "SOURCES.txt"))
    return message_from_string(about), listed.split("\n")


def test_the_metadata_is_complete(packed):
    about, _ = packed
    assert about["License-Expression"] == "Apache-2.0 AND MIT" and len(about.get_all("License-File")) == 2
    for field in ("Author", "Summary", "Keywords", "Requires-Python"):
        assert about[field]
    for field in ("Project-URL", "Classifier"):
        assert len(about.get_all(field)) > 2
    assert not [line for line in about.get_all("Classifier") if line.startswith("License")]  # said once


def test_the_description_has_nothing_that_leads_nowhere_outside_the_repository(packed):
    about, _ = packed
    text = about.get_payload()
    assert about["Description-Content-Type"] == "text/markdown"
    assert text.lstrip().startswith("# mmcli") and "## Records" in text and "model card" in text
    assert "![" not in text and re.findall(r"\]\((?!https?:|#)", text) == []


def test_the_source_archive_has_all_that_the_tests_need(packed):
    _, files = packed
    wanted = [
        str(path.relative_to(ROOT))
        for folder in ("mmcli", "tests", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    ]
    assert set(wanted) | {"README.md", "CHANGELOG.md", "LICENSE", "setup.py", "pyproject.toml"} <= set(files)
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheel_holds_the_weights_and_neither_tests_nor_recipes(tmp_path):
    pytest.importorskip("setuptools")
    built = tmp_path / "lib"
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", built]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {str(path.relative_to(built)) for path in built.rglob("*") if path.is_file()}
    kept = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mmcli").rglob("*")
        if path.is_file() and not {"__pycache__", "recipes"} & set(path.parts) and not path.name.startswith(".")
    }
    assert files == kept and "mmcli/py.typed" in files
    assert sum((ROOT / name).stat().st_size for name in files) < 100_000_000
