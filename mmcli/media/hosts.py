"""Which machine a web address leads to, and whether it may: looked up once, checked, and that very address is used.

A name that somebody else controls, or a redirect, must not lead to the services that a machine offers to itself: the
metadata of clouds, which hands out credentials, lies at link-local addresses.
"""

import socket
import threading
from contextlib import suppress
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from mmcli.errors import InputError

METADATA_HOSTS = ("metadata.google.internal", "metadata.goog", "instance-data.ec2.internal", "metadata.azure.internal")


class Reach(IntEnum):
    """From how far away an address can be reached."""

    PUBLIC = 0
    PRIVATE = 1  # a home's or a company's network
    LOOPBACK = 2
    INTERNAL = 3  # link-local, metadata of clouds, and what is no single machine's address


_NETWORKS = {
    Reach.INTERNAL: ("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128")
    + ("fe80::/10", "ff00::/8", "fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "168.63.129.16/32"),
    Reach.LOOPBACK: ("127.0.0.0/8", "::1/128"),
    Reach.PRIVATE: ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15")
    + ("fc00::/7", "fec0::/10"),
}
_REACHES = [(ip_network(text), reach) for reach, texts in _NETWORKS.items() for text in texts]
_NAT64 = ip_network("64:ff9b::/96")

Place = tuple[socket.AddressFamily, tuple]  # a family and an address that `socket.connect` takes


def reach(address: str) -> Reach:
    """How far away an IP address is; one that wraps an IPv4 address counts as that."""
    parsed = _unwrapped(ip_address(address.partition("%")[0]))
    return next((found for network, found in _REACHES if parsed in network), Reach.PUBLIC)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):  # ::a.b.c.d, long out of use
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def check(name: str, host: str, address: str, before: Reach | None) -> Reach:
    """Refuse, with InputError, an address to which `host` must not lead; its reach where it may.

    `name` is what the user knows the whole as; `before` the reach of the address that sent here (None: the user did).
    An address that the user wrote down himself, in its plain spelling, is always right, and so is every name that he
    wrote down unless it leads to what is internal. A redirect must not lead further inwards.
    """
    found = reach(address)
    if before is None:
        wrong = found == Reach.INTERNAL and not is_plain(host)
    else:
        wrong = found == Reach.INTERNAL or found > before
    if wrong:
        kind = {Reach.INTERNAL: "link-local, cloud metadata or the like", Reach.LOOPBACK: "this machine itself"}
        what = f"{name} leads to {address} ({kind.get(found, 'a private network')}), which is refused"
        raise InputError(what, "Name that address itself if it is meant")
    return found


def check_unresolved(name: str, host: str, before: Reach | None) -> Reach:
    """`check` where a proxy looks the name up, as far as the name tells; what it does not tell counts as public."""
    if host.rstrip(".").lower() in METADATA_HOSTS:
        raise InputError(f"{name} leads to the metadata of a cloud, which is refused", "Check the address")
    with suppress(ValueError, OSError):
        spelled = host if is_plain(host) else socket.inet_ntoa(socket.inet_aton(host))
        return check(name, host, spelled, before)
    return Reach.PUBLIC


def is_plain(host: str) -> bool:
    """Whether `host` is an IP address as it is usually written: not 2852039166, 0xa9fea9fe, ::ffff:169.254.169.254."""
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return _unwrapped(parsed) == parsed


def look_up(host: str, port: int, seconds: float) -> list[Place]:
    """Every address of a host, in the order to try them. Raises OSError in words; TimeoutError after `seconds`."""
    answer: list = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            answer.append(OSError(f"the host {host} is not found"))

    asking = threading.Thread(target=ask, daemon=True, name="look-up")  # the system's own limit may be minutes
    asking.start()
    asking.join(seconds)
    if not answer:
        raise TimeoutError
    if isinstance(answer[0], Exception):
        raise answer[0]
    return [(family, place) for family, _, _, _, place in answer[0]]


def connect(places: list[Place], seconds: float) -> socket.socket:
    """A connection to the first of `places` that answers, within `seconds` in all. Raises OSError."""
    failure = OSError("it has no address")
    for i, (family, place) in enumerate(places):
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a system without IPv6
            failure = error
            continue
        try:
            connection.settimeout(seconds / (len(places) - i))
            connection.connect(place)
            return connection
        except OSError as error:
            failure = error
            connection.close()
    raise failure
