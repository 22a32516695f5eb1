"""Addresses of this machine at which processes on other machines can connect to it."""

import ipaddress
import socket

import psutil

ELSEWHERE = "192.0.2.1"  # reserved for documentation by RFC 5737: nearly everywhere it takes the default route


def reachable_name() -> str:
    """Return the host name, or an address of this machine if its name means nothing but this machine here.

    Debian and Ubuntu resolve a machine's own name to 127.0.1.1, and some container images do not resolve it at all.
    """
    name = socket.gethostname()
    if is_reachable(resolve(name)):
        return name
    return _own_address_towards(ELSEWHERE) or name


def resolve(name: str) -> str:
    """Return the address of a host; empty if its name has none."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def is_reachable(address: str) -> bool:
    """Whether an address could be that of a machine for others: it exists and is no loopback address."""
    return bool(address) and not ipaddress.ip_address(address).is_loopback


def interface_towards(address: str) -> str | None:
    """Return the name of the network interface from which this machine reaches an address; None if it does not."""
    own = _own_address_towards(address)
    for name, addresses in psutil.net_if_addrs().items():
        if own in [each.address.partition("%")[0] for each in addresses]:
            return name
    return None


def _own_address_towards(address: str) -> str | None:
    """Return the address of this machine in a connection to another address; None if there is no route to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unused:
            unused.connect((address, 9))  # chooses a route, and sends nothing
            return str(unused.getsockname()[0])
    except OSError:
        return None
