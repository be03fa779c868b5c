"""Which address a request counts for, whatever it claims."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.access.address import ClientAddresses, counted_as

PROXIES = ["10.0.0.0/8", "2001:db8:ffff::/48", "192.0.2.1"]


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", text.encode("latin-1")) for text in forwarded]
    return {"client": None if peer is None else (peer, 1234), "headers": [(b"host", b"x"), *headers]}


def client(peer: str | None, *forwarded: str, trusted: list[str] = PROXIES) -> str:
    return ClientAddresses(trusted).client_of(scope(peer, *forwarded))


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # nobody trusts it
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),  # the left one is made up
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9, 192.0.2.1, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, garbage, 10.9.9.9"], "10.9.9.9"),  # who wrote that is not known
        ("10.0.0.1", ["203.0.113.9,"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        ("10.0.0.1", ["203.0.113.9:5678"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8:1:2:3::4]:5678"], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["2001:db8:1:2:3::4"], "2001:db8:1:2::/64"),
        ("2001:db8:ffff::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("testclient", [], "unknown"),
        (None, ["203.0.113.9"], "unknown"),
    ],
)
def test_the_first_address_from_the_right_that_no_trusted_proxy_wrote_counts(
    peer: str | None, forwarded: list[str], counted: str
) -> None:
    assert client(peer, *forwarded) == counted


def test_without_trusted_proxies_the_header_gains_nothing() -> None:
    assert {client("10.0.0.1", f"198.51.100.{last}", trusted=[]) for last in range(256)} == {"10.0.0.1"}


def test_behind_a_proxy_rotating_what_stands_left_gains_nothing() -> None:
    assert {client("10.0.0.1", f"198.51.100.{last}, 203.0.113.9") for last in range(256)} == {"203.0.113.9"}


def test_a_million_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert {counted_as(f"2001:db8:1:2:{part:x}::{part:x}") for part in range(0, 65_536, 97)} == {
        "2001:db8:1:2::/64"
    }


@given(st.text(), st.lists(st.text(st.characters(max_codepoint=255))))
def test_nothing_that_is_sent_raises(peer: str, forwarded: list[str]) -> None:
    assert client(peer, *forwarded)
    assert client("10.0.0.1", *forwarded)


@given(st.binary(max_size=20), st.ip_addresses())
def test_whatever_precedes_it_the_address_that_the_proxy_wrote_counts(junk: bytes, real: Any) -> None:
    trusted = ["10.0.0.1"]
    if str(real) in trusted:
        return
    assert client("10.0.0.1", f"{junk.decode('latin-1')},{real}", trusted=trusted) == counted_as(str(real))


def test_an_entry_that_is_too_long_for_an_address_is_none_and_is_not_remembered() -> None:
    from chat_sse.access import address  # noqa: PLC0415 - its cache is what is looked at

    before = address._parse.cache_info().currsize  # noqa: SLF001
    for number in range(5):
        assert client("10.0.0.1", f"fe80::1%{number}{'x' * 60_000}") == "10.0.0.1"
    assert address._parse.cache_info().currsize <= before + 1  # noqa: SLF001 - the proxy's own


def test_an_address_has_sixty_four_characters_at_most() -> None:
    assert client("10.0.0.1", f"fe80::1%{'x' * 56}") == "fe80::/64"
    assert client("10.0.0.1", f"fe80::1%{'x' * 57}") == "10.0.0.1"


@pytest.mark.parametrize(
    ("trusted", "server", "counted"),
    [
        (["unix"], ("/run/x.sock", None), "203.0.113.9"),
        (["unix"], ("10.0.0.9", 80), "unknown"),  # no socket of ours
        (["unix"], None, "unknown"),
        (["10.0.0.1"], ("/run/x.sock", None), "unknown"),
        ([], ("/run/x.sock", None), "unknown"),
    ],
)
def test_a_proxy_behind_a_unix_socket_is_trusted_by_that_name_alone(
    trusted: list[str], server: tuple[str, int | None] | None, counted: str
) -> None:
    connection = {**scope(None, "203.0.113.9"), "server": server}
    addresses = ClientAddresses(trusted)
    assert addresses.client_of(connection) == counted
    assert addresses.trusts_peer(connection) == (counted == "203.0.113.9")


def test_a_chain_is_walked_to_a_bound() -> None:
    assert client("10.0.0.1", "203.0.113.9" + ", 10.0.0.2" * 31) == "203.0.113.9"
    assert client("10.0.0.1", "203.0.113.9" + ", 10.0.0.2" * 32) == "10.0.0.2"
    assert client("10.0.0.1", "203.0.113.9" + ", 10.0.0.2" * 20) == "203.0.113.9"
    assert client("10.0.0.1", "203.0.113.9" + ", 10.0.0.2" * 100_000) == "10.0.0.2"
