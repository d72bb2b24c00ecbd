"""One file from a web address: one limit on the time and the size of the whole exchange, and errors in plain words.

It is the standard library's parser on a connection of our own. What larger libraries offer are limits on single waits
and reads; the limits here hold over everything: looking the name up, redirects, interim answers, heads, chunks.
"""

import io
import ssl
import zlib
from base64 import b64encode
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from mmcli.errors import InputError, raise_if_interrupted
from mmcli.media.addresses import masked_address
from mmcli.media.exchange import Budget, TooMuch, TooSlow, Wire
from mmcli.media.hosts import Reach, check, check_unresolved, connect, is_plain, look_up
from mmcli.media.naming import printable, too_long
from mmcli.offline import is_offline

TIMEOUT = 10.0  # seconds without a byte, and for an exchange in which hardly any come
DEADLINE = 300.0  # seconds for the whole
REDIRECTS = 10
_CHUNK = 1 << 16
_CHECK = "Check the address and the network connection"
_YOURSELF = "Download the file yourself and name it"


@dataclass(frozen=True)
class Target:
    """An address taken apart, as it goes over the wire."""

    secure: bool
    host: str
    port: int
    path: str  # with its query
    login: bytes | None  # "name:password"

    @property
    def netloc(self) -> str:
        """host, or host:port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What must be the same for a login to be sent there."""
        return self.secure, self.host, self.port


def fetch(url: str, limit: int, *, timeout: float | None = None, deadline: float | None = None) -> bytes:
    """The bytes at `url` (http or https, redirects followed to these only); InputError for everything else."""
    name = printable(masked_address(url))
    if is_offline():
        what = f"{name} is not fetched: --offline (or HF_HUB_OFFLINE) forbids to use the network"
        raise InputError(what, "Download the file beforehand and name it")
    budget = Budget(TIMEOUT if timeout is None else timeout, DEADLINE if deadline is None else deadline)
    try:
        return _follow(url, name, limit, budget)
    except (TooSlow, TimeoutError) as error:
        if budget.received:
            raise InputError(f"{name} is arriving too slowly", _YOURSELF) from error
        raise InputError(f"{name} cannot be fetched: no answer in time", "Try again later") from error
    except TooMuch as error:
        raise InputError(f"{name} cannot be fetched: its server takes too long over its answer", _YOURSELF) from error
    except (OSError, HTTPException, ValueError, zlib.error) as error:
        raise _unreachable(name, error) from error


def user_agent() -> str:
    """How requests name themselves."""
    try:
        return f"mmcli/{version('mmcli')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "mmcli/unknown"


def _follow(url: str, name: str, limit: int, budget: Budget) -> bytes:
    target, reach = _target(url), None
    for _ in range(REDIRECTS + 1):
        with ExitStack() as closing:
            wire, reach, request = _open(target, name, reach, budget, closing)
            wire.send(request)
            response = wire.answer()
            place = response.headers.get("location")  # its bytes, as Latin-1
            if response.status not in (301, 302, 303, 307, 308) or not place:
                return _body(response, name, limit, budget)
        # The body of a redirect is never read: it is nothing to anybody, and may have no end.
        url = urljoin(url, place.encode("latin-1").decode("utf-8", "surrogateescape"))
        if _split(url).scheme not in ("http", "https"):
            what = f"{name} sends on to {_brief(masked_address(url))}, which is no web address"
            raise InputError(what, "Download the file yourself and name that")
        before, target = target, _target(url)
        if target.login is None and target.origin == before.origin:
            target = Target(*target.origin, target.path, before.login)
    raise InputError(f"{name} cannot be fetched: too many redirects", "Check the address")


# -- the connection ----------------------------------------------------------------------------------------------


def _target(url: str) -> Target:
    """The address as it goes over the wire: people paste addresses with spaces and letters of every script."""
    parts = _split(url)
    host = unquote_to_bytes(parts.hostname or "").decode()
    if not host:
        raise InputError(f"{printable(masked_address(url))} names no host", "Check the address")
    if any(char.isspace() or not char.isprintable() or char in "/?#@\\" for char in host):
        raise ValueError("its host holds characters that no host has")
    host = host if host.isascii() else host.encode("idna").decode("ascii")
    if host != parts.hostname and ":" not in host and is_plain(host):
        raise ValueError(f"it spells {host} in a roundabout way")
    safe = "/%:@!$&'()*+,;=~?[]"
    path = quote(parts.path or "/", safe=safe, errors="surrogateescape")
    query = f"?{quote(parts.query, safe=safe, errors='surrogateescape')}" if parts.query else ""
    secure = parts.scheme == "https"
    return Target(secure, host, parts.port or (443 if secure else 80), path + query, _login(parts))


def _split(url: str) -> SplitResult:
    """`urlsplit` whose complaints do not quote the address, in which there may be a password."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError("its host cannot be read") from None
    try:
        parts.port  # noqa: B018 (it is read, and may be wrong)
    except ValueError:
        raise ValueError("its port is not a valid number") from None
    return parts


def _login(parts: SplitResult) -> bytes | None:
    if parts.username is None:
        return None
    return unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")


def _open(
    target: Target, name: str, before: Reach | None, budget: Budget, closing: ExitStack
) -> tuple[Wire, Reach, bytes]:
    """A connection to where `target` is, its reach, and the request to send there; `closing` closes it."""
    proxy = _proxy(target)
    if proxy is not None:
        reach = check_unresolved(name, target.host, before)
        connection = closing.enter_context(connect(look_up(proxy.host, proxy.port, budget.seconds()), budget.seconds()))
        if not target.secure:
            more = _authorization("Proxy-Authorization", proxy)
            return Wire(connection, budget), reach, _request(target, f"http://{target.netloc}{target.path}", *more)
        _tunnel(Wire(connection, budget), target, proxy)
    else:
        places = look_up(target.host, target.port, budget.seconds())
        reach = max(check(name, target.host, place[0], before) for _, place in places)
        connection = closing.enter_context(connect(places, budget.seconds()))
    if target.secure:
        connection.settimeout(budget.seconds())
        connection = closing.enter_context(_tls().wrap_socket(connection, server_hostname=target.host))
    return Wire(connection, budget), reach, _request(target, target.path)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _proxy(target: Target) -> Target | None:
    """The proxy that the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) or the system names for a target."""
    address = getproxies().get("https" if target.secure else "http")
    if not address or proxy_bypass(target.netloc):
        return None
    address = address if "://" in address else f"http://{address}"
    if urlsplit(address).scheme != "http":
        raise InputError(f"The proxy {masked_address(address)} is of an unsupported kind", "Name one with http://")
    return _target(address)


def _tunnel(wire: Wire, target: Target, proxy: Target) -> None:
    host = f"{target.netloc.removesuffix(f':{target.port}')}:{target.port}"
    wire.send(_lines(f"CONNECT {host} HTTP/1.1", f"Host: {host}", *_authorization("Proxy-Authorization", proxy)))
    answer = wire.answer("CONNECT")
    if answer.status != 200:
        raise OSError(f"the proxy {proxy.netloc} answered {answer.status} {_brief(answer.reason or '')}".rstrip())


def _request(target: Target, path: str, *more: str) -> bytes:
    """The head of the request: nothing packed is asked for, and the connection is used once."""
    return _lines(
        f"GET {path} HTTP/1.1",
        f"Host: {target.netloc}",
        f"User-Agent: {user_agent()}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
        *_authorization("Authorization", target),
        *more,
    )


def _authorization(header: str, target: Target) -> tuple[str, ...]:
    return (f"{header}: Basic {b64encode(target.login).decode()}",) if target.login is not None else ()


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


# -- the answer --------------------------------------------------------------------------------------------------


def _body(response: HTTPResponse, name: str, limit: int, budget: Budget) -> bytes:
    if response.status not in (200, 203):
        raise _refused(name, response)
    packed = (response.headers.get("content-encoding") or "identity").strip().lower()
    if packed not in ("identity", "gzip", "x-gzip", "deflate"):
        raise InputError(f"{name} is compressed in an unsupported way ({_brief(packed)})", _YOURSELF)
    announced = response.length  # None where the server does not say
    if announced is not None and announced > limit:
        raise too_long(name, limit)
    budget.begin_body()
    unpack = zlib.decompressobj(wbits=47) if packed != "identity" else None
    body, received = io.BytesIO(), 0
    while chunk := response.read1(_CHUNK):
        received += len(chunk)
        budget.body(received)
        body.write(unpack.decompress(chunk, limit - body.tell() + 1) if unpack else chunk)
        if body.tell() > limit:
            raise too_long(name, limit)
    if announced is not None and received < announced:
        raise InputError(f"{name} broke off after {received:,} of {announced:,} bytes", "Try again")
    if not received:
        raise InputError(f"{name} cannot be fetched: the server sent nothing", "Try again")
    if unpack and not unpack.eof:
        raise InputError(f"{name} broke off after {received:,} bytes", "Try again")
    return body.getvalue()


def _refused(name: str, response: HTTPResponse) -> InputError:
    status = response.status
    do = {
        401: "It asks for a login: download the file yourself and name it",
        403: "It does not let programs in: download the file yourself and name it",
        404: "Check the address",
        410: "Check the address",
    }.get(status, "Try again later" if status == 429 or status >= 500 else "")
    answer = f"{status} {_brief(response.reason or '')}".rstrip()
    return InputError(f"{name} cannot be fetched: the server answered {answer}", do)


def _unreachable(name: str, error: Exception) -> InputError:
    """What went wrong below, in words: with the network, the server's HTTP or the address."""
    raise_if_interrupted(error)
    failed = f"{name} cannot be fetched"
    if isinstance(error, ConnectionRefusedError):
        return InputError(f"{failed}: the connection was refused", _CHECK)
    if isinstance(error, ssl.SSLCertVerificationError):
        do = "Download the file yourself if you trust it"
        return InputError(f"{failed}: its certificate is not valid ({error.verify_message})", do)
    if isinstance(error, ssl.SSLError):
        return InputError(f"{failed}: no secure connection came about ({_brief(error.reason or str(error))})", _CHECK)
    if isinstance(error, (RemoteDisconnected, IncompleteRead)):
        return InputError(f"{failed}: the server broke the connection off", "Try again")
    if isinstance(error, (BadStatusLine, LineTooLong, HTTPException)):
        return InputError(f"{failed}: the answer is not valid HTTP", _CHECK)
    if isinstance(error, zlib.error):
        return InputError(f"{failed}: its compressed data is damaged", _YOURSELF)
    if isinstance(error, OSError):
        return InputError(f"{failed}: {_brief(error.strerror or str(error) or type(error).__name__)}", _CHECK)
    return InputError(f"{name} is no valid web address: {_brief(str(error))}", "Check the address")


def _brief(text: str) -> str:
    """The beginning of what a server says, fit for a terminal."""
    return printable(text[:120])
