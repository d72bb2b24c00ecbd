"""One file from a web address, with the standard library: a time limit, a size limit and errors in plain words."""

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from mmcli.errors import InputError
from mmcli.media.sources import printable, too_long

TIMEOUT = 30.0  # seconds without a single byte
DEADLINE = 300.0  # seconds for one whole file
_CHUNK = 1 << 16
_CHECK = "Check the address and the network connection"


def fetch(url: str, limit: int, *, timeout: float = TIMEOUT, deadline: float = DEADLINE) -> bytes:
    """The bytes at `url` (http or https, redirects followed to these only); InputError for everything else."""
    name = printable(url)
    until = time.monotonic() + deadline
    try:
        request = urllib.request.Request(_ascii_url(url), headers={"User-Agent": user_agent()})
        with _opener().open(request, timeout=timeout) as response:
            return _read_body(response, name, limit, until)
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(name, error) from error
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, Exception) else error
        raise _unreachable(name, url, reason) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(name, url, error) from error


def user_agent() -> str:
    """How requests name themselves."""
    try:
        return f"mmcli/{version('mmcli')}"
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "mmcli/unknown"


def _read_body(response: http.client.HTTPResponse, name: str, limit: int, until: float) -> bytes:
    announced = response.length  # None where the server does not say
    if announced is not None and announced > limit:
        raise too_long(name, limit)
    chunks, total = [], 0
    while chunk := response.read1(_CHUNK):
        total += len(chunk)
        if total > limit:
            raise too_long(name, limit)
        if time.monotonic() > until:
            raise InputError(f"{name} is arriving too slowly", "Download it yourself and name the file")
        chunks.append(chunk)
    if announced is not None and total < announced:
        raise InputError(f"{name} broke off after {total:,} of {announced:,} bytes", "Try again")
    return b"".join(chunks)


class _WebRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never away from the web: the standard one would also go to ftp."""

    def http_error_302(self, req, fp, code, msg, headers):
        target = urljoin(req.full_url, headers.get("location") or headers.get("uri") or "")
        if urlsplit(target).scheme not in ("http", "https"):
            fp.close()
            what = f"{printable(req.full_url)} sends on to {printable(target)}, which is no web address"
            raise InputError(what, "Download the file yourself and name that")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Only what the web needs: `build_opener` would add handlers for file:, ftp: and data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _WebRedirects(),
    ):
        opener.add_handler(handler)
    return opener


def _ascii_url(url: str) -> str:
    """`url` as it goes over the wire: people paste addresses with spaces and letters of every script."""
    parts = urlsplit(url.strip())
    if not parts.hostname:
        raise InputError(f"{printable(url)} names no host", "Check the address")
    if parts.username is not None:
        raise InputError(f"The address of {parts.hostname} holds a user name", "Download the file yourself and name it")
    host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode("ascii")
    host = f"[{host}]" if ":" in host else host
    host = f"{host}:{parts.port}" if parts.port else host
    safe = "/%:@!$&'()*+,;=~?[]"
    path = quote(parts.path or "/", safe=safe, errors="surrogateescape")
    return urlunsplit((parts.scheme, host, path, quote(parts.query, safe=safe, errors="surrogateescape"), ""))


def _refused(name: str, error: urllib.error.HTTPError) -> InputError:
    if 300 <= error.code < 400:
        return InputError(f"{name} cannot be fetched: its redirects have no end", "Check the address")
    do = {
        401: "It asks for a login: download the file yourself and name it",
        403: "It does not let programs in: download the file yourself and name it",
        404: "Check the address",
        410: "Check the address",
    }.get(error.code, "Try again later" if error.code == 429 or error.code >= 500 else "")
    return InputError(f"{name} cannot be fetched: the server answered {error.code} {printable(error.reason or '')}", do)


def _unreachable(name: str, url: str, error: Exception) -> InputError:
    if isinstance(error, socket.gaierror):
        return InputError(f"{name} cannot be fetched: the host {urlsplit(url).hostname} is not found", _CHECK)
    if isinstance(error, TimeoutError):
        return InputError(f"{name} cannot be fetched: no answer in time", "Try again later")
    if isinstance(error, ConnectionRefusedError):
        return InputError(f"{name} cannot be fetched: the connection was refused", _CHECK)
    if isinstance(error, ssl.SSLCertVerificationError):
        do = "Download the file yourself if you trust it"
        return InputError(f"{name} cannot be fetched: its certificate is not valid ({error.verify_message})", do)
    if isinstance(error, (ConnectionError, http.client.HTTPException, OSError)):
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return InputError(f"{name} cannot be fetched: {printable(reason)}", _CHECK)
    return InputError(f"{name} is no valid web address: {printable(str(error))}", "Check the address")
