"""Schema registry framing against a registry stand-in over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from brokers import Broker, committed
from pydantic import ValidationError
from relaying import Place, entry, write
from schema_registry import Answer, SchemaRegistry, saying, schema_registry
from yarl import URL

from bridge.delivery.sinks.kafka.records import Mode
from bridge.delivery.sinks.kafka.registry import Registry, RegistrySettings
from bridge.errors import BridgeError, Fatal, Temporary
from bridge.secret import Referenced

PAIR = ("jobs.events", "job.output")
PASSWORD = "pässword-nobody-may-see"


@pytest_asyncio.fixture
async def there() -> AsyncIterator[SchemaRegistry]:
    async with schema_registry() as running:
        yield running


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of the loopback address that vouches for itself; its key lies beside it."""
    certificate, key = tmp_path / "registry.pem", tmp_path / "registry.key"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=registry"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    return certificate


def registry(at: SchemaRegistry | str, mode: Mode = "binary", **options: Any) -> Registry:
    url = at if isinstance(at, str) else at.url
    return Registry(RegistrySettings.model_validate({"url": url} | options), mode)


def signed(**options: Any) -> dict[str, Any]:
    return {"username": "bridge", "password": Referenced(PASSWORD), "allow_plaintext": True} | options


async def refused(ours: Registry, *pairs: tuple[str, str]) -> BridgeError:
    """What `prepare` raises."""
    async with ours:
        with pytest.raises(BridgeError) as caught:
            await ours.prepare(pairs or [PAIR])
    assert PASSWORD not in str(caught.value)
    return caught.value


async def test_a_value_is_framed_with_a_zero_byte_and_the_id_as_four_bytes(there: SchemaRegistry) -> None:
    there.schemas = ["{}"] * 0x0102  # others' schemas: ours gets the next id
    async with registry(there) as ours:
        await ours.prepare([PAIR])
        assert ours.frame(*PAIR, b'{"a":1}') == b'\x00\x00\x00\x01\x03{"a":1}'


async def test_by_topic_one_schema_serves_all_types_and_is_asked_for_once(there: SchemaRegistry) -> None:
    async with registry(there) as ours:
        await ours.prepare([PAIR, ("jobs.events", "job.completed")])
        await ours.prepare([PAIR, ("jobs.events", "watch.gap")])
        await ours.prepare([("other", "job.output")])
        assert (
            len({ours.frame("jobs.events", type_, b"") for type_ in ("job.output", "job.completed", "watch.gap")}) == 1
        )
    assert there.asked == [
        f"POST /subjects/{topic}-value/versions?normalize=false" for topic in ("jobs.events", "other")
    ]
    assert there.bodies[0] == {"schema": there.text("jobs.events-value"), "schemaType": "JSON"}


async def test_by_record_each_type_has_a_schema_of_its_own(there: SchemaRegistry) -> None:
    pairs = [(topic, type_) for topic in ("a", "b") for type_ in ("job.output", "job.completed")]
    async with registry(there, subject="record") as ours:
        await ours.prepare(pairs)
        framed = [ours.frame(*pair, b"") for pair in pairs]
    assert set(there.subjects) == {"jobbridge.data.job.output", "jobbridge.data.job.completed"}
    assert framed[:2] == framed[2:]
    assert framed[0] != framed[1]
    async with registry(there, subject="topic_record") as ours:
        await ours.prepare(pairs[:1])
    assert there.subjects["a-jobbridge.data.job.output"] == there.subjects["jobbridge.data.job.output"]


async def test_a_second_start_registers_nothing_new(there: SchemaRegistry) -> None:
    framed = set()
    for _ in range(2):
        async with registry(there) as ours:
            await ours.prepare([PAIR])
            framed.add(ours.frame(*PAIR, b""))
    assert len(framed) == len(there.schemas) == 1


async def test_an_upgrade_that_adds_a_member_passes_the_compatibility_check(there: SchemaRegistry) -> None:
    async with registry(there) as ours:
        await ours.prepare([PAIR])
    older = orjson.loads(there.schemas.pop())
    del older["properties"]["truncated"]
    there.schemas.append(orjson.dumps(older).decode())
    async with registry(there) as ours:
        await ours.prepare([PAIR])
        assert ours.frame(*PAIR, b"") == b"\x00\x00\x00\x00\x02"
    assert there.subjects == {"jobs.events-value": [1, 2]}


async def test_callers_at_the_same_time_share_one_question(there: SchemaRegistry) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        asked.set()
        await go.wait()
        return web.json_response({"id": 7})

    there.answer = slow
    async with registry(there) as ours:
        callers = [asyncio.create_task(ours.prepare([PAIR])) for _ in range(20)]
        await asked.wait()
        go.set()
        await asyncio.gather(*callers)
        assert ours.frame(*PAIR, b"") == b"\x00\x00\x00\x00\x07"
    assert len(there.asked) == 1


async def test_a_caller_that_is_cancelled_leaves_the_others_their_answer(there: SchemaRegistry) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.StreamResponse:
        asked.set()
        await go.wait()
        return web.json_response({"id": 7})

    there.answer = slow
    async with registry(there) as ours:
        first, second = (asyncio.create_task(ours.prepare([PAIR])) for _ in range(2))
        await asked.wait()
        first.cancel()
        go.set()
        await second
        assert first.cancelled() or first.cancelling()
        assert ours.frame(*PAIR, b"") == b"\x00\x00\x00\x00\x07"


async def test_looking_up_finds_what_somebody_else_registered_and_adds_nothing(there: SchemaRegistry) -> None:
    async with registry(there) as other:
        await other.prepare([PAIR])
    there.asked.clear()
    async with registry(there, register_schemas=False) as ours:
        await ours.prepare([PAIR])
        assert ours.frame(*PAIR, b"") == b"\x00\x00\x00\x00\x01"
        error = await refused(registry(there, register_schemas=False), ("unknown", "job.output"))
    assert there.asked == [
        "POST /subjects/jobs.events-value?normalize=false",
        "POST /subjects/unknown-value?normalize=false",
    ]
    assert set(there.subjects) == {"jobs.events-value"}
    assert isinstance(error, Fatal)
    assert error.reason == "schema_missing"
    assert "subject unknown-value: Subject 'unknown-value' not found.: register it" in str(error)
    assert "`schema_registry.register_schemas: true`" in str(error)


async def test_another_schema_under_the_subject_is_not_ours(there: SchemaRegistry) -> None:
    there.schemas, there.subjects = ['{"type":"object"}'], {"jobs.events-value": [1]}
    error = await refused(registry(there, register_schemas=False))
    assert isinstance(error, Fatal)
    assert error.reason == "schema_missing"


async def test_a_change_of_mode_under_one_subject_is_refused_with_the_registrys_words(there: SchemaRegistry) -> None:
    async with registry(there) as binary:
        await binary.prepare([PAIR])
    error = await refused(registry(there, "structured"))
    assert isinstance(error, Fatal)
    assert (error.reason, error.status) == ("schema_incompatible", 409)
    assert "jobs.events-value" in str(error)
    assert "PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL" in str(error)


async def test_credentials_open_the_registry(there: SchemaRegistry) -> None:
    there.users = {"bridge": PASSWORD}
    async with registry(there, **signed()) as ours:
        await ours.prepare([PAIR])
    assert there.subjects


@pytest.mark.parametrize("password", [None, "wrong-one"])
async def test_missing_or_wrong_credentials_are_fatal_and_name_the_setting(
    there: SchemaRegistry, password: str | None
) -> None:
    there.users = {"bridge": PASSWORD}
    error = await refused(registry(there, **signed(password=Referenced(password)) if password else {}))
    assert isinstance(error, Fatal)
    assert (error.reason, error.status) == ("registry_denied", 401)
    assert "`schema_registry.password`" in str(error)
    assert "wrong-one" not in str(error)


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (saying(403, 40301, "User is denied operation Write on Subject"), "registry_denied", "denied operation Write"),
        (saying(422, 42201, f"Invalid schema, said {PASSWORD}"), "schema_refused", "Invalid schema, said …"),
        (saying(404, 404, "HTTP 404 Not Found"), "registry_settings", "`schema_registry.url`"),
        (saying(405, 405, "Method Not Allowed"), "registry_settings", "`schema_registry.url`"),
    ],
)
async def test_a_refusal_is_fatal(there: SchemaRegistry, answer: Answer, reason: str, words: str) -> None:
    there.answer = answer
    error = await refused(registry(there, **signed()))
    assert isinstance(error, Fatal)
    assert error.reason == reason
    assert words in str(error)


async def test_a_redirect_is_not_followed(there: SchemaRegistry) -> None:
    async with schema_registry() as elsewhere:

        async def away(request: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(URL(elsewhere.url).join(request.rel_url))

        there.answer = away
        error = await refused(registry(there, **signed()))
        assert isinstance(error, Fatal)
        assert "`schema_registry.url`" in str(error)
        assert elsewhere.asked == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
async def test_trouble_of_the_registry_is_temporary_and_its_wish_to_wait_is_told(
    there: SchemaRegistry, status: int
) -> None:
    there.answer = saying(status, 50001, "Error in the backend data store", **{"retry-after": "7"})
    error = await refused(registry(there))
    assert isinstance(error, Temporary)
    assert (error.reason, error.status, error.after_s) == ("registry_unavailable", status, 7.0)
    assert "Error in the backend data store" in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>Sign in</html>",
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"id":"1"}',
        b'{"id":true}',
        b'{"id":-1}',
        b'{"id":2147483648}',
        b"\xff",
    ],
)
async def test_an_answer_without_an_id_is_temporary(there: SchemaRegistry, content: bytes) -> None:
    async def garbage(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content)

    there.answer = garbage
    error = await refused(registry(there))
    assert isinstance(error, Temporary)
    assert "`schema_registry.url`" in str(error)
    assert "html" not in str(error)


async def test_of_an_endless_answer_only_the_start_is_read(there: SchemaRegistry) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    there.answer = endless
    error = await refused(registry(there))
    assert isinstance(error, Temporary)
    assert "without a schema id" in str(error)
    assert sent < 64 << 20


async def test_a_silent_registry_is_temporary_and_asked_again_afterwards(there: SchemaRegistry) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    there.answer = silent
    async with registry(there, timeout_s=0.1) as ours:
        silenced = await asyncio.gather(*(ours.prepare([PAIR]) for _ in range(3)), return_exceptions=True)
        assert [type(error) for error in silenced] == [Temporary] * 3
        assert "did not answer within 0.1 s" in str(silenced[0])
        there.answer = None
    async with registry(there) as ours:
        await ours.prepare([PAIR])


async def test_a_registry_that_is_away_is_temporary() -> None:
    async with schema_registry() as gone:
        url = gone.url
    error = await refused(registry(url))
    assert isinstance(error, Temporary)
    assert error.reason == "registry_unavailable"
    assert "cannot be reached" in str(error)


async def test_an_own_authority_is_trusted_and_a_strangers_certificate_is_fatal(
    certificate: Path, tmp_path: Path
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, tmp_path / "registry.key")
    async with schema_registry(tls) as there:
        assert there.url.startswith("https://")
        async with registry(there, ca_file=certificate) as ours:
            await ours.prepare([PAIR])
        error = await refused(registry(there))
    assert isinstance(error, Fatal)
    assert "`schema_registry.ca_file`" in str(error)


async def test_an_authority_that_vanished_since_the_start_is_fatal(certificate: Path) -> None:
    ours = registry("https://127.0.0.1:1", ca_file=certificate)
    await asyncio.to_thread(certificate.unlink)
    with pytest.raises(Fatal, match=r"schema_registry\.ca_file"):
        await ours.__aenter__()


async def test_the_sink_writes_framed_records_and_asks_once(kafka: Broker, there: SchemaRegistry) -> None:
    place = Place(kafka)
    async with place.sink(schema_registry={"url": there.url}).writer(0) as writer:
        await write(writer, [entry(1), entry(2, type_="job.state")])
        await write(writer, [entry(3)])
    records = await committed(kafka.bootstrap_servers, place.topic)
    assert [record.value for record in records] == [b'\x00\x00\x00\x00\x01{"n":1}'] * 3
    assert there.asked == [f"POST /subjects/{place.topic}-value/versions?normalize=false"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": f"http://bridge:{PASSWORD}@registry"}, "schema_registry.url must hold no credentials"),
        ({"url": "http://registry/?token=x"}, "schema_registry.url must end with its path"),
        ({"url": "registry:8081"}, "url"),
        ({"username": "bridge"}, "username and schema_registry.password go together"),
        (signed(username=None), "username and schema_registry.password go together"),
        (signed(username="a:b"), "username"),
        (signed(allow_plaintext=False), "schema_registry.allow_plaintext"),
        (signed(password=PASSWORD), "never written here"),
        ({"ca_file": "/nowhere/ca.pem"}, "schema_registry.ca_file"),
        ({"subject": "value"}, "subject"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RegistrySettings.model_validate({"url": "http://registry:8081"} | options)
    assert words in str(caught.value)
    assert PASSWORD not in str(caught.value)
