"""A folder for results that lies in a store: files are written here as always, then uploaded, and removed here.

The store has its own manifest, from which a run on any machine goes on. It is uploaded at the beginning and now and
then: after a crash, what was uploaded since is done again, and takes the same places.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmcli.errors import InputError, UsageError, WriteError, raise_if_interrupted
from mmcli.media import stores
from mmcli.media.naming import printable
from mmcli.output.ledger import Written

UPLOADS = 16  # at the same time: each is mostly waiting
INTERVAL = 60.0  # seconds between two uploads of the manifest, and more where one takes long
SHARE = 20.0  # an upload of the manifest takes at most this part of the time


class StoreFolder:
    """The folder at an address, and `folder`, where its files are before they are there.

    Raises UsageError where the store cannot be listed.
    """

    def __init__(self, url: str, folder: Path):
        self.url = url.rstrip("/") + "/"
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = Path(os.path.realpath(folder))
        try:
            self._store, place = stores.file_system(self.url)
            self._place = place.rstrip("/")
            listed = self._listed()
        except InputError as error:
            raise UsageError(error.what.replace("cannot be read", "cannot be listed"), error.do) from error
        self._there = {name.removeprefix(self._place).lstrip("/") for name in listed}
        self._pool = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._room = threading.Semaphore(4 * UPLOADS)
        self._error: Exception | None = None
        self._saved, self._pause = time.monotonic(), INTERVAL
        self._saving = threading.Lock()

    def _listed(self) -> list[str]:
        try:
            names: list[str] = self._store.find(self._place)
            self._store.invalidate_cache()
        except FileNotFoundError:
            return []
        except Exception as error:
            raise stores.trouble(self.url, error) from error
        return names

    # -- names ---------------------------------------------------------------------------------------------------

    def foreign(self, manifest: str) -> set[str]:
        """Paths here of what is in the store and not ours: a folder with a manifest is ours."""
        return set() if manifest in self._there else {str(self.folder / name) for name in self._there}

    def there(self, file: Written) -> Written:
        """A file as the manifest names it: by its address, which is the same for every machine."""
        name = self._name(file.path)
        return file if name is None else replace(file, path=self.url + name)

    def here(self, file: Written) -> Written:
        """A file of the manifest as it is named here."""
        if not file.path.startswith(self.url):
            return file
        return replace(file, path=str(self.folder / file.path.removeprefix(self.url)))

    def holds(self, file: Written) -> bool | None:
        """Whether a file of the manifest is in the store; None for one that lies elsewhere."""
        return file.path.removeprefix(self.url) in self._there if file.path.startswith(self.url) else None

    def _name(self, path: str) -> str | None:
        place = Path(path)
        return place.relative_to(self.folder).as_posix() if place.is_relative_to(self.folder) else None

    # -- files ---------------------------------------------------------------------------------------------------

    def download(self, name: str, path: Path) -> bool:
        """Fetch a file if there is one. Raises WriteError."""
        if name not in self._there:
            return False
        with self._in_words(name):
            self._store.get_file(f"{self._place}/{name}", str(path))
        return True

    def upload(self, path: Path) -> None:
        """Move a file from here into the store. Raises WriteError."""
        if (name := self._name(str(path))) is None:
            return
        self._put(path, name)
        path.unlink()

    def _put(self, path: Path, name: str) -> None:
        place = f"{self._place}/{name}"
        with self._in_words(name):
            if getattr(self._store, "local_file", False):  # no store that has a file whole or not at all
                self._store.makedirs(os.path.dirname(place), exist_ok=True)
                self._store.put_file(str(path), f"{place}.part")
                self._store.mv(f"{place}.part", place)
            else:
                self._store.put_file(str(path), place)
        self._there.add(name)

    def submit(self, files: Iterable[Written], then: Callable[[], None]) -> None:
        """Upload files in the background, and `then` say so; waits where many are under way. Raises what one met."""
        self._room.acquire()
        if self._error is not None:
            raise self._error
        self._pool.submit(self._work, tuple(files), then)

    def _work(self, files: tuple[Written, ...], then: Callable[[], None]) -> None:
        try:
            if self._error is None:
                for file in files:
                    self.upload(Path(file.path))
                then()
        except Exception as error:  # raised again where the next is submitted, or at the end
            self._error = error
        finally:
            self._room.release()

    def save(self, name: str, copy: Callable[[Path], Any], *, now: bool = False) -> None:
        """Upload the manifest, of which `copy` makes a copy, if it is time to. Raises WriteError."""
        if not self._saving.acquire(blocking=now):
            return
        try:
            began = time.monotonic()
            if not now and began - self._saved < self._pause:
                return
            draft = self.folder / f"{name}.copy"
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            copy(draft)
            self._put(draft, name)
            draft.unlink()
            self._saved = time.monotonic()
            self._pause = max(INTERVAL, SHARE * (self._saved - began))
        finally:
            self._saving.release()

    def finish(self) -> None:
        """Wait for all that is under way. Raises what one met."""
        self._pool.shutdown(wait=True)
        if self._error is not None:
            raise self._error

    def remove(self) -> None:
        """Leave nothing here."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _in_words(self, name: str) -> Any:
        try:
            yield
        except Exception as error:
            raise_if_interrupted(error)
            if isinstance(error, WriteError):
                raise
            why = printable(" ".join(str(error).split())[:200]) or type(error).__name__
            what = f"{printable(self.url + name)} cannot be written ({why})"
            raise WriteError(what, "Check the address and the credentials of the store") from error
