"""A run into a folder: it goes on where an earlier one ended, notes what it does, and makes data sets at its end."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mmcli.batch.manifest import NAME, Manifest
from mmcli.batch.resume import Resume, is_as_written
from mmcli.errors import InputError, MmcliError
from mmcli.output.datasets import DATASETS
from mmcli.output.datasets.items import Item, class_names, labels, link_images
from mmcli.output.drafts import Draft, in_words
from mmcli.output.files import MARK, is_replaceable
from mmcli.output.ledger import Ledger, Written
from mmcli.output.record import from_dict
from mmcli.output.schema import SCHEMA, Record

if TYPE_CHECKING:
    from mmcli.media.sources import Source
    from mmcli.output.store_folder import StoreFolder


class FolderRun:
    """One run into a folder; a context that holds the folder's manifest.

    `facts` are all that decides the results beside the inputs and the model, of which `model` gives the name and what
    identifies its weights, or None as long as that is not known. With a `store` its files go there, and `folder` is
    where they are before. Raises what `Manifest` and the store do.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        facts: dict[str, Any],
        model: Callable[[], tuple[str, str] | None],
        *,
        force: bool = False,
        retry: bool = False,
        store: "StoreFolder | None" = None,
    ):
        self.folder = folder
        self._store = store
        self._ledger = ledger
        self._facts, self._model = facts, model
        self._recipe: str | None = None
        self.manifest = Manifest(folder)
        self.resume = Resume(self.manifest, self.recipe, force, retry, self._is_as_written)
        if store is not None:
            self._begin(store)
        self._sources: list[Source] = []
        self.done = self.failed = 0
        self._began = time.monotonic()

    def _begin(self, store: "StoreFolder") -> None:
        """Go on from what is in the store."""
        fetched = self.folder / f"{NAME}.other"
        known = store.download(NAME, fetched)
        self._ledger.foreign |= store.foreign(NAME)
        self.manifest.replace(fetched if known else None)
        if known:
            fetched.unlink()
        else:
            store.save(NAME, self.manifest.copy, now=True)  # from now on the folder is ours, whatever ends this run

    def _is_as_written(self, file: Written) -> bool:
        known = self._store.holds(file) if self._store is not None else None
        return is_as_written(file) if known is None else known

    def recipe(self) -> str | None:
        """A hash of the facts and the model; None while that is not here."""
        if self._recipe is None and (model := self._model()) is not None:
            text = json.dumps({"schema": SCHEMA, "model": model} | self._facts, sort_keys=True, default=str)
            self._recipe = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._recipe

    def pending(self, sources: "list[Source]") -> "Iterator[Source]":
        """What there is to do of the sources; what earlier runs wrote for them stays theirs."""
        self._sources = sources
        for source, entry in self.resume.name(sources):
            for file in entry.files:
                self._ledger.remember(file if self._store is None else self._store.here(file), source.name)
        return self.resume.pending(sources)

    def note(self, source: "Source", record: Record, good: bool) -> None:
        """Note what came of a source: its record, and whether all its files are there. Raises as `Manifest` does."""
        self.done, self.failed = self.done + good, self.failed + (not good)
        files = self._ledger.files_of(source.name)
        if not (good or record.kind == "failed"):
            return
        if (store := self._store) is None:
            self.resume.note(source, record, files)
            return

        def then() -> None:
            self.resume.note(source, record, [store.there(file) for file in files])
            store.save(NAME, self.manifest.copy)

        store.submit(files, then)

    @property
    def passed_over(self) -> int:
        """Inputs that earlier runs did, or failed with."""
        return self.resume.before + len(self.resume.failed_before)

    def summary(self, what: str) -> str:
        """What the run did, in a sentence; each input is a `what`."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        parts = [f"{self.done} {what}{'s' * (self.done != 1)} done"]
        if self.done:
            rate = self.done / seconds
            parts[0] += f" ({rate:.1f} a second)" if rate >= 0.1 else f" ({60 * rate:.1f} a minute)"
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.resume.before:
            parts.append(f"{self.resume.before} done before")
        if self.resume.failed_before:
            parts.append(f"{len(self.resume.failed_before)} failed before (--retry-failed tries again)")
        return ", ".join(parts)

    def export(self, names: Iterable[str], asked: Iterable[str]) -> None:
        """Write data sets by name of all inputs of the run that have results. InputError, WriteError."""
        wanted = [DATASETS[name] for name in names]
        if not wanted:
            return
        if self._store is not None:
            self._store.finish()
        places = labels(dict.fromkeys(source.relative for source in self._sources))
        classes = class_names(self._items(places), asked)
        for dataset in wanted:
            for place, text in dataset.files(lambda: self._items(places), classes, self.folder):
                self._write(dataset.name, self.folder / place, text)
            if dataset.links and self._store is None:
                with in_words(self.folder / "images"):
                    link_images(self._items(places), self.folder / "images")

    def _items(self, places: dict[PurePosixPath, PurePosixPath]) -> Iterator[Item]:
        for source in self._sources:
            entry = self.resume.entry(source)
            if entry is not None and not entry.failed and entry.record.get("time") is None:  # no videos
                path = Path(os.path.abspath(source.path)) if source.path is not None else None
                yield Item(from_dict(entry.record), source.relative, places[source.relative], path)

    def _write(self, dataset: str, path: Path, parts: Iterable[str]) -> None:
        if not self._ledger.claim(path, dataset):
            what = f"{path} is a result already, and --format {dataset} would have it hold another one"
            raise InputError(what, "Name another folder")
        with Draft(path, below=self.folder) as draft:
            digest = hashlib.sha256()
            for part in parts:
                data = part.encode("utf-8", "surrogateescape")
                digest.update(data)
                draft.write(data)
            if not (self._ledger.may_replace(path) and is_replaceable(path, b"") or self._ledger.made(path)):
                what = f"{path} exists already and was not written by mmcli, or was changed since: it is left as it is"
                raise InputError(what, "Name another folder")
            draft.mark(MARK, digest.hexdigest().encode())
            draft.commit()
        if self._store is not None:
            self._store.upload(path)

    def __enter__(self) -> "FolderRun":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self._store is not None:
                self._end(self._store, error)
        finally:
            self.manifest.close()

    def _end(self, store: "StoreFolder", error: BaseException | None) -> None:
        """Let all uploads come to their end, and leave nothing here. The first trouble is the one to tell."""
        trouble = error
        try:
            for step in (store.finish, partial(store.save, NAME, self.manifest.copy, now=True)):
                try:
                    step()
                except MmcliError as own:
                    trouble = trouble or own
        finally:
            store.remove()  # while this process still has the manifest locked
        if trouble is not error and trouble is not None:
            raise trouble
