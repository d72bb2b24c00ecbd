"""Web addresses as text: what of them may be shown, and where outputs that belong to one go. Imports nothing heavy."""

import os
import re
from pathlib import PurePosixPath

MASK = "***"

_LOGIN = re.compile(r"(?<=://)[^\s/?#]*@")
_SECRET = re.compile(  # a parameter whose name says that its value lets somebody in
    r"([?&;#](?:[^\s=&;#]{0,60}(?:token|secret|signature|passw|pwd|api_?key|access_?key|credential|session|auth(?!or))"
    r"[^\s=&;#]{0,60}|key|sig)=)[^\s&;#]*[^\s&;#.,:)\]'\"]",
    re.IGNORECASE,
)


def is_web(name: str) -> bool:
    """Whether a name is an address that can be fetched."""
    return name.lower().startswith(("http://", "https://"))


def masked(text: str) -> str:
    """`text` with the user names and passwords, tokens, keys and signatures in its addresses hidden."""
    if "://" not in text:
        return text
    return _SECRET.sub(rf"\1{MASK}", _LOGIN.sub(f"{MASK}@", text))


def masked_address(url: str) -> str:
    """The same for one address: a password in it may hold any character, as people write them."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    port = authority.rpartition(":")[2] if ":" in authority else ""
    unescaped = "@" not in authority and not authority.startswith("[") and port and not port.isdigit()
    if ("@" in authority and any(char.isspace() for char in authority)) or (unescaped and "@" in rest):
        return masked(f"{scheme}://{MASK}@{rest.rpartition('@')[2]}")
    return masked(url)


def place_of(url: str) -> PurePosixPath:
    """host/path/name of the address; what the query and the length limit take away comes back as a short hash."""
    import hashlib
    from urllib.parse import unquote

    address = masked_address(url).split("://", 1)[1].partition("#")[0]
    address, _, query = address.partition("?")
    parts = [unquote(part, errors="replace") for part in address.split("/")]
    parts[0] = parts[0].rpartition("@")[2].lower()
    parts = ["".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in part) for part in parts]
    parts = [part for part in parts if part not in ("", ".", "..")] or ["unnamed"]
    if query or any(len(part.encode()) > 200 for part in parts):
        stem, ending = os.path.splitext(parts[-1])
        parts = [part[:50] for part in parts[:-1]]
        parts.append(f"{stem[:50]}-{hashlib.sha256(url.encode('utf-8', 'replace')).hexdigest()[:8]}{ending[:10]}")
    return PurePosixPath(*parts)
