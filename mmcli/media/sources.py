"""What the user named, one input at a time: paths, folders, globs, stdin, lists of names and web addresses.

Nothing is opened before `Source.read`, so one missing or unreadable input never stops the others: it becomes a source
whose `read` says what is wrong.
"""

import io
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from mmcli.errors import InputError, UsageError
from mmcli.media import stores
from mmcli.media.addresses import is_web, masked_address, place_of
from mmcli.media.folders import Unlisted, is_glob, matches, walk
from mmcli.media.limits import LIST
from mmcli.media.naming import STREAM_LIMIT, nothing_in, printable, relative_place, too_long, trouble
from mmcli.media.pipes import is_pipe, open_pipe, up_to
from mmcli.media.stores import is_store

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
    | {".heic", ".heif", ".hif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"}
)
AUDIO_EXTENSIONS = frozenset(
    {".wav", ".wave", ".w64", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".spx", ".m4a", ".m4b", ".aac", ".ac3"}
    | {".aif", ".aiff", ".aifc", ".au", ".caf", ".wma", ".amr", ".mka", ".weba", ".wv"}
)
VIDEO_EXTENSIONS = frozenset(  # no ".ts": in most folders that is TypeScript
    {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv", ".flv", ".ogv"}
)
RECORDING_EXTENSIONS = AUDIO_EXTENSIONS | VIDEO_EXTENSIONS

DOWNLOAD_LIMIT = 512 << 20  # bytes fetched from an address, which all lie in memory
_CHUNK = 1 << 20
_HEAD = 4096  # bytes that tell what something is


@dataclass(frozen=True)
class Source:
    """One input. `name` is what the user would recognise; it may hold any character, so show it with `printable`.

    Passwords and tokens of an address stand in `url` alone.
    """

    name: str
    path: Path | None
    url: str | None
    relative: PurePosixPath
    """Where a mirrored output goes under an output folder: never absolute, never with a `..`, never empty."""
    stream: BinaryIO | None = field(default=None, repr=False, compare=False)
    """Standard input, for the source named "-"."""
    content: str | None = field(default=None, repr=False)
    """What tells apart an input that a program handed over from its memory: a hash of it (`media/given.py`).

    Of a file in a store what that says of it (`media/stores.py`)."""
    beside: str = field(default="", repr=False)
    """A hash of what decides its answer alone, beside its content, such as boxes that are given; "": nothing does."""
    problem: InputError | None = field(default=None, repr=False, compare=False)
    """Set where it is known already that there is nothing to read; `read` raises it."""
    _kept: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)
    _begun: "list[tuple[BinaryIO, bytes]]" = field(default_factory=list, init=False, repr=False, compare=False)

    def check(self) -> None:
        """Raise InputError where it is known already that there is nothing to read."""
        if self.problem is not None:
            raise InputError(self.problem.what, self.problem.do)

    def head(self, size: int = _HEAD) -> bytes:
        """The first `size` bytes, or all if there are fewer: of a pipe no more is read than that. Raises as `read`."""
        self.check()
        if self.url is not None and not self._kept:
            self._kept.append(self._fetch(None))
        if self._kept:
            return self._kept[0][:size]
        try:
            if self.path is not None and not is_pipe(self.path):
                with open(self.path, "rb", buffering=0) as file:
                    return up_to(file, size)
            if not self._begun:
                stream, first = (self._standard_input(), b"") if self.path is None else open_pipe(self.path)
                self._begun.append((stream, up_to(stream, size, first)))
        except (OSError, ValueError) as error:  # ValueError: a NUL inside the name
            raise trouble(self.name, error) from error
        return self._begun[0][1]

    def open(self, limit: int | None = None, stream_limit: int | None = None) -> BinaryIO:
        """The content as a file that can seek: from disk where it lies there, else from memory.

        What is read into memory may have `stream_limit` bytes at most. Raises as `read`.
        """
        if self.problem is None and self.path is not None and os.path.isfile(self.path):
            try:
                file = open(self.path, "rb")  # noqa: SIM115 (the caller closes it)
            except OSError as error:
                raise trouble(self.name, error) from error
            if limit is not None and os.fstat(file.fileno()).st_size > limit:
                file.close()
                raise too_long(self.name, limit)
            return file
        return io.BytesIO(self.read(stream_limit))  # shares the bytes

    def read(self, limit: int | None = None) -> bytes:
        """The whole content. Pipes are read once and kept, so a second call answers the same.

        Raises InputError where there is nothing to read, and where it is longer than `limit` bytes.
        """
        self.check()
        if self.url is not None and is_store(self.url):  # there may be millions, so none is kept for good
            return _within(self._kept.pop() if self._kept else self._fetch(limit), limit, self.name)
        if self._kept:
            return _within(self._kept[0], limit, self.name)
        if self.url is not None:
            self._kept.append(self._fetch(limit))
            return self._kept[0]
        try:
            if self.path is not None and not is_pipe(self.path):
                with open(self.path, "rb", buffering=0) as file:
                    if limit is not None and os.fstat(file.fileno()).st_size > limit:
                        raise too_long(self.name, limit)
                    return _drain(file, sys.maxsize if limit is None else limit, self.name)
            self.head()
            stream, head = self._begun[0]
            data = _drain(stream, STREAM_LIMIT if limit is None else limit, self.name, head)
        except (OSError, ValueError) as error:
            raise trouble(self.name, error) from error
        self._begun.clear()
        if self.path is not None:
            stream.close()
        self._kept.append(data)  # a FIFO or <(...) cannot be opened a second time: the writer is gone
        return data

    def _fetch(self, limit: int | None) -> bytes:
        """What is at its address."""
        assert self.url is not None
        limit = DOWNLOAD_LIMIT if limit is None else min(limit, DOWNLOAD_LIMIT)
        if is_store(self.url):
            return stores.read(self.url, limit)
        from mmcli.media.web import fetch  # costs 50 ms to import: only those who name an address pay

        return fetch(self.url, limit)

    def _standard_input(self) -> BinaryIO:
        stream = self.stream or getattr(sys.stdin, "buffer", None)
        if stream is None:
            raise InputError("There is no standard input to read (-)", "Name a file instead")
        return stream


def expand(
    arguments: Iterable[str | os.PathLike],
    *,
    extensions: frozenset[str],
    files_from: str | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Source]:
    """The sources that `arguments` name, in their order, then those of the list `files_from` ("-": on stdin).

    A folder gives the files with one of `extensions` in it and below, sorted, without hidden ones. A glob is expanded
    unless a file has exactly that name; one that names an ending (`*.dat`) takes what it matches, any other only
    `extensions`. A file named outright is always taken. The list holds one name a line, or NUL between names.

    Raises UsageError at once where stdin is asked for twice or the list cannot be read.
    """
    names = [os.fspath(argument) for argument in arguments]
    if names.count("-") + (files_from == "-") > 1:
        raise UsageError("Standard input (-) can be read only once", "Name it once, as a file or as --files-from")
    listed = _read_list(files_from, stdin) if files_from is not None else []

    def sources() -> Iterator[Source]:
        for name in names:
            if name == "-":
                yield Source("-", None, None, PurePosixPath("stdin"), stream=stdin)
            else:
                yield from _expand_one(name, extensions)
        for name in listed:
            yield from _expand_one(name, extensions)

    return sources()


# -- one argument ------------------------------------------------------------------------------------------------


def _expand_one(name: str, extensions: frozenset[str]) -> Iterator[Source]:
    if name and os.path.isdir(name):
        files = list(_folder(name, extensions))
        yield from files or [_nothing_in(name, extensions)]
    elif not os.path.lexists(name) and is_store(name):
        yield from _stored(name, extensions)
    elif is_glob(name) and not (os.path.lexists(name) or is_web(name) or _scheme(name)):  # "a[red].png" may be a file
        yield from _glob(name, extensions)
    else:
        yield one_named(name)


def one_named(name: str) -> Source:
    """The one input of exactly that name: folders are not opened, and there are no patterns."""
    if not name:
        return _failed("", "An input has an empty name", "Look for an unset variable on the command line")
    if not os.path.lexists(name):
        if is_web(name) or is_store(name):
            return Source(masked_address(name), None, name, place_of(name))
        if _scheme(name):
            do = "Give an http or https address, or download the file and name that"
            name = masked_address(name)
            return _failed(name, f"{printable(name)} is an address of a kind that is not fetched", do)
    return _file(name)  # one that is missing is said to be when it is read


def _file(name: str) -> Source:
    return Source(name, Path(name), None, relative_place(name))


def _stored(name: str, extensions: frozenset[str]) -> Iterator[Source]:
    """The files of a store that an address names."""
    try:
        files = stores.found(name, extensions)
    except InputError as error:
        place = place_of(name) if name.partition("://")[2] else relative_place("unnamed")
        yield Source(masked_address(name), None, name, place, problem=error)
        return
    for one in files:
        yield Source(masked_address(one.url), None, one.url, place_of(one.url), content=one.content)


def _failed(name: str, what: str, do: str = "") -> Source:
    path = Path(name) if name else None
    return Source(name, path, None, relative_place(name or "unnamed"), problem=InputError(what, do))


def _nothing_in(folder: str, extensions: frozenset[str]) -> Source:
    return _failed(folder, *nothing_in(printable(folder), extensions))


def _scheme(name: str) -> bool:
    head, colon, _ = name.partition("://")
    return bool(colon) and len(head) > 1 and head.isascii() and head.replace("+", "").isalnum()


# -- folders -----------------------------------------------------------------------------------------------------


def _folder(folder: str, extensions: frozenset[str]) -> Iterator[Source]:
    for entry in walk(folder):
        if isinstance(entry, Unlisted):
            problem = trouble(entry.path, entry.error)
            yield _failed(entry.path, problem.what, problem.do)
        elif _has_extension(entry.name, extensions) and _is_file_or_dangling(entry.path):
            yield _file(entry.path)


def _has_extension(name: str, extensions: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].lower() in extensions


def _is_file_or_dangling(path: str) -> bool:
    """No FIFOs or sockets that happen to lie in a folder; a link to nothing is kept, to be reported."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


# -- globs -------------------------------------------------------------------------------------------------------


def _glob(pattern: str, extensions: frozenset[str]) -> Iterator[Source]:
    """What the shell would have given for the unquoted pattern, folders opened; every file once."""
    ending = os.path.splitext(pattern)[1]
    takes_all = bool(ending) and not is_glob(ending)
    seen: set[str] = set()
    anchor = PurePath(pattern).anchor
    for name in matches(anchor, list(PurePath(pattern).parts[1 if anchor else 0 :])):
        if os.path.isdir(name):
            files = list(_folder(name, extensions))
        else:
            files = [_file(name)] if takes_all or _has_extension(name, extensions) else []
        for source in files:
            if source.name not in seen:
                seen.add(source.name)
                yield source
    if not seen:
        what = f"{printable(pattern)} matches no file" + ("" if takes_all else " of a known kind")
        yield _failed(pattern, what, "Check the pattern and the folder you are in")


# -- lists -------------------------------------------------------------------------------------------------------


def _read_list(files_from: str, stdin: BinaryIO | None) -> Iterator[str]:
    """The names in a list, which is read at once; they come one by one, for there may be millions."""
    source = Source("-", None, None, PurePosixPath("stdin"), stream=stdin) if files_from == "-" else _file(files_from)
    try:
        data = source.read(LIST)
    except InputError as error:
        raise UsageError(f"The list of files cannot be read: {error.what}", error.do) from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what `>` writes in Windows PowerShell
        data = data.decode("utf-16", "surrogatepass").encode("utf-8", "surrogatepass")
    return _listed(data.removeprefix(b"\xef\xbb\xbf"))


def _listed(data: bytes) -> Iterator[str]:
    if b"\0" in data:
        yield from (os.fsdecode(name) for name in _parts(data, b"\0") if name.strip(b"\r\n"))
        return
    for line in _parts(data, b"\n"):
        name = os.fsdecode(line)
        # A list written on Windows ends its lines in \r\n; a name that really ends in \r still wins.
        name = name[:-1] if name.endswith("\r") and not os.path.lexists(name) else name
        if name:
            yield name


def _parts(data: bytes, end: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        to = data.find(end, at)
        to = len(data) if to < 0 else to
        yield data[at:to]
        at = to + 1


# -- bytes -------------------------------------------------------------------------------------------------------


def _drain(stream: BinaryIO, limit: int, name: str, head: bytes = b"") -> bytes:
    """`head` and all that is left of `stream`, never asking it to seek."""
    data = io.BytesIO()
    data.write(head)
    while True:
        if data.tell() > limit:
            raise too_long(name, limit)
        if not (chunk := stream.read(_CHUNK)):
            return data.getvalue()  # shares the bytes
        data.write(chunk)


def _within(data: bytes, limit: int | None, name: str) -> bytes:
    if limit is not None and len(data) > limit:
        raise too_long(name, limit)
    return data
