"""One exchange of HTTP over a connection whose every byte is counted and whose every wait ends.

The standard library parses what the server says; it bounds neither how long a head or a line between chunks may take
nor how many interim answers, headers and trailers may come. Here all of it passes one `Budget`.
"""

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any, cast

SLOWEST = 16 << 10  # bytes a second; less than that over the whole time is too slow
HEADS = 256 << 10  # bytes of all heads together, those of redirects and interim answers included
CHUNKING = 32  # bytes of a body for each byte of lengths between its chunks: tiny chunks are all work and no content


class TooSlow(Exception):
    """The time for the whole exchange is used up."""


class TooMuch(Exception):
    """More came than may come."""


class Budget:
    """What one whole exchange may still take, however many servers have a part in it.

    It may take `timeout` seconds and more as bytes come, a second for each `SLOWEST`, but never more than `deadline`;
    and no wait is longer than `timeout`. Bytes are those on the wire.
    """

    def __init__(self, timeout: float, deadline: float):
        self._begin = time.monotonic()
        self._timeout, self._deadline = timeout, deadline
        self.received, self._allowed = 0, HEADS

    def seconds(self) -> float:
        """How long the next wait may last. Raises TooSlow where nothing is left."""
        until = min(self._deadline, self._timeout + self.received / SLOWEST)
        left = self._begin + until - time.monotonic()
        if left <= 0:
            raise TooSlow
        return min(left, self._timeout)

    def take(self, count: int) -> None:
        """Count bytes that came. Raises TooMuch."""
        self.received += count
        if self.received > self._allowed:
            raise TooMuch

    def begin_body(self) -> None:
        """From here on what comes is a body: much of it may come, but little beside it."""
        self._before = self.received
        self.body(0)

    def body(self, count: int) -> None:
        """Let a body of which `count` bytes came go on, with what dividing it into chunks adds."""
        self._allowed = self._before + count + count // CHUNKING + HEADS


class Wire:
    """A connected socket behind a budget, as `HTTPResponse` needs it."""

    def __init__(self, connection: socket.socket, budget: Budget):
        self._connection, self._budget = connection, budget
        self._reader = _Reader(_Metered(connection, budget))

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._connection.settimeout(self._budget.seconds())
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What comes over the wire; always the same reader, so that a second answer goes on where the first ended."""
        return self._reader

    def answer(self, method: str = "GET") -> HTTPResponse:
        """Read a head → the answer, with its body still to be read; interim answers are passed over."""
        while True:
            response = HTTPResponse(cast(socket.socket, self), method=method)  # it only ever asks for `makefile`
            response.begin()
            if response.status // 100 != 1:
                return response


class _Reader(io.BufferedReader):
    def close(self) -> None:
        """Stay open: an answer closes its file, but on this one the next may follow."""


class _Metered(io.RawIOBase):
    def __init__(self, connection: socket.socket, budget: Budget):
        self._connection, self._budget = connection, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._budget.seconds())
        count = self._connection.recv_into(buffer)
        self._budget.take(count)
        return count
