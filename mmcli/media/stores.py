"""What lies in a store that fsspec knows: s3://bucket/photos/, gs://…, az://…, hdfs://…, local:///folder."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmcli.errors import InputError, raise_if_interrupted
from mmcli.media.addresses import masked_address
from mmcli.media.naming import nothing_in, printable, too_long
from mmcli.offline import is_offline

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}
_HERE = ("file", "local", "memory")  # no network
SCHEMES = (*_PACKAGES, "hdfs", *_HERE)
_WILD = "*?["


@dataclass(frozen=True)
class Stored:
    """A file in a store: its address, and a version that changes with its content."""

    url: str
    content: str


def is_store(name: str) -> bool:
    """Whether a name is an address in a store."""
    scheme, found, _ = name.partition("://")
    return bool(found) and scheme.lower() in SCHEMES


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The store of an address, and the place in it. InputError where a package or the network is missing."""
    scheme = url.partition("://")[0].lower()
    name = printable(masked_address(url))
    if scheme not in _HERE and is_offline():
        raise InputError(
            f"{name} is not read: --offline (or HF_HUB_OFFLINE) forbids to use the network", "Copy it here"
        )
    try:
        from fsspec.core import url_to_fs

        return url_to_fs(f"{scheme}://{url.partition('://')[2]}")
    except ImportError as error:
        package = _PACKAGES.get(scheme, "fsspec")
        raise InputError(f"{name} needs the extra package {package}", f"Install it: pip install {package}") from error
    except Exception as error:
        raise trouble(url, error) from error


def read(url: str, limit: int) -> bytes:
    """The content of a file in a store. InputError where it cannot be read, or is longer than `limit` bytes."""
    store, place = file_system(url)
    try:
        data = store.cat_file(place, start=0, end=limit + 1)
    except Exception as error:
        raise trouble(url, error) from error
    if len(data) > limit:
        raise too_long(masked_address(url), limit)
    return data


def found(url: str, extensions: frozenset[str]) -> list[Stored]:
    """The files that an address names: itself, those below it, or those that a pattern matches, sorted.

    Of folders those with one of `extensions` and not hidden. Raises InputError.
    """
    store, place = file_system(url)
    scheme = url.partition("://")[0]
    try:
        pattern = any(char in place for char in _WILD) and not store.exists(place)
        listing = store.glob(place, detail=True) if pattern else store.find(place, detail=True)
        store.invalidate_cache()  # it would keep all of a large folder
    except Exception as error:
        raise trouble(url, error) from error
    files = {name: info for name, info in listing.items() if info.get("type") == "file"}
    if not files:
        what = f"{printable(masked_address(url))} " + ("matches no file" if pattern else "does not exist or is empty")
        raise InputError(what, "Check the address")
    ending = os.path.splitext(place)[1]
    whole = list(files) == [place] or (pattern and ending and not any(char in ending for char in _WILD))
    names = sorted(name for name in files if whole or _is_wanted(name.removeprefix(place), extensions))
    if not names:
        raise InputError(*nothing_in(printable(masked_address(url)), extensions))
    return [Stored(f"{scheme}://{name}", _content(scheme, name, files[name])) for name in names]


def _is_wanted(below: str, extensions: frozenset[str]) -> bool:
    hidden = any(part.startswith(".") for part in below.split("/"))
    return not hidden and os.path.splitext(below)[1].lower() in extensions


def _content(scheme: str, name: str, info: dict[str, object]) -> str:
    """Size, and what the store has: a checksum, a time."""
    known = ("size", "ETag", "etag", "md5Hash", "content_md5", "generation", "mtime", "LastModified", "created")
    return f"store {scheme}://{name} " + " ".join(f"{key}={info[key]}" for key in known if info.get(key) is not None)


def trouble(url: str, error: Exception) -> InputError:
    """What a store says, in words."""
    raise_if_interrupted(error)
    name = printable(masked_address(url))
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name} does not exist", "Check the address")
    if isinstance(error, PermissionError):
        return InputError(f"{name} may not be read by you", "Check the credentials of the store")
    why = printable(" ".join(str(error).split())[:200]) or type(error).__name__
    return InputError(f"{name} cannot be read ({why})", "Check the address and the credentials of the store")
