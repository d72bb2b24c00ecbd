"""Hostile HTTP: what broken or malicious servers, proxies and networks answer, through what fetches addresses.

All traffic stays on this machine. mmcli's limits of time are shortened (its module's constants: 1 s for an exchange),
so that five hundred exchanges take two minutes; a tenth are whole commands, which may load the model and caption.
"""

import gzip
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.hostile.command import command
from bench.hostile.damage import damage
from scripted_server import ScriptedServer, Step, answer, chunked

ENDLESS = 1 << 40
CAT = Path(__file__).parents[3] / "examples" / "cat.jpg"
Script = list[Step]


@dataclass(frozen=True)
class Exchange:
    """One script for each connection, and the address as the user names it, with its port to be filled in."""

    scripts: list[Script]
    address: str
    whole: bool  # through a whole command, not only what reads images


def prepare() -> None:
    """Start the server, and give mmcli less time than people get."""
    import torch

    from mmcli.media import web

    torch.set_num_threads(1)
    web.TIMEOUT, web.DEADLINE = 0.25, 1.0
    _server()


@cache
def _server() -> ScriptedServer:
    return ScriptedServer()


def make(rng: random.Random, folder: Path) -> Exchange:
    """The script of an exchange, perhaps behind a redirect or two."""
    script = rng.choice(WAYS)(rng)
    scripts = [_redirect(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))] + [script]
    scheme = "https" if script[0] == ("tls",) or rng.random() < 0.05 else "http"
    login = rng.choice(("", "", "", "me:secret@", "me%3a:@"))
    return Exchange(scripts, f"{scheme}://{login}127.0.0.1:PORT/{rng.choice(PATHS)}", rng.random() < 0.1)


def exercise(exchange: Exchange) -> str:
    """Fetch it, as an image or by `mmcli caption`."""
    from mmcli.media.image import load_image
    from mmcli.media.sources import IMAGE_EXTENSIONS, expand

    server = _server()
    server.play(*exchange.scripts)
    address = exchange.address.replace("PORT", str(server.port))
    if exchange.whole:
        return command("caption", address)
    (source,) = expand([address], extensions=IMAGE_EXTENSIONS)
    assert "secret" not in source.name
    load_image(source)
    return "read"


# -- what a server does ------------------------------------------------------------------------------------------


def sound(rng: random.Random) -> Script:
    """An image, as it should come."""
    body = CAT.read_bytes()
    return [("send", rng.choice((answer("200 OK", body=body), chunked(body, rng.randint(1, 9999)) + b"0\r\n\r\n")))]


def damaged(rng: random.Random) -> Script:
    """The same with damage anywhere, in its head above all."""
    data = sound(rng)[0][1]
    head = data.index(b"\r\n\r\n") + 4
    at = rng.choice((head, head, len(data)))
    return [("send", damage(data[:at], rng, [b"HTTP/1.0 302 \r\nLocation: x\r\n"]) + data[at:]), *_end(rng)]


def cut(rng: random.Random) -> Script:
    """An end, an error or silence at any place."""
    data = sound(rng)[0][1]
    return [("send", data[: rng.randrange(rng.choice((20, 100, len(data))))]), *_end(rng)]


def endless(rng: random.Random) -> Script:
    """One part of an answer that never ends, fast or byte by byte."""
    before, again = rng.choice(PARTS)
    again = rng.choice((again, again, damage(again, rng) or b"x"))
    return [("send", before), ("flood", again, ENDLESS) if rng.random() < 0.7 else ("drip", again)]


def headers(rng: random.Random) -> Script:
    """Headers that contradict each other, or hold nonsense."""
    said = [rng.choice(HEADERS) for _ in range(rng.choice((1, 2, 5, 90, 200)))]
    status = rng.choice(STATUS)
    body = rng.choice(
        (CAT.read_bytes(), b"", b"5\r\nhello\r\n0\r\n\r\n", gzip.compress(bytes(rng.choice((9, 1 << 26)))))
    )
    return [("send", answer(status, *said, body=body, length=rng.choice((-1, None, 0, 1, 1 << 60)))), *_end(rng)]


def redirect(rng: random.Random) -> Script:
    """A redirect to where none must lead, round and round, or to nothing."""
    return _redirect(rng, rng.choice(PLACES))


def chunks(rng: random.Random) -> Script:
    """Lengths of chunks that are none, extensions, trailers."""
    line = rng.choice(
        (b"zz", b"-1", b"", b"0x10", b"1_0", b"9" * rng.randint(1, 9999), b"5;" + rng.randbytes(9), b" 5 ")
    )
    return [("send", chunked(CAT.read_bytes()[: rng.randrange(5000)]) + line + b"\r\nhello\r\n"), *_end(rng)]


def packed(rng: random.Random) -> Script:
    """gzip that was not asked for: sound, damaged, cut off, or a bomb."""
    data = gzip.compress(rng.choice((CAT.read_bytes(), bytes(1 << 28))), rng.choice((1, 6)))
    data = rng.choice((data, damage(data, rng), data[: rng.randrange(len(data))]))
    return [("send", answer("200 OK", f"Content-Encoding: {rng.choice(('gzip', 'deflate', 'br', ''))}", body=data))]


def noise(rng: random.Random) -> Script:
    """Something that is no HTTP, or TLS where none is expected."""
    early = rng.choice(([("early",)], []))
    return [*early, ("send", rng.choice((rng.randbytes(rng.randrange(5000)), *GREETINGS))), *_end(rng)]


def secure(rng: random.Random) -> Script:
    """TLS with a certificate that nobody vouches for."""
    return [("tls",), *cut(rng)]


WAYS = (sound, damaged, damaged, cut, endless, endless, endless, headers, headers, redirect, redirect, chunks, packed)
WAYS += (noise, secure)


def _end(rng: random.Random) -> Script:
    return rng.choice(([], [("reset",)], [("hang",)], [("flood", rng.randbytes(9), ENDLESS)], [("drip", b"x")]))


def _redirect(rng: random.Random, place: str = "/there") -> Script:
    status = rng.choice(("301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"))
    head = answer(status, "Location: " + place.encode().decode("latin-1"), length=rng.choice((None, 0, -1, 1 << 40)))
    return [("send", head), *rng.choice(([], [("flood", b"x", ENDLESS)]))]


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = answer("200 OK", "Transfer-Encoding: chunked", length=None)
PARTS = (  # what comes first, and what then comes again and again
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), (b"", b"\r\n"),
    (b"", b"HTTP/1.1 "), (_OK, b"A: b\r\n"), (_OK + b"A:", b"b"), (_OK, b" folded\r\n"), (_OK + b"\r\n", b"x"),
    (b"HTTP/1.1 302 Found\r\nLocation: ", b"/a"), (answer("302 Found", length=None), b"x"),
    (answer("404 Not Found", length=None), b"x"), (answer("206 Partial Content", length=None), b"x"),
    (answer("200 OK", length=ENDLESS), b"\xff\xd8\xff"), (answer("200 OK", length=1 << 29), b"x"),
    (_CHUNKED, b"0"), (_CHUNKED + b"5;", b"a"), (_CHUNKED, b"1\r\nx\r\n"),
    (_CHUNKED, b"1;" + b"a" * 60000 + b"\r\nx\r\n"),
    (_CHUNKED + b"0\r\n", b"A: b\r\n"), (_CHUNKED + b"fffffffffffffff\r\n", b"x"),
    (answer("200 OK", "Content-Encoding: gzip", length=None), gzip.compress(bytes(1 << 20))),
)  # fmt: skip
STATUS = (
    "200 OK", "200", "203 x", "204 No Content", "206 Partial Content", "304 Not Modified", "300 Many", "302 Found",
    "401 No", "403 No", "404 \x1b[2J", "429 Slow", "451 " + "x" * 60000, "500 No", "600 x", "101 Switching", "abc",
    "-1 x", "99999 x",
)  # fmt: skip
HEADERS = (
    "Content-Length: -1", "Content-Length: 99999999999999999999999", "Content-Length: 5", "Content-Length: x",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "A: " + "b" * 60000,
    "Content-Encoding: \x1b]0;x\x07", "Connection: keep-alive", "Location: /", "Location: http://[", "no colon",
    ": no name", " folded", "A: ÿþ\x00", "Content-Type: multipart/mixed; boundary=x", "Set-Cookie: a=b",
    "Location: file:///etc/passwd", "Refresh: 0; url=file:///etc/passwd", "Upgrade: h2c", "Alt-Svc: h3",
)  # fmt: skip
PLACES = (
    "/", "", "?", "#", "//", "///", "file:///etc/passwd", "ftp://127.0.0.1/", "data:image/png;base64,AAAA", "http://",
    "http://169.254.169.254/latest/", "http://2852039166/", "http://0xa9fea9fe/", "http://[fe80::1]/", "http://0/",
    "http://0.0.0.0/", "http://[::ffff:169.254.169.254]/", "http://①⑥⑨.254.169.254/", "http://[::", "http://[x]/",
    "http://127.0.0.1:1/", "http://127.0.0.1:99999/", "http://127.0.0.1:x/", "http://me:secret@127.0.0.1:1/",
    "http://" + "a" * 300 + ".invalid/", "http://.invalid/", "/" + "a" * 60000, "/\x1b[2J", "/\x00", "é/ü",
    "http:/there", "https:there", "HTTP://127.0.0.1:1/", "http://127.0.0.1:1\\@169.254.169.254/",
)  # fmt: skip
GREETINGS = (
    b"SSH-2.0-OpenSSH_9.6\r\n", b"220 mail ESMTP\r\n", b"<html>hello</html>", b"\x16\x03\x03\x40\0" + bytes(999),
    b"\x15\x03\x03\x00\x02\x02(", b"ICY 200 OK\r\n\r\n", b"HTTP/0.9 200\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n",
)  # fmt: skip
PATHS = (
    "cat.jpg", "", "a b", "ü.jpg", "?token=secret", "../../etc/passwd", "a%00b", "%", "x" * 3000, "#",
    ";a?b&c=[]{}|^",
)  # fmt: skip
