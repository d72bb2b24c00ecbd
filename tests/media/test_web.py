"""Web addresses, against a real server on this machine."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from PIL import Image

from mmcli.errors import InputError
from mmcli.media.image import load_image
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.media.web import fetch

BODY = bytes(range(256)) * 1000


class Site(BaseHTTPRequestHandler):
    seen: list[tuple[str, str]] = []

    def do_GET(self):
        self.seen.append((self.path, self.headers["User-Agent"]))
        route = self.path.split("?")[0].strip("/").replace("-", "_")
        getattr(self, f"page_{route}", self.page_missing)()

    def answer(self, code=200, body=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def page_file(self):
        self.answer(body=BODY, Content_Length=len(BODY))

    def page_unsized(self):
        self.answer(body=BODY)

    def page_image(self):
        buffer = BytesIO()
        Image.new("RGB", (20, 10), "red").save(buffer, "PNG")
        self.answer(body=buffer.getvalue(), Content_Type="text/plain")

    def page_article(self):
        self.answer(body=b"<!DOCTYPE html><html></html>")

    def page_short(self):
        self.answer(body=BODY[:100], Content_Length=len(BODY))

    def page_chunked_short(self):
        self.protocol_version = "HTTP/1.1"
        self.answer(body=b"ff\r\nonly this", Transfer_Encoding="chunked", Connection="close")
        self.close_connection = True

    def page_to_file(self):
        self.answer(302, Location="/file")

    def page_to_ftp(self):
        self.answer(302, Location="ftp://127.0.0.1/file")

    def page_to_disk(self):
        self.answer(301, Location="file:///etc/passwd")

    def page_round(self):
        self.answer(307, Location="/round")

    def page_login(self):
        self.answer(401)

    def page_forbidden(self):
        self.answer(403)

    def page_busy(self):
        self.answer(503)

    def page_missing(self):
        self.answer(404)

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            super().handle()


@pytest.fixture(scope="module")
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("page", ["file", "unsized", "to-file"])
def test_fetches_the_bytes(site, page):
    assert fetch(f"{site}/{page}", 1 << 20) == BODY


def test_an_image_by_its_address(site):
    (source,) = expand([f"{site}/image"], extensions=IMAGE_EXTENSIONS)
    assert (source.name, source.url, source.path) == (f"{site}/image", f"{site}/image", None)
    assert load_image(source).image.getpixel((0, 0)) == (255, 0, 0)


def test_an_address_of_the_page_around_the_image(site):
    (source,) = expand([f"{site}/article"], extensions=IMAGE_EXTENSIONS)
    with pytest.raises(InputError, match=r"/article is a web page.*address of the picture itself"):
        load_image(source)


def test_says_who_asks(site):
    fetch(f"{site}/file", 1 << 20)
    assert Site.seen[-1][1].startswith("mmcli/")


def test_addresses_as_people_paste_them(site):
    fetch(f"{site}/file?q=été 1&r=%20#part", 1 << 20)
    assert Site.seen[-1][0] == "/file?q=%C3%A9t%C3%A9%201&r=%20"


@pytest.mark.parametrize(
    "page, message",
    [
        ("missing", r"/missing cannot be fetched: the server answered 404 Not Found\. Check the address\.$"),
        ("login", "answered 401.*login"),
        ("forbidden", "answered 403.*programs"),
        ("busy", "answered 503.*Try again later"),
        ("short", "broke off after 100 of 256,000 bytes"),
        ("chunked-short", "cannot be fetched"),
        ("to-ftp", "sends on to ftp://127.0.0.1/file, which is no web address"),
        ("to-disk", "sends on to file:///etc/passwd"),
        ("round", "too many redirects"),
    ],
)
def test_what_servers_answer(site, page, message):
    with pytest.raises(InputError, match=message) as caught:
        fetch(f"{site}/{page}", 1 << 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("page", ["file", "unsized"], ids=["announced", "found out on the way"])
def test_a_limit_on_size(site, page):
    assert fetch(f"{site}/{page}", len(BODY)) == BODY
    with pytest.raises(InputError, match="longer than 255,999 bytes"):
        fetch(f"{site}/{page}", len(BODY) - 1)


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://nowhere.invalid/a.jpg", r"host nowhere\.invalid is not found\. Check the address and the network"),
        ("http://127.0.0.1:1/a.jpg", "connection was refused"),
        ("http:///a.jpg", "names no host"),
        ("http://host:port/a.jpg", "no valid web address"),
        ("http://[::1/a.jpg", "no valid web address"),
        ("http://name:word@nowhere.invalid/a.jpg", r"^http://\*\*\*@nowhere.invalid/a.jpg cannot be fetched"),
        ("http://" + "a" * 70 + "é/", "no valid web address"),  # too long for a name of the network
    ],
)
def test_where_there_is_no_server(url, message):
    with pytest.raises(InputError, match=message):
        fetch(url, 1 << 20)


def test_an_image_by_its_address_may_not_fill_the_memory(site, monkeypatch):
    """A reader that would take a file of any size still gets no more than a download may have."""
    monkeypatch.setattr("mmcli.media.sources.DOWNLOAD_LIMIT", len(BODY) - 1)
    (source,) = expand([f"{site}/unsized"], extensions=IMAGE_EXTENSIONS)
    with pytest.raises(InputError, match="longer than 255,999 bytes"):
        source.read(1 << 40)
