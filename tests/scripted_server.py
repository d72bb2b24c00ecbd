"""A server on this machine that answers by a script, byte by byte: what servers that are broken or hostile do.

It gets one script for each connection that comes, the last one for all that follow. A script is a list of steps:

    ("send", data)           these bytes
    ("flood", data, total)   these bytes again and again, `total` bytes or until the client has had enough
    ("drip", data)           these bytes one at a time, again and again, until the client has had enough
    ("hang",)                nothing, until the client has had enough
    ("reset",)               an end that is an error to the client
    ("tls",)                 from here on TLS, with a certificate signed by itself; a request's head is read

The request's head is read first, unless the script begins with ("early",): then the server speaks without being asked.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Step = tuple
CERTIFICATE = Path(__file__).parent / "localhost.pem"
PACE = 0.01  # seconds between the bytes of a drip


class ScriptedServer:
    """What `serving` gives: `address`, the heads of `requests` so far, and `play` to change the scripts."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.requests: list[bytes] = []
        self._scripts: list[list[Step]] = []
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def play(self, *scripts: list[Step]) -> str:
        """Answer by these scripts from now on → the server's address."""
        self._scripts = list(scripts)
        self.requests.clear()
        return self.address

    def close(self) -> None:
        """Stop, whatever is going on."""
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            script = self._scripts.pop(0) if len(self._scripts) > 1 else list(self._scripts[0]) if self._scripts else []
            thread = threading.Thread(target=self._answer, args=(connection, script), daemon=True)
            self._threads = [thread for thread in self._threads if thread.is_alive()] + [thread]
            thread.start()

    def _answer(self, connection: socket.socket, script: list[Step]) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as closing:
            closing.enter_context(connection)
            connection.settimeout(0.5)  # only so that a thread ends where nothing else ends it
            if script[:1] not in ([("tls",)], [("early",)]):
                self._read_head(connection)
            for step in script:
                if step == ("tls",):
                    connection = closing.enter_context(self._secured(connection))
                    self._read_head(connection)
                elif not self._take(connection, *step):
                    return
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            self._wait(connection)  # else what the client still sends would turn the end into a reset

    @staticmethod
    def _secured(connection: socket.socket) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        return context.wrap_socket(connection, server_side=True)

    def _read_head(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
            head += data
        self.requests.append(head)

    def _take(self, connection: socket.socket, kind: str, data: bytes = b"", total: int = 0) -> bool:
        """One step; False after the last."""
        if kind == "send":
            self._send(connection, data)
        elif kind == "flood":
            block = data * max(1, 65536 // len(data))
            for _ in range(-(-total // len(block))):
                self._send(connection, block)
        elif kind == "drip":
            while not self._stopped.is_set():
                for i in range(len(data)):
                    self._send(connection, data[i : i + 1])
                    self._stopped.wait(PACE)
        elif kind == "hang":
            self._wait(connection)
        elif kind == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        return True

    def _send(self, connection: socket.socket, data: bytes) -> None:
        view = memoryview(data)
        while view and not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                view = view[connection.send(view) :]

    def _wait(self, connection: socket.socket) -> None:
        """Until the client goes, or the server is stopped."""
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65536):
                    return


@contextmanager
def serving(*scripts: list[Step]) -> Iterator[ScriptedServer]:
    """A server that plays these scripts."""
    server = ScriptedServer()
    server.play(*scripts)
    try:
        yield server
    finally:
        server.close()


def answer(status: str, *headers: str, body: bytes = b"", length: int | None = -1) -> bytes:
    """A whole answer; `length` is what Content-Length says (-1: the truth, None: nothing)."""
    length = len(body) if length == -1 else length
    stated = () if length is None else (f"Content-Length: {length}",)
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *stated, *headers))
    return head.encode("latin-1") + b"\r\n" + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    """`body` as an answer in chunks, without the end."""
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return answer("200 OK", "Transfer-Encoding: chunked", length=None) + chunks
