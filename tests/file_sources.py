"""Single files and bytes as sources, and how one is refused."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mmcli.errors import InputError
from mmcli.media.sources import Source


def source(path) -> Source:
    return Source(str(path), Path(path), None, PurePosixPath(Path(path).name))


def in_memory(name: str, data: bytes) -> Source:
    """A source that is read already."""
    found = Source(name, None, None, PurePosixPath(name))
    found._kept.append(data)
    return found


def refused(load: Callable[..., Any], path, **options) -> str:
    """The sentence with which `load` refuses a file: it is one line, and names the file."""
    with pytest.raises(InputError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert Path(path).name in message, "the file is named"
    assert "\n" not in message
    return message
