"""Real connections: names that flip their addresses, and spellings of loopback."""

from __future__ import annotations

import pytest
from aiohttp import ClientConnectorError, ClientError
from dialled import Flipping, middleman, pool, sites


@pytest.mark.parametrize(
    ("outside", "inside"), [("127.0.0.2", "127.0.0.1"), ("127.0.0.2", "::1"), ("::1", "127.0.0.1")]
)
@pytest.mark.parametrize("through_proxy", [False, True])
async def test_a_name_that_flips_to_our_own_network_reaches_nobody(
    outside: str, inside: str, through_proxy: bool
) -> None:
    async with sites(outside, inside) as (good, bad), middleman() as proxy:
        options = proxy.options if through_proxy else {}
        resolver = Flipping([outside], [inside])
        async with pool(resolver, allow_networks=[outside], **options) as dialling:
            url = f"http://partner.test:{good.port}/"
            close = {"headers": {"Connection": "close"}}
            assert (await dialling.get(url, **close)).startswith(outside)
            with pytest.raises(ClientConnectorError, match="not a public address"):
                await dialling.get(url, **close)
            assert (await dialling.get(url, **close)).startswith(outside)
        assert resolver.asked == ["partner.test"] * 3
    assert (good.visits, bad.visits) == (2, 0)
    assert {address.rpartition(":")[0].strip("[]") for address in dialling.dialled} == {outside}


@pytest.mark.parametrize("through_proxy", [False, True])
async def test_of_several_addresses_only_those_allowed_are_dialled(through_proxy: bool) -> None:
    async with sites("127.0.0.1", "::1", "127.0.0.2") as (first, second, third), middleman() as proxy:
        options = proxy.options if through_proxy else {}
        resolver = Flipping(["::1", "127.0.0.1", "169.254.169.254", "127.0.0.2"])
        async with pool(resolver, allow_networks=["127.0.0.2"], **options) as dialling:
            answer = await dialling.get(f"http://partner.test:{first.port}/")
        assert answer == f"127.0.0.2 partner.test:{first.port}"
    assert (first.visits, second.visits, third.visits) == (0, 0, 1)
    assert dialling.dialled == [f"127.0.0.2:{first.port}"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "１２７.０.０.１",
        "①②⑦。0。0。1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::]",
        "[::127.0.0.1]",
        "[::1%25lo]",
    ],
)
@pytest.mark.parametrize("through_proxy", [False, True])
async def test_no_spelling_of_loopback_gets_through(host: str, through_proxy: bool) -> None:
    async with sites("127.0.0.1", "::1") as (four, six), middleman() as proxy:
        options = proxy.options if through_proxy else {}
        async with pool(**options) as dialling:
            url = f"http://{host}:{four.port}/"
            with pytest.raises((ClientError, OSError)):
                await dialling.get(url)
    assert (four.visits, six.visits, proxy.asked, dialling.dialled) == (0, 0, [], [])


@pytest.mark.parametrize(("address", "name"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
async def test_the_same_is_reached_once_it_is_allowed(address: str, name: str) -> None:
    async with sites(address) as (site,), pool(allow_networks=[address]) as dialling:
        assert (await dialling.get(f"http://{name}:{site.port}/")).startswith(address)


async def test_a_port_that_is_not_allowed_is_not_dialled() -> None:
    async with sites("127.0.0.1") as (site,), pool(allow_networks=["127.0.0.1"], allow_ports=[443]) as dialling:
        with pytest.raises(ClientConnectorError, match="not among allow_ports: 443"):
            await dialling.get(f"http://127.0.0.1:{site.port}/")
    assert site.visits == 0
