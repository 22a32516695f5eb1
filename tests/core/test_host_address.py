"""Addresses at which other machines can connect to this one."""

import socket
from collections.abc import Callable

import psutil
import pytest

from bench.core import host_address
from bench.core.host_address import interface_towards, is_reachable, reachable_name, resolve

Resolve = Callable[[str], None]


@pytest.fixture
def own_name(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Lets the host name resolve to an address, or to none."""

    def resolves_to(address: str) -> None:
        def getaddrinfo(name: str, *_: object, **__: object) -> list[tuple[object, ...]]:
            assert name == "node7"
            if not address:
                raise socket.gaierror("Name or service not known")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))]

        monkeypatch.setattr(socket, "gethostname", lambda: "node7")
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolves_to


@pytest.mark.parametrize(
    ("address", "reachable"),
    [("10.1.2.3", True), ("127.0.0.1", False), ("127.0.1.1", False), ("::1", False), ("fd00::7", True), ("", False)],
)
def test_loopback_addresses_are_not_reachable_by_others(address: str, reachable: bool) -> None:
    assert is_reachable(address) == reachable


def test_a_host_name_that_others_can_use_is_taken(own_name: Resolve) -> None:
    own_name("10.1.2.3")
    assert reachable_name() == "node7"


@pytest.mark.parametrize("address", ["127.0.1.1", ""])
def test_the_address_of_the_default_route_replaces_a_name_of_no_use(
    own_name: Resolve, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    own_name(address)
    monkeypatch.setattr(host_address, "_own_address_towards", lambda address: "10.1.2.3")
    assert reachable_name() == "10.1.2.3"
    monkeypatch.setattr(host_address, "_own_address_towards", lambda address: None)
    assert reachable_name() == "node7", "without a network there is nothing better"


def test_names_are_resolved_and_unknown_ones_have_no_address() -> None:
    assert resolve("127.0.0.1") == "127.0.0.1"
    assert resolve("no-such-host.invalid") == ""


def test_each_address_of_this_machine_is_reached_from_its_own_interface() -> None:
    found = {
        each.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for each in addresses
        if each.family == socket.AF_INET
    }
    assert found
    assert {address: interface_towards(address) for address in found} == found


def test_no_interface_reaches_what_is_no_address() -> None:
    assert interface_towards("256.0.0.1") is None
