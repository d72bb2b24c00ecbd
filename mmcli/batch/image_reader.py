"""Reads images to the size that a model needs, in the threads of a run or in processes that decode for them."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmcli.batch.found import FoundSource
from mmcli.batch.frames import FrameSource
from mmcli.engine.cpu import allowed_cores
from mmcli.media.limits import HELD_PIXELS, PROBE

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmcli.batch.decoders import Decoders
    from mmcli.engine.inputs import Inputs
    from mmcli.media.image import LoadedImage
    from mmcli.media.sources import Source
    from mmcli.models.family import Capabilities

PREFETCHED = 8  # images decoded and waiting, at most
FEW = 8  # images of a loaded model that threads read before other processes are started for more


@dataclass(frozen=True)
class ReadImage:
    """An image as the model will see it, perhaps the same in full."""

    image: "LoadedImage"
    full: "LoadedImage | None"
    seconds: float  # that reading took
    identity: str | None  # of the file as it was read (`media/identity.py`)
    side: int  # above which it was read
    inputs: "Inputs | None" = None  # what the model reads of it, where that is prepared ahead


class ImageReader:
    """Reads images to the size that the model needs.

    That is asked for when there is an image, since the answer takes an import of the model's family. The size for a
    model that is not on this machine is not known, and the model is not fetched before an image could be read: until
    then they are read small.
    """

    def __init__(self, able: "Callable[[], Capabilities | None]", keep: bool):
        self._able = able
        self._keep = keep  # whether full images are wanted too
        self._known = False
        self.side = PROBE
        self.prepare: Callable[[Image], Inputs] | None = None  # what is done with an image as soon as it is read
        self.square: tuple[int, int] | None = None  # see `Processor.square`
        self.threads = max(2, min(PREFETCHED - 1, allowed_cores() // 2))
        self._decoders: Decoders | None = None
        self._few = 0  # images of which it is not known yet whether they are many

    def decode_apart(self) -> None:
        """Decode in other processes, if there are many images: threads hold up the one that keeps a GPU busy.

        Where full images are wanted, too, it decodes in threads as before.
        """
        if not self._keep:
            from mmcli.batch.decoders import Decoders

            self._decoders = Decoders(self.threads)

    def close(self) -> None:
        """Read nothing more."""
        if self._decoders is not None:
            self._decoders.close()

    def use_capabilities(self, able: "Capabilities | None") -> None:
        """From now on read for a model with these capabilities; None: they are not known."""
        self.side, self._known = PROBE if able is None else able.min_read_side, True

    def prefetch(self, source: "Source") -> "ReadImage | None":
        """One image, or None where there is one and its size is not known yet. Raises InputError."""
        if self._known:
            return self.read(source)
        if not isinstance(source, FrameSource):
            source.head()
        return None

    def take(self, source: "Source", future: "Future[ReadImage | None]") -> ReadImage:
        """What `prefetch` gave, read now if it was not read yet. Raises InputError."""
        return future.result() or self.read(source)

    def read(self, source: "Source") -> ReadImage:
        """One image, prepared for the model. Raises InputError."""
        read = self._read(source)
        return read if self.prepare is None else prepared(read, self.prepare)

    def _read(self, source: "Source") -> ReadImage:
        if not self._known:
            self.use_capabilities(self._able())
        from mmcli.media.identity import identity
        from mmcli.media.image import load_image

        started, side = time.perf_counter(), self.side
        known = identity(source)  # before it is read: what changes meanwhile is answered anew
        if isinstance(source, FrameSource):
            source.check_size(source.frame.image.width, source.frame.image.height)
            return ReadImage(source.frame.image, None, source.seconds, known, side)
        image = self._image(source, side)
        if isinstance(source, FoundSource):
            source.check_size(image.width, image.height)
        full = None
        if self._keep and image.image.size == (image.width, image.height):
            full = image
        elif self._keep and image.width * image.height <= HELD_PIXELS and side != PROBE:
            full = load_image(source)
        return ReadImage(image, full, time.perf_counter() - started, known, side)

    def _image(self, source: "Source", side: int) -> "LoadedImage":
        from mmcli.media.image import load_image

        if self._decoders is None:
            return load_image(source, side=side)
        self._few += 1
        if self._few > FEW:
            self._decoders.start()
        return self._decoders.load(source, side, self.square)


def prepared(read: ReadImage, prepare: "Callable[[Image], Inputs]") -> ReadImage:
    """An image with what the model reads of it, in place of its pixels, which are not needed any more."""
    inputs = prepare(read.image.image)
    return replace(read, inputs=inputs, image=replace(read.image, image=read.image.image.resize((1, 1))))
