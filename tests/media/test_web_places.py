"""Where an address may lead, over which proxy, with whose password, and that none is shown."""

import json
import os
import re
import socket
from pathlib import Path

import pytest
from command import ONE_THREAD, forked, mmcli
from scripted_server import answer, serving

from mmcli.errors import InputError
from mmcli.media.addresses import masked, masked_address
from mmcli.media.hosts import Reach, reach
from mmcli.media.sources import IMAGE_EXTENSIONS, expand
from mmcli.media.web import fetch

LIMIT = 1 << 18
CAT = (Path(__file__).parents[2] / "examples" / "cat.jpg").read_bytes()
PAGE = [("send", answer("200 OK", body=b"content"))]


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


# -- which machine -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address, expected",
    [
        ("93.184.215.14", Reach.PUBLIC), ("2606:2800:21f::1", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE), ("172.31.0.1", Reach.PRIVATE), ("192.168.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE), ("127.0.0.1", Reach.LOOPBACK), ("127.8.8.8", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK), ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("169.254.169.254", Reach.INTERNAL), ("169.254.0.1", Reach.INTERNAL), ("fe80::1%eth0", Reach.INTERNAL),
        ("fd00:ec2::254", Reach.INTERNAL), ("100.100.100.200", Reach.INTERNAL), ("0.0.0.0", Reach.INTERNAL),
        ("::", Reach.INTERNAL), ("::ffff:169.254.169.254", Reach.INTERNAL), ("64:ff9b::a9fe:a9fe", Reach.INTERNAL),
        ("2002:a9fe:a9fe::1", Reach.INTERNAL), ("::169.254.169.254", Reach.INTERNAL), ("224.0.0.1", Reach.INTERNAL),
        ("255.255.255.255", Reach.INTERNAL),
    ],
)  # fmt: skip
def test_how_far_away_an_address_is(address, expected):
    assert reach(address) == expected


SPELLINGS = ["2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376", "169.254.43518", "0",
             "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
def test_an_internal_address_in_disguise(host):
    """The system itself reads these as 169.254.169.254 or 0.0.0.0; no packet is sent."""
    with pytest.raises(InputError, match=r"leads to .*(169\.254\.169\.254|0\.0\.0\.0|a9fe:a9fe).*which is refused"):
        fetch(f"http://{host}/latest/meta-data/", LIMIT)


@pytest.mark.parametrize("host", ["①⑥⑨.254.169.254", "169。254。169。254", "169%2e254.169.254"])
def test_an_address_in_other_characters(host):
    with pytest.raises(InputError, match=r"no valid web address: it spells 169\.254\.169\.254 in a roundabout way"):
        fetch(f"http://{host}/", LIMIT)


INTERNAL = ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "0.0.0.0", *SPELLINGS]


@pytest.mark.parametrize("host", INTERNAL)
def test_a_redirect_to_an_internal_address(server, host):
    script = [("send", answer("302 Found", f"Location: http://{host}:{server.port}/".encode().decode("latin-1")))]
    with pytest.raises(InputError, match="which is refused|no valid web address"):
        fetch(server.play(script, PAGE), LIMIT)
    assert len(server.requests) == 1


def test_a_name_is_looked_up_once_and_that_address_is_used(server, monkeypatch):
    """A name whose owner changes its address between the check and the connection (DNS rebinding)."""
    asked = []

    def getaddrinfo(host, port, **more):
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    server.play(PAGE)
    assert fetch(f"http://rebinding.example:{server.port}/", LIMIT) == b"content"
    assert asked == ["rebinding.example"]
    with pytest.raises(InputError, match="rebinding.example.* leads to 169.254.169.254 "):
        fetch(f"http://rebinding.example:{server.port}/", LIMIT)


@pytest.mark.parametrize("inner", ["10.0.0.1", "192.168.1.1", "127.0.0.1", "[::1]", "169.254.169.254"])
def test_a_redirect_does_not_lead_further_in(server, monkeypatch, inner):
    """From a public server to this machine or its network; the public one is played by the local server."""
    monkeypatch.setattr("mmcli.media.web.check", lambda name, host, address, before: _as_public(name, host, before))

    def _as_public(name, host, before):
        from mmcli.media.hosts import check

        return Reach.PUBLIC if before is None else check(name, host, inner.strip("[]"), before)

    script = [("send", answer("302 Found", f"Location: http://{inner}:{server.port}/"))]
    with pytest.raises(InputError, match="which is refused"):
        fetch(server.play(script, PAGE), LIMIT)


@pytest.mark.parametrize("place", ["http://localhost:{port}/there", "/there", "there", "//127.0.0.1:{port}/there"])
def test_a_redirect_between_equals(server, place):
    script = [("send", answer("307 Temporary Redirect", "Location: " + place.format(port=server.port)))]
    assert fetch(server.play(script, PAGE) + "/here", LIMIT) == b"content"
    assert server.requests[1].startswith(b"GET /there HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://127.0.0.1/", "data:,x", "javascript:alert(1)", "gopher://x/",
              "http:///x", "http://", "http://host:99999/", "http://host:port/", "http://[::1/", "http://a b/",
              "http://127.0.0.1\\@169.254.169.254/", "https://%00/", "\x1b[2J://x"],
)  # fmt: skip
def test_a_redirect_to_nowhere(server, place):
    script = [("send", answer("302 Found", f"Location: {place}"))]
    with pytest.raises(InputError) as caught:
        fetch(server.play(script), LIMIT, timeout=1.0)
    expected = "no web address|no valid web|names no host|which is refused|not found|too many redirects"
    assert re.search(expected, str(caught.value))
    assert str(caught.value).isprintable()


# -- proxies -----------------------------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_the_whole_address(server, monkeypatch):
    server.play(PAGE)
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", server.address.replace("//", "//me:secret@"))
    assert fetch("http://nowhere.invalid/a.jpg?b=c", LIMIT) == b"content"
    head = server.requests[-1].decode()
    assert head.startswith("GET http://nowhere.invalid/a.jpg?b=c HTTP/1.1\r\nHost: nowhere.invalid\r\n")
    assert "\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in head and "\r\nAuthorization" not in head
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    with pytest.raises(InputError, match="host nowhere.invalid is not found"):
        fetch("http://nowhere.invalid/a.jpg", LIMIT)
    for host in ("169.254.169.254", "metadata.google.internal", "2852039166"):
        if host != "169.254.169.254":
            with pytest.raises(InputError, match="which is refused"):
                fetch(f"http://{host}/", LIMIT)
        server.play([("send", answer("302 Found", f"Location: http://{host}/"))], PAGE)
        with pytest.raises(InputError, match="which is refused"):
            fetch("http://elsewhere.invalid/", LIMIT)


def test_a_secure_address_goes_through_a_proxy_unread(server, monkeypatch):
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", server.address)
    server.play([("send", b"HTTP/1.1 200 Connected\r\n\r\n"), ("tls",), *PAGE])
    with pytest.raises(InputError, match="certificate is not valid"):
        fetch("https://nowhere.invalid/a.jpg", LIMIT)
    assert server.requests[0].startswith(b"CONNECT nowhere.invalid:443 HTTP/1.1\r\nHost: nowhere.invalid:443\r\n")
    server.play([("send", answer("407 Proxy Authentication Required"))])
    with pytest.raises(InputError, match=r"the proxy 127.0.0.1:\d+ answered 407 Proxy Authentication Required"):
        fetch("https://nowhere.invalid/a.jpg", LIMIT)
    monkeypatch.setenv("https_proxy", "socks5://me:secret@127.0.0.1:1")
    with pytest.raises(InputError, match=r"proxy socks5://\*\*\*@127.0.0.1:1 is of an unsupported kind"):
        fetch("https://nowhere.invalid/a.jpg", LIMIT)


# -- passwords ---------------------------------------------------------------------------------------------------


def test_a_login_goes_to_its_own_server_only(server):
    elsewhere = f"Location: http://localhost:{server.port}/there"
    for place, logins in (("Location: /there", 2), (elsewhere, 1)):
        server.play([("send", answer("302 Found", place))], PAGE)
        assert fetch(server.address.replace("//", "//m%40e:se:cret@"), LIMIT) == b"content"
        heads = b"".join(server.requests)
        assert heads.count(b"\r\nAuthorization: Basic bUBlOnNlOmNyZXQ=\r\n") == logins
        assert heads.count(f"Host: 127.0.0.1:{server.port}\r\n".encode()) == logins


@pytest.mark.parametrize(
    "address, shown",
    [
        ("https://me:geheim@host/a.jpg", "https://***@host/a.jpg"),
        ("https://geheim@host/a.jpg", "https://***@host/a.jpg"),
        ("HTTP://me:ge@he@im@host", "HTTP://***@host"),
        ("rtsp://admin:geheim@10.0.0.5:554/live", "rtsp://***@10.0.0.5:554/live"),
        ("https://me:ge/heim@host/a.jpg", "https://***@host/a.jpg"),
        ("https://me:ge#heim?@host/a.jpg", "https://***@host/a.jpg"),
        ("https://me:ge heim@host/a.jpg", "https://***@host/a.jpg"),
        ("https://host/@me/a.jpg", "https://host/@me/a.jpg"),
        ("https://host:80/a@b.jpg", "https://host:80/a@b.jpg"),
        ("https://[::1]:80/a@b.jpg", "https://[::1]:80/a@b.jpg"),
        ("https://host/a.jpg?w=9&token=geheim&h=1", "https://host/a.jpg?w=9&token=***&h=1"),
        ("https://s3/a?X-Amz-Signature=geheim&X-Amz-Date=1", "https://s3/a?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://s3/a?X-Amz-Credential=geheim&AWSAccessKeyId=g", "https://s3/a?X-Amz-Credential=***&AWSAccessKeyId=***"),
        ("https://maps/static?center=1&key=geheim", "https://maps/static?center=1&key=***"),
        ("https://blob/a?sv=1&sig=geheim%3D", "https://blob/a?sv=1&sig=***"),
        ("https://host/a#access_token=geheim", "https://host/a#access_token=***"),
        ("https://host/a;jsessionid=geheim?b=1", "https://host/a;jsessionid=***"),
        ("https://host/a?author=bob&monkey=1&keyword=x", "https://host/a?author=bob&monkey=1&keyword=x"),
    ],
)  # fmt: skip
def test_what_of_an_address_is_shown(address, shown):
    assert masked_address(address) == shown
    assert masked(f"see {shown}, and {shown}") == f"see {shown}, and {shown}"
    (source,) = expand([address], extensions=IMAGE_EXTENSIONS)
    assert source.name == shown
    assert "heim" not in str(source.relative)


def test_no_password_in_results_messages_or_names_of_files(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = (
        server.play([("send", answer("200 OK", body=CAT))]).replace("//", "//me:geheim@") + "/cat.jpg?token=geheim"
    )
    done = mmcli("caption", address, address.replace("127.0.0.1", "nowhere.invalid"), "--json", "--overlay", "out/",
                 "--debug")  # fmt: skip
    assert done.code == 1 and [bool(record.get("text")) for record in done.records] == [True, False]
    assert done.records[0]["source"] == f"http://***@127.0.0.1:{server.port}/cat.jpg?token=***"
    written = [str(path) for path in tmp_path.rglob("*")]
    assert "heim" not in done.out + done.err + "".join(written)
    assert "Traceback" in done.err and "nowhere.invalid" in done.err
    assert b"GET /cat.jpg?token=geheim HTTP/1.1" in server.requests[0]
    for other in (["caption", "rtsp://me:geheim@host/live"], ["transcribe", "https://me:ge#heim@nowhere.invalid/a.mp3"],
                  ["caption", "x.jpg", "--model", "https://me:geheim@host/a"], ["chat", address + "&a=1", "-m", "x"],
                  ["caption", "--files-from", "https://me:geheim@host/list"]):  # fmt: skip
        done = mmcli(*other)
        assert "heim" not in done.out + done.err


# -- offline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_fetched_offline(server, monkeypatch, variable):
    address = server.play(PAGE) + "/a.jpg"
    monkeypatch.setenv(variable, "1")
    for command in ("caption", "transcribe"):
        done = mmcli(command, address, "--json")
        assert done.code == 1 and f"{address} is not fetched: --offline (or HF_HUB_OFFLINE) forbids" in done.err
        assert done.err.count("\n") == 1 and "forbids" in json.loads(done.out)["error"]
    assert "forbids" in mmcli("chat", address, "-m", "caption en").err
    assert server.requests == []
    monkeypatch.setenv(variable, "0")
    assert fetch(address, LIMIT) == b"content"


def test_offline_as_an_option(server):
    address = server.play(PAGE) + "/a.jpg"
    done = forked("caption", address, "--offline", variables=os.environ | ONE_THREAD)
    assert done.code == 1 and "--offline (or HF_HUB_OFFLINE) forbids" in done.err and server.requests == []


def test_a_redirect_in_letters_of_any_script(server):
    place = "Location: /übung/猫.jpg".encode().decode("latin-1")
    assert fetch(server.play([("send", answer("302 Found", place))], PAGE), LIMIT) == b"content"
    assert server.requests[1].startswith(b"GET /%C3%BCbung/%E7%8C%AB.jpg HTTP/1.1\r\n")
