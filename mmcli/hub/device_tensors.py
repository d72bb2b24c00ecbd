"""Weights on their way to a GPU: read by several threads into pinned memory, from where the GPU fetches them itself.

A file that is mapped into memory and copied as it lies there comes through one thread, page by page, and twice: PyTorch
hands memory that is not pinned to the driver, which copies it into memory of its own first.
"""

import os
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mmcli.hub.safetensors_files import ITEM_BYTES, read_header

if TYPE_CHECKING:
    import torch

PIECE = 8 << 20  # bytes that a thread reads at a time, and the size of its pinned memory
MOST_THREADS = 8
AHEAD = MOST_THREADS * PIECE  # bytes of the next tensors that are on their way: small ones give one thread work each

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "C64": "complex64", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class DeviceTensors:
    """A safetensors file whose tensors come to a device, with keys and get_tensor as safetensors' `safe_open` has them.

    Raises ModelError where the file is not what its header promises.
    """

    def __init__(self, path: Path, device: "torch.device"):
        self._path, self._device = path, device
        self._header = read_header(path)
        self._later: deque[str] = deque()
        self._begun: dict[str, tuple[torch.Tensor, list[Future[None]]]] = {}

    def __enter__(self) -> Self:
        self._own, self._files = threading.local(), ExitStack()
        self._pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), "weights", self._begin)
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._files.close()

    def keys(self) -> list[str]:
        return list(self._header)

    def expect(self, names: Iterable[str]) -> None:
        """Some tensors will be asked for, once each, in this order: those that follow may be read ahead."""
        self._later = deque(names)

    def get_tensor(self, name: str) -> "torch.Tensor":
        """One tensor, all of it there. Raises OSError where the file cannot be read."""
        import torch

        if name not in self._begun:
            if name in self._later:
                self._later.remove(name)
            self._start(name)
        while self._later and sum(len(data) for data, _ in self._begun.values()) < AHEAD:
            self._start(self._later.popleft())
        data, pieces = self._begun.pop(name)
        for piece in pieces:
            piece.result()
        info = self._header[name]
        return data.view(getattr(torch, _TYPES[info.dtype])).view(info.shape)

    def _start(self, name: str) -> None:
        """Let threads read a tensor."""
        import torch

        info = self._header[name]
        data = torch.empty(info.count * ITEM_BYTES[info.dtype], dtype=torch.uint8, device=self._device)
        before = torch.cuda.current_stream(self._device) if data.is_cuda else None
        places = range(0, len(data), PIECE)
        self._begun[name] = (
            data,
            [
                self._pool.submit(self._fill, data[place : place + PIECE], info.start + place, before)
                for place in places
            ],
        )

    def _begin(self) -> None:
        """What each thread has of its own: the file, memory to read it into, and an order of its copies."""
        import torch

        on_gpu = self._device.type == "cuda"
        self._own.file = self._files.enter_context(self._path.open("rb", buffering=0))
        with torch.cuda.device(self._device) if on_gpu else nullcontext():  # pinning by another would wake that one up
            self._own.memory = torch.empty(PIECE, dtype=torch.uint8, pin_memory=on_gpu)
            self._own.stream = torch.cuda.Stream(self._device) if on_gpu else None

    def _fill(self, part: "torch.Tensor", start: int, before: Any) -> None:
        """Read a part of a tensor's bytes from its place in the file."""
        import torch

        memory = self._own.memory[: len(part)]
        view = memoryview(memory.numpy())
        self._own.file.seek(start)
        while view:
            count = self._own.file.readinto(view)
            if not count:
                raise OSError(f"it ends {len(view)} bytes early")
            view = view[count:]
        if self._own.stream is None:
            part.copy_(memory)
            return
        with torch.cuda.stream(self._own.stream):
            self._own.stream.wait_stream(before)  # which may still use what this memory held before
            part.copy_(memory, non_blocking=True)
            self._own.stream.synchronize()
