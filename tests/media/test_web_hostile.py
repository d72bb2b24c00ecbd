"""Servers that are broken or hostile: every exchange ends, within one limit of time and one of size, in a sentence."""

import gzip
import re
import tracemalloc
import zlib

import pytest
from scripted_server import CERTIFICATE, answer, chunked, serving

from mmcli.errors import InputError
from mmcli.media import web
from mmcli.media.web import fetch

BODY = bytes(range(256)) * 40
LIMIT = 1 << 18
ENDLESS = 1 << 40  # bytes
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = answer("200 OK", "Transfer-Encoding: chunked", length=None)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def refused(address: str, **bounds) -> str:
    """The sentence with which an address is refused; it is one line, and little memory was taken."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            fetch(address, LIMIT, **{"timeout": 30.0, "deadline": 90.0} | bounds)
        assert tracemalloc.get_traced_memory()[1] < 16 * LIMIT
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 500
    return text


TOO_MUCH = {
    "body of a redirect that never ends": [
        [("send", answer("302 Found", "Location: /there", length=None)), ("flood", b"x", ENDLESS)],
        [("send", answer("200 OK", body=BODY))],
    ],
    "interim answers": [[("flood", b"HTTP/1.1 100 Continue\r\n\r\n", ENDLESS)]],
    "early hints": [[("flood", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ENDLESS)]],
    "headers": [[("send", HEAD), ("flood", b"A: b\r\n", ENDLESS)]],
    "headers of interim answers": [[("send", b"HTTP/1.1 100 Continue\r\n"), ("flood", b"A: b\r\n", ENDLESS)]],
    "one line of the head": [[("send", HEAD + b"A: "), ("flood", b"b", ENDLESS)]],
    "line of the status": [[("flood", b"HTTP/1.1 200 " + b"O" * 99, ENDLESS)]],
    "body": [[("send", answer("200 OK", length=None)), ("flood", b"x", ENDLESS)]],
    "body that is announced": [[("send", answer("200 OK", length=ENDLESS)), ("flood", b"x", ENDLESS)]],
    "chunks": [[("send", CHUNKED), ("flood", b"1\r\nx\r\n", ENDLESS)]],
    "one chunk": [[("send", CHUNKED + b"ffffffffffff\r\n"), ("flood", b"x", ENDLESS)]],
    "length of a chunk": [[("send", CHUNKED), ("flood", b"0", ENDLESS)]],
    "extension of a chunk": [[("send", CHUNKED + b"1;a="), ("flood", b"b", ENDLESS)]],
    "extensions": [[("send", CHUNKED), ("flood", b"1;" + b"a" * 60000 + b"\r\nx\r\n", ENDLESS)]],
    "trailers": [[("send", chunked(BODY) + b"0\r\n"), ("flood", b"A: b\r\n", ENDLESS)]],
    "redirects": [[("send", answer("302 Found", "Location: /again"))]],
    "redirects with large heads": [
        [("send", answer("302 Found", "Location: /again", *[f"A: {'b' * 60000}"] * 3))],
    ],
    "page of an error": [[("send", answer("404 Not Found", length=None)), ("flood", b"x", ENDLESS)]],
    "gzip": [[("send", answer("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(64 << 20))))]],
}  # fmt: skip


@pytest.mark.parametrize("scripts", TOO_MUCH.values(), ids=TOO_MUCH)
def test_no_part_of_an_answer_may_be_endless(server, scripts):
    address = server.play(*scripts)
    if len(scripts) == 2:
        assert fetch(address, LIMIT) == BODY, "what a redirect says beside its target is not read"
    else:
        assert re.search("longer than|too long over|too many redirects|not valid HTTP|answered 404", refused(address))


@pytest.mark.parametrize("scripts", TOO_MUCH.values(), ids=TOO_MUCH)
def test_nor_come_byte_by_byte(server, scripts):
    """The same servers at a drip."""
    if any(step[0] == "flood" for script in scripts for step in script):
        slow = [[("drip", step[1]) if step[0] == "flood" else step for step in script] for script in scripts]
        address = server.play(*slow)
        if len(scripts) == 2:
            assert fetch(address, LIMIT) == BODY
        else:
            words = refused(address, timeout=0.1, deadline=0.2)
            assert re.search("too slowly|no answer in time|answered 404|not valid HTTP|longer than", words)


@pytest.mark.parametrize("at", [0, 1, 9, 17, 30, -1])
def test_a_server_that_falls_silent(server, at):
    address = server.play([("send", answer("200 OK", body=BODY)[:at]), ("hang",)])
    assert re.search("too slowly|no answer in time", refused(address, timeout=0.2))


@pytest.mark.parametrize("step", [("reset",), ("hang", b"")], ids=["reset", "end"])
@pytest.mark.parametrize("at", [0, 5, 17, 40, 60, -1])
def test_a_connection_that_breaks(server, at, step):
    address = server.play([("send", answer("200 OK", body=BODY)[:at]), *([step] if step == ("reset",) else [])])
    expected = r"broke (it|the connection) off|broke off after|reset|not valid HTTP|sent nothing"
    assert re.search(expected, refused(address))


@pytest.mark.parametrize("speaks", ["SSH-2.0-OpenSSH_9.6\r\n", "<html>hello</html>", "\0\1", "HTTP/1.1 a OK\r\n\r\n",
                                    "ICY 200 OK\r\n\r\n", "HTTP/1.1 9999 OK\r\n\r\n", "\r\n\r\n"])  # fmt: skip
def test_what_is_no_http(server, speaks):
    address = server.play([("early",), ("send", speaks.encode())])
    assert re.search("not valid HTTP|broke", refused(address))


@pytest.mark.parametrize("length", ["-5", "x", "0x10", "9" * 30, "", "10240, 10240"])
def test_a_length_that_is_none(server, length):
    """The body counts, not what is said of it."""
    address = server.play([("send", answer("200 OK", f"Content-Length: {length}", body=BODY, length=None))])
    try:
        assert fetch(address, LIMIT) == BODY
    except InputError as error:
        assert length == "9" * 30 and "longer than" in str(error)


@pytest.mark.parametrize("line", ["zz", "-5", "", "0x5", "1" * 5000])
def test_a_chunk_whose_length_is_none(server, line):
    address = server.play([("send", CHUNKED + line.encode() + b"\r\n" + BODY)])
    assert re.search("broke|not valid HTTP|longer", refused(address))


@pytest.mark.parametrize("packed", [gzip.compress(BODY), zlib.compress(BODY)], ids=["gzip", "deflate"])
def test_a_body_packed_without_being_asked(server, packed):
    def play(body: bytes) -> str:
        return server.play([("send", answer("200 OK", "Content-Encoding: gzip", body=body))])

    assert fetch(play(packed), LIMIT) == BODY
    assert "broke off" in refused(play(packed[:-9]))
    assert "damaged" in refused(play(b"\x1f\x8b" + bytes(50)))
    server.play([("send", answer("200 OK", "Content-Encoding: br", body=b"x"))])
    assert "is compressed in an unsupported way (br)" in refused(server.address)


def test_a_status_that_a_server_makes_up(server):
    address = server.play([("send", answer("299 \x1b]0;owned\x07" + "x" * 5000, body=BODY))])
    assert r"answered 299 \x1b]0;owned\x07xxx" in refused(address)


# -- secure connections ------------------------------------------------------------------------------------------


def test_a_secure_connection(server, monkeypatch):
    address = server.play([("tls",), ("send", answer("200 OK", body=BODY))]).replace("http:", "https:")
    assert "certificate is not valid" in refused(address)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    web._tls.cache_clear()
    try:
        assert fetch(address, LIMIT) == BODY
        server.play([("tls",), ("send", answer("200 OK", length=None)), ("flood", b"x", ENDLESS)])
        assert "longer than" in refused(address)
        server.play([("tls",), ("send", HEAD), ("drip", b"A: b\r\n")])
        assert re.search("too slowly|no answer in time", refused(address, timeout=0.1, deadline=0.2))
    finally:
        web._tls.cache_clear()


@pytest.mark.parametrize(
    "script", [[("early",), ("send", b"HTTP/1.1 400 Bad Request\r\n\r\n")], [("early",), ("hang",)],
               [("early",), ("drip", b"\x16\x03\x01\x40\0")], [("early",), ("reset",)],
               [("early",), ("flood", b"\x16\x03\x03\x40\0" + b"x" * 0x4000, ENDLESS)]],
    ids=["plain", "silent", "drip", "reset", "flood"],
)  # fmt: skip
def test_a_secure_connection_that_does_not_come_about(server, script):
    address = server.play(script).replace("http:", "https:")
    assert re.search("secure connection|too slowly|no answer in time|reset|broke", refused(address, timeout=0.1))


@pytest.mark.parametrize("size, message", [(1, "takes too long over its answer"), (1000, "longer than 8 MiB")])
def test_chunks_that_are_all_lengths_and_no_content(server, size, message):
    """They would keep the processor busy for minutes before the limit on the size is reached."""
    chunk = b"%x\r\n%s\r\n" % (size, b"x" * size)
    server.play([("send", CHUNKED), ("flood", chunk, ENDLESS)])
    with pytest.raises(InputError, match=message):
        fetch(server.address, 8 << 20, timeout=30.0, deadline=90.0)
