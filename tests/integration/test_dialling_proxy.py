"""A real proxy, asked for addresses that were judged, and TLS that still verifies the name."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from aiohttp import ClientConnectorCertificateError, ClientConnectorError
from certificates import Authority
from dialled import Flipping, middleman, pool, sites
from receiving import ENTRY, listening, opened

from bridge.delivery.sink import Trial
from bridge.errors import Temporary
from bridge.secret import Referenced


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> ssl.SSLContext:
    own = authority.sign("partner")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.file, own.key_file)
    return context


@pytest.fixture(scope="module")
def trusted(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.file)


async def encrypted_through_the_proxy(served: ssl.SSLContext, trusted: ssl.SSLContext) -> None:
    async with sites("127.0.0.1", tls=served) as (site,), middleman() as proxy:
        resolver = Flipping(["127.0.0.1"])
        async with pool(resolver, allow_networks=["127.0.0.1"], **proxy.options) as dialling:
            url = f"https://partner.test:{site.port}/"
            for _ in range(2):  # the second one over the first one's tunnel
                assert await dialling.get(url, ssl=trusted) == f"127.0.0.1 partner.test:{site.port}"
        assert proxy.targets == [f"127.0.0.1:{site.port}"]
        assert "partner.test" not in proxy.asked[0]
        assert "Authorization" not in proxy.asked[0]


async def test_the_proxy_is_asked_for_the_address_and_the_name_is_verified(
    served: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    await encrypted_through_the_proxy(served, trusted)


def test_a_tunnel_works_on_uvloop_alike(served: ssl.SSLContext, trusted: ssl.SSLContext) -> None:
    uvloop.run(encrypted_through_the_proxy(served, trusted))


async def test_a_certificate_for_the_address_does_not_vouch_for_the_name(
    served: ssl.SSLContext, trusted: ssl.SSLContext
) -> None:
    async with sites("127.0.0.1", tls=served) as (site,), middleman() as proxy:
        resolver = Flipping(["127.0.0.1"])
        async with pool(resolver, allow_networks=["127.0.0.1"], **proxy.options) as dialling:
            url = f"https://other.test:{site.port}/"
            with pytest.raises(ClientConnectorCertificateError, match=r"other\.test"):
                await dialling.get(url, ssl=trusted)


async def test_names_behind_one_address_share_no_tunnel() -> None:
    async with sites("127.0.0.1") as (site,), middleman() as proxy:
        async with pool(Flipping(["127.0.0.1"]), allow_networks=["127.0.0.1"], **proxy.options) as dialling:
            for name in ("a.test", "b.test", "a.test"):
                answer = await dialling.get(f"http://{name}:{site.port}/")
                assert answer == f"127.0.0.1 {name}:{site.port}"
        assert proxy.targets == [f"127.0.0.1:{site.port}"] * 2


async def test_an_ipv6_address_is_asked_for_in_brackets() -> None:
    async with sites("::1") as (site,), middleman() as proxy:
        async with pool(Flipping(["::1"]), allow_networks=["::1"], **proxy.options) as dialling:
            await dialling.get(f"http://partner.test:{site.port}/")
        assert proxy.targets == [f"[::1]:{site.port}"]


async def test_the_proxy_is_shown_the_credentials_and_the_receiver_is_not() -> None:
    known: dict[str, Any] = {"proxy_username": "bridge", "proxy_password": Referenced("pa:ss wörd")}
    async with sites("127.0.0.1") as (site,), middleman() as proxy:
        async with pool(allow_networks=["127.0.0.1"], **proxy.options, **known) as dialling:
            await dialling.get(f"http://127.0.0.1:{site.port}/")
        assert "\r\nProxy-Authorization: Basic YnJpZGdlOnBhOnNzIHfDtnJk\r\n" in proxy.asked[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "with 407: see proxy_username and proxy_password"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "with 403"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "with 100"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "no status"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "more than its answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 4_000, "did not answer CONNECT"),
        (b"HTTP/1.1 403 Forb", "did not answer CONNECT"),
    ],
)
async def test_a_proxy_that_refuses_or_babbles_is_told_of_in_a_sentence(answer: bytes, reason: str) -> None:
    async with sites("127.0.0.1") as (site,), middleman() as proxy:
        proxy.answer = answer
        async with pool(allow_networks=["127.0.0.1"], **proxy.options) as dialling:
            with pytest.raises(ClientConnectorError, match=reason) as caught:
                await dialling.get(f"http://127.0.0.1:{site.port}/")
        assert f"the proxy localhost:{proxy.port}" in str(caught.value)
        await proxy.hung_up.wait()


@pytest.mark.parametrize("host", ["localhost", "nobody.invalid"])
async def test_a_proxy_that_is_not_there_is_named(host: str) -> None:
    async with middleman() as proxy:
        pass
    async with pool(allow_networks=["127.0.0.1"], proxy=f"http://{host}:{proxy.port}") as dialling:
        with pytest.raises(ClientConnectorError, match=f"the proxy {host}:{proxy.port} cannot be reached"):
            await dialling.get("http://127.0.0.1:1/")


async def test_with_a_proxy_nothing_is_dialled_past_it() -> None:
    async with pool(allow_networks=["127.0.0.1"], proxy="http://localhost:3128") as dialling:
        with pytest.raises(PermissionError, match="there is a proxy"):  # what aiohttp would ask without our step
            dialling.connector._direct((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80)))


async def test_giving_up_on_a_silent_proxy_hangs_up() -> None:
    async with middleman() as proxy:
        proxy.answer = b""
        async with pool(allow_networks=["127.0.0.1"], **proxy.options) as dialling:
            attempt = asyncio.create_task(dialling.get("http://127.0.0.1:1/"))
            await proxy.rang.wait()
            attempt.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attempt
            await proxy.hung_up.wait()


@pytest.mark.parametrize("through_proxy", [False, True])
async def test_the_receivers_address_is_known_of_new_and_of_old_connections(through_proxy: bool) -> None:
    async with sites("127.0.0.1") as (site,), middleman() as proxy:
        options = proxy.options if through_proxy else {}
        async with pool(Flipping(["127.0.0.1"]), allow_networks=["127.0.0.1"], **options) as dialling:
            for _ in range(2):
                await dialling.get(f"http://partner.test:{site.port}/")
    assert dialling.connector.handed_out == [f"127.0.0.1:{site.port}"] * 2
    assert dialling.dialled == [f"127.0.0.1:{site.port}"]


# -- the webhook sink


async def test_a_webhook_through_the_proxy_tells_the_receivers_address() -> None:
    trials = [Trial(1), Trial(2)]
    async with listening() as receiver, middleman() as proxy:
        async with opened(receiver.url, **proxy.options) as endpoint:
            for trial in trials:  # the second one over the first one's tunnel
                await endpoint.deliver(ENTRY, trial)
        address = urlsplit(receiver.url).netloc
        assert (proxy.targets, [trial.address for trial in trials]) == ([address], [address] * 2)
        assert [got.verified()["id"] for got in receiver.got] == [ENTRY.id] * 2


async def test_a_webhook_that_the_proxy_refuses_is_tried_again() -> None:
    async with listening() as receiver, middleman() as proxy:
        proxy.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
        async with opened(receiver.url, **proxy.options) as endpoint:
            with pytest.raises(Temporary, match=r"answered CONNECT .* with 403") as caught:
                await endpoint.deliver(ENTRY, Trial(1))
    assert caught.value.reason == "network"
    assert "t0ken" not in str(caught.value)
