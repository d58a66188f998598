"""Which addresses a receiver may have, and which URLs are refused when they are configured."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.delivery.dialling import DiallingSettings
from bridge.delivery.dialling.addresses import address_of, is_public
from bridge.delivery.dialling.judge import AddressInfo, Judge
from bridge.secret import Referenced

PUBLIC = [
    "1.1.1.1",
    "93.184.215.14",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "2606:4700:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
    "2002:101:101::1",
    "2a00:1450:4001:80b:0:5efe:101:101",
]
PRIVATE = [
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.168.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:100.64.0.1",
    "fc00::1",
    "fdff::1",
]
NEITHER = [
    "0.0.0.0",
    "100.100.100.200",
    "169.254.169.254",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::7f00:1",
    "::101:101",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "64:ff9b:1::1",
    "64:ff9b:1::101:101",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a83f:8110::1",
    "2002:a00:1::1",
    "2a00:1450:4001:80b:0:5efe:7f00:1",
    "2a00:1450:4001:80b:200:5efe:a9fe:a9fe",
    "3fff::1",
    "5f00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
NO_ADDRESS = ["fe80::1%eth0", "2606:4700:4700::1111%eth0", "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "", "a.b"]

STRICT = Judge((), None, False)


def info(host: str, port: int = 443) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (family, socket.SOCK_STREAM, 0, "", (host, port, 0, 0) if ":" in host else (host, port))


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_may_be_dialled(host: str) -> None:
    assert STRICT.address_refusal(host) is None
    with STRICT.socket(info(host)) as made:
        assert made.family is (socket.AF_INET6 if ":" in host else socket.AF_INET)


@pytest.mark.parametrize("host", PRIVATE + NEITHER + NO_ADDRESS)
def test_every_other_address_gets_no_socket(host: str) -> None:
    with pytest.raises(PermissionError) as caught:
        STRICT.socket(info(host))
    assert caught.value.errno == errno.EACCES
    assert host in str(caught.value)


@pytest.mark.parametrize("host", PRIVATE)
def test_the_wide_switch_opens_private_addresses(host: str) -> None:
    assert Judge((), None, True).address_refusal(host) is None


@pytest.mark.parametrize("host", NEITHER + NO_ADDRESS)
def test_the_wide_switch_opens_nothing_else(host: str) -> None:
    assert Judge((), None, True).address_refusal(host) is not None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("10.1.0.0/16", ["10.1.0.0", "10.1.255.255", "::ffff:10.1.2.3"], ["10.0.255.255", "10.2.0.0", "127.0.0.1"]),
        ("10.1.0.0/16", [], ["2002:a01:203::1", "64:ff9b::a01:203", "64:ff9b:1::a01:203", "::a01:203"]),
        ("169.254.169.254", ["169.254.169.254"], ["169.254.169.253", "169.254.169.255"]),
        ("fd00:1::/32", ["fd00:1::", "fd00:1:ffff::1"], ["fd00:2::", "fe80::1", "::1"]),
        ("fe80::/10", ["fe80::1"], ["fe80::1%eth0"]),
        ("64:ff9b:1::/48", ["64:ff9b:1::a01:203"], ["10.1.2.3"]),
    ],
)
def test_a_network_of_the_allow_list_is_opened_exactly(network: str, inside: list[str], outside: list[str]) -> None:
    judge = dialling(allow_networks=[network]).judge
    assert [host for host in inside if judge.address_refusal(host)] == []
    assert [host for host in outside if not judge.address_refusal(host)] == []


def test_ipv4_in_ipv6_spelling_is_the_same_host() -> None:
    assert address_of("::ffff:7f00:1") == address_of("127.0.0.1")


@pytest.mark.parametrize("host", ["2002:101:101:0:0:5efe:7f00:1", "2002:7f00:1:0:0:5efe:101:101"])
def test_of_two_addresses_that_one_carries_both_are_judged(host: str) -> None:
    address = address_of(host)  # ISATAP within 6to4
    assert address is not None
    assert not is_public(address)


# -- what is refused when it is configured


def dialling(url: str = "https://partner.example/hook", **options: Any) -> DiallingSettings:
    return DiallingSettings.model_validate({"url": url} | options)


def refused(url: str = "https://partner.example/hook", **options: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        dialling(url, **options)
    (error,) = caught.value.errors()
    return error["msg"]


@pytest.mark.parametrize(
    "url", ["https://a.example", "https://a.example:8443/x?y", "https://1.1.1.1", "https://bücher.example"]
)
def test_a_plain_url_is_taken_as_it_stands(url: str) -> None:
    assert dialling(url).url == url


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "1.1.1.1.",
        "１２７.1",
        "127。1",
        "①②⑦.①",
        "256.1.1.1",
        "[fe80::1%25eth0]",
        "[2606:4700:4700::1111%eth0]",
    ],
)
def test_an_address_in_an_unusual_form_is_refused(host: str) -> None:
    assert "unusual form" in refused(f"https://{host}/hook", allow_private_networks=True)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "１２７.０.０.１", "127。0。0。1", "[::1]", "[::ffff:7f00:1]", "10.1.2.3"]
)
def test_a_private_address_is_refused_where_it_is_written_down(host: str) -> None:
    assert "open its network with allow_networks" in refused(f"https://{host}/hook")
    dialling(f"https://{host}/hook", allow_private_networks=True)


def test_a_metadata_address_is_refused_even_with_private_networks() -> None:
    assert "allow_networks" in refused("https://169.254.169.254/latest", allow_private_networks=True)
    dialling("https://169.254.169.254/latest", allow_networks=["169.254.169.254/32"])


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///hook",
        "ftp://a.example",
        "a.example/hook",
        "https://a..example",
        f"https://{'a' * 64}.example",
        "https://a.example:99999",
        "https://a.example:0",
        "https://a%00.example",
        "https://a b.example",
        "https://127%2e0.0.1",
        "https://[127.0.0.1]",
        "https://a.example\\@127.0.0.1",
        "https://user@a.example",
        "https://1.1.1.1:443@a.example",
    ],
)
def test_a_url_that_names_no_host_is_refused(url: str) -> None:
    assert refused(url, allow_private_networks=True).startswith("Value error, url ")


def test_http_needs_to_be_allowed() -> None:
    assert "set allow_http" in refused("http://a.example")
    assert dialling("http://a.example", allow_http=True).url == "http://a.example"


def test_ports_are_those_of_web_servers_unless_others_are_named() -> None:
    for port in (80, 443, 8080, 8443):
        dialling(f"https://a.example:{port}")
    assert "port 25 is not among allow_ports: 80, 443, 8080, 8443" in refused("https://a.example:25")
    assert "port 443 is not among allow_ports: 25" in refused("https://a.example", allow_ports=[25])
    dialling("https://a.example:25", allow_private_networks=True)
    assert "port 26" in refused("https://a.example:26", allow_private_networks=True, allow_ports=[25])


def test_a_port_is_judged_again_when_it_is_dialled() -> None:
    with pytest.raises(PermissionError, match="port 25 is not among allow_ports"):
        dialling().judge.socket(info("1.1.1.1", 25))


@pytest.mark.parametrize(
    ("network", "reason"),
    [("10.1.2.3/16", "host bits"), ("10.0.0.0/33", "10.0.0.0/33"), (10, "written like"), ("partner", "partner")],
)
def test_a_network_that_is_none_is_refused(network: object, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        dialling(allow_networks=[network])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"proxy": "proxy:3128"}, "http://host:port"),
        ({"proxy": "https://proxy:3128"}, "http://host:port"),
        ({"proxy": "socks5://proxy:1080"}, "http://host:port"),
        ({"proxy": "http://proxy:3128/path"}, "http://host:port"),
        ({"proxy": "http://proxy:99999"}, "proxy is not a URL"),
        ({"proxy": "http://me:secret@proxy:3128"}, "use proxy_username and proxy_password"),
        ({"proxy_username": "me"}, "need a proxy"),
        ({"proxy": "http://proxy:3128", "proxy_username": "a:b"}, "colon"),
        ({"proxy": "http://proxy:3128", "proxy_username": "a\r\nb"}, "control characters"),
        ({"proxy": "http://proxy:3128", "proxy_password": Referenced("geheim-geheim")}, "needs a proxy_username"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(options: dict[str, Any], reason: str) -> None:
    assert reason in refused(**options)


def test_a_proxys_password_is_never_shown() -> None:
    given = {"proxy": "http://proxy:3128", "proxy_username": "me", "proxy_password": Referenced("geheim-geheim")}
    settings = dialling(**given)
    assert settings.proxy_to_dial is not None
    assert settings.proxy_to_dial.password == "geheim-geheim"
    assert "geheim" not in repr(settings) + repr(settings.proxy_to_dial)
