"""A small server that answers like the Hugging Face Hub, so that downloads run for real without leaving the machine."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_IS_COMMIT = re.compile("[0-9a-f]{40}").fullmatch  # whichever is asked for is there
Repositories = dict[str, dict[str, bytes] | str]  # name → its files, or the error code or status of one that refuses
STATUS = {"RevisionNotFound": 404, "RepoNotFound": 401, "GatedRepo": 401, "BadToken": 401}


class Handler(BaseHTTPRequestHandler):
    repositories: Repositories = {}
    asked: list[str] = []
    breaks: dict[str, int] = {}  # file → how often its download breaks off half way
    ranges: list[tuple[str, int]] = []  # downloads that were begun: file, first byte

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        files = self.repositories.get(name, "RepoNotFound")
        if isinstance(files, dict) and rest[:1] == ["revision"] and rest[1] != "main" and not _IS_COMMIT(rest[1]):
            files = "RevisionNotFound"
        if isinstance(files, str):
            said = {"X-Error-Message": "Invalid credentials in Authorization header"} if files == "BadToken" else {}
            return self._answer(b"", STATUS.get(files) or int(files), said or {"X-Error-Code": files})
        if rest[:1] == ["tree"]:
            return self._answer(json.dumps([self._entry(file, data) for file, data in files.items()]).encode())
        if rest[:1] == ["resolve"] and rest[2] in files:
            data = files[rest[2]]
            entry = self._entry(rest[2], data)
            headers = {"X-Repo-Commit": self._commit(rest), "ETag": f'"{checksum(entry)}"'}
            return (
                self._answer_part(rest[2], data, headers) if self.command == "GET" else self._answer(data, 200, headers)
            )
        siblings = [
            {"rfilename": file, "size": len(data), "blobId": self._entry(file, data)["oid"]}
            for file, data in files.items()
        ]
        self._answer(json.dumps({"id": name, "sha": self._commit(rest), "siblings": siblings}).encode())

    @staticmethod
    def _commit(rest: list[str]) -> str:
        """The commit that a path names, else that of main."""
        return rest[1] if len(rest) > 1 and _IS_COMMIT(rest[1]) else COMMIT

    @staticmethod
    def _entry(file: str, data: bytes) -> dict:
        entry = {
            "type": "file",
            "path": file,
            "size": len(data),
            "oid": hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest(),
        }
        if file.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _answer_part(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        """The content from where a download goes on, all of it or the half that comes before the connection breaks."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        self.ranges.append((file, start))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        breaks = self.breaks.get(file, 0)
        self.breaks[file] = breaks - 1
        self._answer(data[start:], 206 if start else 200, headers, (len(data) - start) // 2 if breaks > 0 else None)

    def _answer(
        self, body: bytes, status: int = 200, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
            self.close_connection = True

    def log_message(self, *_) -> None:
        """Keep the tests' output quiet."""


def checksum(entry: dict) -> str:
    return entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]


@contextmanager
def hub(
    repositories: Repositories, breaks: dict[str, int] | None = None, ranges: list | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Serve repositories → (address, list of paths asked for); `breaks` and `ranges` as in `Handler`."""
    own = {
        "repositories": repositories,
        "asked": [],
        "breaks": breaks or {},
        "ranges": [] if ranges is None else ranges,
    }
    handler = type("Served", (Handler,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_python(code: str, home: Path, endpoint: str, **environment: str) -> str:
    """Run code in a process of its own, whose hub is `endpoint` and whose cache is in `home` → what it printed.

    huggingface_hub reads its settings once, at import, so they cannot be changed in this process.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    variables |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "2"}
    variables |= {"PYTHONPATH": str(Path(__file__).parent.parent), "NO_PROXY": "127.0.0.1"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
