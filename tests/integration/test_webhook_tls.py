"""Mutual TLS towards a receiver that insists on it, and certificates that change while it runs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Certificate
from pydantic import ValidationError
from receiving import ENTRY, Receiver, listening, opened, settings

from bridge.delivery.sink import Endpoint, Trial
from bridge.delivery.sinks.webhook import WebhookSink
from bridge.errors import Temporary


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def insisting(authority: Authority) -> ssl.SSLContext:
    """A server's side that takes only callers whom the authority knows."""
    own = authority.sign("receiver")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(own.file, own.key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def mounted(authority: Authority, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """A client certificate where a deployment would mount it."""
    files = {"ca_file": authority.file, "certificate_file": tmp_path / "tls.crt", "key_file": tmp_path / "tls.key"}
    mount(authority.sign("first"), files)
    yield files
    for file in tmp_path.iterdir():
        with suppress(FileNotFoundError):
            file.unlink()


def mount(certificate: Certificate, files: dict[str, Path]) -> None:
    files["certificate_file"].write_bytes(certificate.file.read_bytes())
    files["key_file"].write_bytes(certificate.key_file.read_bytes())


def caller(receiver: Receiver) -> str:
    certificate: Any = receiver.got[-1].certificate
    return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


async def refused(endpoint: Endpoint) -> Temporary:
    with pytest.raises(Temporary) as caught:
        await endpoint.deliver(ENTRY, Trial(1))
    assert caught.value.reason == "network"
    assert "t0ken" not in str(caught.value)
    return caught.value


async def test_a_client_certificate_opens_the_door(insisting: ssl.SSLContext, mounted: dict[str, Path]) -> None:
    async with listening(tls=insisting) as receiver, opened(receiver.url, tls=mounted) as endpoint:
        await endpoint.deliver(ENTRY, Trial(1))
        assert caller(receiver) == "first"
        assert receiver.got[0].verified()


async def test_without_one_nothing_is_sent(insisting: ssl.SSLContext, mounted: dict[str, Path]) -> None:
    only_ca = {"ca_file": mounted["ca_file"]}
    async with listening(tls=insisting) as receiver, opened(receiver.url, tls=only_ca) as endpoint:
        await refused(endpoint)
        assert receiver.got == []


async def test_a_receiver_of_an_unknown_authority_is_sent_nothing(insisting: ssl.SSLContext) -> None:
    async with listening(tls=insisting) as receiver, opened(receiver.url) as endpoint:
        assert "CERTIFICATE_VERIFY_FAILED" in str(await refused(endpoint))
        assert receiver.got == []


async def test_a_renewed_certificate_is_used_for_the_next_request(
    authority: Authority, insisting: ssl.SSLContext, mounted: dict[str, Path]
) -> None:
    second = authority.sign("second")
    async with listening(tls=insisting) as receiver, opened(receiver.url, tls=mounted) as endpoint:
        await endpoint.deliver(ENTRY, Trial(1))
        mounted["certificate_file"].write_bytes(second.file.read_bytes())
        await endpoint.deliver(ENTRY, Trial(1))
        assert caller(receiver) == "first"  # half a pair is no pair
        mount(second, mounted)
        await endpoint.deliver(ENTRY, Trial(1))
        assert caller(receiver) == "second"


def test_files_that_cannot_be_used_are_found_when_the_configuration_is_read(
    authority: Authority, mounted: dict[str, Path]
) -> None:
    mounted["key_file"].write_bytes(authority.sign("other").key_file.read_bytes())
    with pytest.raises(ValidationError, match="do not belong together"):
        settings("https://a.example", tls=mounted)


async def test_files_that_are_gone_when_the_receiver_is_opened_are_waited_for(mounted: dict[str, Path]) -> None:
    sink = WebhookSink("partner", settings("https://a.example", tls=mounted))
    mounted["key_file"].unlink()
    with pytest.raises(Temporary, match=r"partner: tls\.key_file .* cannot be read"):
        async with sink.endpoint():
            pass
