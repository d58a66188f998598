"""The ways to Apache Kafka with TLS, SASL and ACLs, right and wrong. One broker serves the whole file."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from acls import WRITE, deny
from aiokafka import AIOKafkaProducer
from aiokafka.conn import CloseReason
from apache_kafka import free_ports
from cable import Cable, Line
from certificates import Authority, Certificate
from pydantic import SecretStr
from relaying import Place, entries, ids, write
from secured_kafka import CLIENT_SECRET, PASSWORD, SESSION_S, Secured, TokenEndpoint, secured_kafka
from serving import serving

from bridge.errors import Fatal, Temporary
from bridge.kafka.connection import Connection
from bridge.kafka.consumer import joined

PASSWORDS = ["plain", "scram-sha-256", "scram-sha-512"]
SASL_LISTENERS = ["secret", "clear"]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    async with secured_kafka(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture
def place(secured: Secured) -> Place:
    return Place(secured.broker)


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    made = TokenEndpoint()
    async with serving(made.reply, "/token") as url:
        made.url = url
        yield made


def user(mechanism: str, name: str = "bridge", password: str = PASSWORD) -> dict[str, Any]:
    return {"mechanism": mechanism, "username": name, "password": SecretStr(password), "allow_plaintext": True}


def client(endpoint: TokenEndpoint, secret: str = CLIENT_SECRET) -> dict[str, Any]:
    own = {"client_id": "bridge", "client_secret": SecretStr(secret), "allow_plaintext": True}
    return {"mechanism": "oauthbearer", "token_url": endpoint.url, **own}


def identity(secured: Secured, own: Certificate) -> dict[str, Any]:
    return {"ca_file": secured.authority.file, "certificate_file": own.file, "key_file": own.key_file}


def way(secured: Secured, listener: str, **options: Any) -> dict[str, Any]:
    """What a sink is told, the authority included where the listener is an encrypted one."""
    trust = {"tls": {"ca_file": secured.authority.file}} if listener in {"secret", "mutual"} else {}
    return {"bootstrap_servers": secured.at(listener), **trust, **options}


async def refused(place: Place, **options: Any) -> Fatal:
    """What the sink says when it cannot write at once."""
    with pytest.raises(Fatal) as caught:
        async with place.sink(**options).writer(0) as writer:
            await write(writer, entries(1, 1))
    assert PASSWORD not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("listener", SASL_LISTENERS)
@pytest.mark.parametrize("mechanism", PASSWORDS)
async def test_a_user_with_a_password_writes(secured: Secured, place: Place, listener: str, mechanism: str) -> None:
    async with place.sink(**way(secured, listener, sasl=user(mechanism))).writer(0) as writer:
        await write(writer, entries(1, 5))
    assert sorted(await place.ids()) == ids(1, 5)


@pytest.mark.parametrize("listener", SASL_LISTENERS)
async def test_a_client_with_a_token_writes(
    secured: Secured, place: Place, endpoint: TokenEndpoint, listener: str
) -> None:
    async with place.sink(**way(secured, listener, sasl=client(endpoint))).writer(0) as writer:
        await write(writer, entries(1, 5))
    assert sorted(await place.ids()) == ids(1, 5)
    assert len(endpoint.given) == 1


async def test_a_client_with_a_certificate_writes(secured: Secured, place: Place) -> None:
    own = identity(secured, secured.authority.sign("bridge"))
    async with place.sink(**way(secured, "mutual", tls=own)).writer(0) as writer:
        await write(writer, entries(1, 5))
    assert sorted(await place.ids()) == ids(1, 5)


@pytest.mark.parametrize("listener", SASL_LISTENERS)
@pytest.mark.parametrize("mechanism", PASSWORDS)
async def test_a_wrong_password_is_fatal_and_named(
    secured: Secured, place: Place, listener: str, mechanism: str
) -> None:
    error = await refused(place, **way(secured, listener, sasl=user(mechanism, password="sesame")))
    assert (error.reason, "`sasl.password`" in str(error)) == ("kafka_denied", True)


async def test_a_wrong_client_secret_is_fatal_and_named(
    secured: Secured, place: Place, endpoint: TokenEndpoint
) -> None:
    error = await refused(place, **way(secured, "clear", sasl=client(endpoint, "wrong")))
    assert (error.reason, "`sasl.client_secret`" in str(error)) == ("kafka_denied", True)


async def test_a_token_that_the_brokers_refuse_is_fatal_and_not_shown(
    secured: Secured, place: Place, endpoint: TokenEndpoint
) -> None:
    endpoint.age_s = 2 * endpoint.lifetime_s
    error = await refused(place, **way(secured, "clear", sasl=client(endpoint)))
    assert (error.reason, "`sasl.client_id`" in str(error)) == ("kafka_denied", True)
    assert "invalid_token" in str(error)  # the brokers' own word, which the client library passes over
    assert endpoint.given[0] not in str(error)


async def test_a_token_that_went_bad_before_its_time_is_replaced(secured: Secured, endpoint: TokenEndpoint) -> None:
    """Withdrawn, or the machine slept: a monotonic clock does not count that."""
    connection = Connection.model_validate(way(secured, "clear", sasl=client(endpoint)))
    assert connection._tokens is not None
    endpoint.age_s = 2 * endpoint.lifetime_s
    await connection._tokens.fresh()
    endpoint.age_s = 0.0
    await connection.link()
    assert len(endpoint.given) == 2


class Impostor(Line):
    """Lets everything through but a broker's proof that it knows the password."""

    async def _from_server(self, reader: asyncio.StreamReader) -> bytes:
        return re.sub(rb"v=.{8}", b"v=AAAAAAAA", await super()._from_server(reader))


async def test_a_broker_that_does_not_know_the_password_itself_is_fatal(secured: Secured, place: Place) -> None:
    line = Impostor(secured.at("clear"))
    async with line.laid():
        error = await refused(place, bootstrap_servers=line.address, sasl=user("scram-sha-256"))
    assert (error.reason, "`bootstrap_servers`" in str(error)) == ("kafka_denied", True)


async def test_a_mechanism_that_is_not_offered_is_fatal_and_named(secured: Secured, place: Place) -> None:
    error = await refused(place, **way(secured, "brief", sasl=user("plain")))
    assert "`sasl.mechanism`" in str(error)
    assert "SCRAM-SHA-512" in str(error)


async def test_an_unknown_authority_is_fatal_and_named(secured: Secured, place: Place, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    for tls in ({"ca_file": other.file}, True):
        error = await refused(place, **way(secured, "secret", tls=tls, sasl=user("scram-sha-256")))
        assert (error.reason, "`tls.ca_file`" in str(error)) == ("kafka_denied", True)


async def test_a_broker_with_another_name_is_refused_unless_names_do_not_count(secured: Secured, place: Place) -> None:
    tls = {"ca_file": secured.authority.file}
    named = way(secured, "secret", sasl=user("scram-sha-256"), tls=tls) | {
        "bootstrap_servers": secured.at("secret").replace("127.0.0.1", "localhost")
    }
    assert "`tls.check_hostname: false`" in str(await refused(place, **named))
    async with place.sink(**named | {"tls": tls | {"check_hostname": False}}).writer(0) as writer:
        await write(writer, entries(1, 5))


async def test_a_missing_expired_or_foreign_client_certificate_is_fatal_and_named(
    secured: Secured, place: Place, tmp_path: Path
) -> None:
    expired = identity(secured, secured.authority.sign("expired", days=-1))
    foreign = identity(secured, Authority(tmp_path).sign("bridge"))
    for tls in ({"ca_file": secured.authority.file}, expired, foreign):
        error = await refused(place, **way(secured, "mutual", tls=tls))
        assert (error.reason, "`tls.certificate_file`" in str(error)) == ("kafka_denied", True)


@pytest.mark.parametrize(
    ("listener", "encrypted", "authenticated", "advice"),
    [
        ("mutual", False, False, "speaks TLS: set `tls`"),
        ("secret", False, True, "speaks TLS: set `tls`"),
        ("clear", True, True, "speaks no TLS"),
        ("clear", False, False, "set `sasl`"),
        ("secret", True, False, "set `sasl`"),
        ("mutual", True, True, "take `sasl` out"),
    ],
)
async def test_a_listener_of_another_kind_is_fatal_and_told_apart(
    secured: Secured, place: Place, listener: str, encrypted: bool, authenticated: bool, advice: str
) -> None:
    own = identity(secured, secured.authority.sign("bridge"))
    options: dict[str, Any] = {"bootstrap_servers": secured.at(listener), "tls": own if encrypted else False}
    if authenticated:
        options["sasl"] = user("scram-sha-256")
    error = await refused(place, **options)
    assert (error.reason, advice in str(error)) == ("kafka_settings", True)


@pytest.mark.parametrize(
    ("name", "guarantee", "settings"),
    [
        ("no-topic", "at_least_once", ["`topic`"]),
        ("no-topic", "exactly_once", ["`positions_topic`"]),
        ("no-transactions", "exactly_once", ["`transactional_id_prefix`"]),
    ],
)
async def test_a_missing_right_is_fatal_and_names_what_it_is_missing_for(
    secured: Secured, place: Place, name: str, guarantee: str, settings: list[str]
) -> None:
    async with place.sink(guarantee=guarantee).writer(0):
        pass  # the topics exist
    error = await refused(place, **way(secured, "clear", sasl=user("plain", name)), guarantee=guarantee)
    assert (error.reason, [each for each in settings if each in str(error)]) == ("kafka_denied", settings)


async def test_a_missing_right_to_create_topics_is_fatal_and_names_the_setting(secured: Secured, place: Place) -> None:
    error = await refused(place, **way(secured, "clear", sasl=user("plain", "no-cluster")))
    assert (error.reason, "`create_topics`" in str(error)) == ("kafka_denied", True)


async def test_a_missing_right_on_the_group_is_fatal_and_named(secured: Secured, place: Place) -> None:
    async with place.sink().writer(0) as writer:
        await write(writer, entries(1, 1))
    connection = Connection.model_validate(way(secured, "clear", sasl=user("plain", "no-group")))
    with pytest.raises(Fatal, match="`group_id`"):
        async with joined(connection, topic=place.topic, group_id="g", session_timeout_s=10.0):
            pytest.fail("it may not use any group")


async def test_brokers_that_are_away_are_waited_for(secured: Secured, place: Place) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(Temporary) as caught:
        async with place.sink(bootstrap_servers=nobody, sasl=user("scram-sha-256")).writer(0):
            pytest.fail("nobody listens there")
    assert caught.value.reason == "kafka_unavailable"


async def test_one_address_out_of_several_that_lets_us_in_is_enough(secured: Secured, place: Place) -> None:
    patience_s = 60.0
    silent = Line(secured.at("clear"))
    async with silent.laid(), asyncio.timeout(patience_s / 3):
        silent.stall()
        servers = f"{silent.address},127.0.0.1:{free_ports(1)[0]},{secured.at('secret')},{secured.at('clear')}"
        options: dict[str, Any] = {
            "bootstrap_servers": servers,
            "request_timeout_s": patience_s,
            "sasl": user("scram-sha-256"),
        }
        async with place.sink(**options).writer(0) as writer:
            await write(writer, entries(1, 5))
    assert sorted(await place.ids()) == ids(1, 5)


async def test_brokers_that_give_an_address_where_nobody_is_are_reported_with_that_address(place: Place) -> None:
    cable, nobody = Cable(place.broker.bootstrap_servers), free_ports(1)[0]
    cable._ours = b"127.0.0.1" + nobody.to_bytes(4)
    async with cable.laid():
        with pytest.raises(Temporary, match=f"127.0.0.1:{nobody}") as caught:
            async with place.sink(bootstrap_servers=cable.servers).writer(0):
                pytest.fail("there is no way to any broker")
    assert caught.value.reason == "kafka_unavailable"


async def test_a_renewed_certificate_is_used_by_the_writer_that_is_open(secured: Secured, place: Place) -> None:
    own, renewed = secured.authority.sign("bridge"), secured.authority.sign("renewed")
    tls = identity(secured, own)
    link = await Connection.model_validate(way(secured, "mutual", tls=tls)).link()
    async with place.sink(**way(secured, "mutual", tls=tls)).writer(0) as writer:
        await write(writer, entries(1, 5))
        stale = [link.stale]
        renewed.file.replace(own.file)
        stale.append(link.stale)  # a certificate and the key of another
        await write(writer, entries(6, 10))
        renewed.key_file.replace(own.key_file)
        stale.append(link.stale)
        for topic in (place.topic, place.positions):
            await deny(secured.broker.bootstrap_servers, WRITE, topic, user="User:CN=bridge")
        await write(writer, entries(11, 15))
    assert stale == [False, False, True]
    assert sorted(await place.ids()) == sorted(ids(1, 15))


async def write_for(place: Place, duration_s: float, **options: Any) -> None:
    """Write all the time, with a writer that has to move meanwhile."""
    async with place.sink(**options).writer(0) as writer:
        first, written, until_s = writer._producer, 0, time.monotonic() + duration_s
        while time.monotonic() < until_s:
            await write(writer, entries(written + 1, written + 10))
            written += 10
            await asyncio.sleep(0.1)
        assert writer._producer is not first
    assert sorted(await place.ids()) == sorted(ids(1, written))


async def stay_for(duration_s: float, **options: Any) -> None:
    """What writers would do if they did not move: why there are links at all."""
    link = await Connection.model_validate(options).link()
    producer = AIOKafkaProducer(**link.options)
    await producer.start()
    try:
        await producer.client.force_metadata_update()
        await asyncio.sleep(duration_s)
        assert link.stale
        await producer.client.force_metadata_update()
    finally:
        await producer.stop()


def broken(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Addresses of the connections that the library noted as closed by the other side."""
    noted = rf"Closing connection at (\S+) \({CloseReason.CONNECTION_BROKEN:d},"
    return {found[1] for line in caplog.messages if (found := re.match(noted, line))}


async def test_writers_move_to_new_connections_before_the_brokers_end_the_old_ones(
    secured: Secured, endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.lifetime_s = SESSION_S
    by_token = way(secured, "clear", sasl=client(endpoint))
    by_session = way(secured, "brief", sasl=user("scram-sha-256"))
    caplog.set_level(logging.DEBUG, "aiokafka.conn")
    cable = Cable(secured.at("brief"))
    async with cable.laid(), asyncio.TaskGroup() as together:
        for options in (by_token, by_session):
            together.create_task(write_for(Place(secured.broker), 1.35 * SESSION_S, **options))
        together.create_task(stay_for(1.2 * SESSION_S, **by_session | {"bootstrap_servers": cable.servers}))
    assert broken(caplog) == {cable.servers}
