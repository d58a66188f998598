"""Which ways to a cluster are refused before anything is dialled, and when certificates count as renewed."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority, Certificate
from pydantic import SecretStr, ValidationError

from bridge.delivery.sinks import catalogue
from bridge.errors import Fatal, Temporary
from bridge.kafka.connection import Connection
from bridge.kafka.failure import translated
from bridge.kafka.link import Link
from bridge.settings.check import ConfigError, load
from bridge.tls import Certificates, Tls

USER = {"username": "ann", "password": SecretStr("open-sesame")}
CLIENT = {"token_url": "https://idp.example/token", "client_id": "ann", "client_secret": SecretStr("open-sesame")}

MISWRITTEN = ["https://[::1/token", "https://idp.example:99999/token", "https://idp.example:x/", "https://a b/token"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def connection(**options: Any) -> Connection:
    return Connection.model_validate({"bootstrap_servers": "kafka:9092"} | options)


def mistake(**options: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        connection(**options)
    assert "open-sesame" not in str(caught.value)
    return str(caught.value)


def files(own: Certificate) -> dict[str, Any]:
    return {"certificate_file": own.file, "key_file": own.key_file}


@pytest.mark.parametrize(
    "servers",
    [
        *("", "kafka:", "kafka:ninety", ":9092", "a:1,,b:2", "kafka:70000"),
        *("SASL_SSL://kafka:9092", "ann:x@kafka:9092", "a:1 b:2", "kafka..svc:9092"),
    ],
)
def test_an_address_that_cannot_be_dialled_is_refused(servers: str) -> None:
    assert "must be host:port" in mistake(bootstrap_servers=servers)


@pytest.mark.parametrize("servers", ["kafka:9092", "kafka", "10.0.0.1:9092, b:9093", "[::1]:9092"])
def test_addresses_may_be_names_numbers_and_several(servers: str) -> None:
    assert connection(bootstrap_servers=servers).client()["bootstrap_servers"] == servers


@pytest.mark.parametrize(
    ("options", "protocol"),
    [
        ({}, "PLAINTEXT"),
        ({"tls": False}, "PLAINTEXT"),
        ({"tls": True}, "SSL"),
        ({"tls": {}}, "SSL"),
        ({"sasl": {"mechanism": "scram-sha-512", **USER}}, "SASL_PLAINTEXT"),
        ({"sasl": {"mechanism": "plain", **USER}, "tls": {}}, "SASL_SSL"),
        ({"sasl": {"mechanism": "plain", **USER, "allow_plaintext": True}}, "SASL_PLAINTEXT"),
    ],
)
def test_the_protocol_follows_from_what_is_set(options: dict[str, Any], protocol: str) -> None:
    assert connection(**options).client()["security_protocol"] == protocol


@pytest.mark.parametrize("sasl", [{"mechanism": "plain", **USER}, {"mechanism": "oauthbearer", **CLIENT}])
def test_a_secret_is_not_sent_in_the_clear_unless_that_is_allowed(sasl: dict[str, Any]) -> None:
    assert "sasl.allow_plaintext" in mistake(sasl=sasl)
    connection(sasl=sasl | {"allow_plaintext": True})


def test_a_token_endpoint_without_encryption_is_refused_unless_that_is_allowed() -> None:
    sasl = {"mechanism": "oauthbearer", **CLIENT, "token_url": "http://idp.example/token"}
    assert "sasl.token_url is http" in mistake(tls=True, sasl=sasl)
    connection(tls=True, sasl=sasl | {"allow_plaintext": True})


@pytest.mark.parametrize(
    "url", ["idp.example/token", "ftp://idp.example", "https://", "https://ann:x@idp.example/t", *MISWRITTEN]
)
def test_a_token_endpoint_that_cannot_be_asked_is_refused(url: str) -> None:
    assert "sasl.token_url must" in mistake(tls=True, sasl={"mechanism": "oauthbearer", **CLIENT, "token_url": url})


@pytest.mark.parametrize(
    ("sasl", "where", "flaw"),
    [
        ({"mechanism": "scram-sha-256", "username": "ann"}, "password", "missing"),
        ({"mechanism": "scram-sha-256", "password": SecretStr("x")}, "username", "missing"),
        ({"mechanism": "oauthbearer", "client_id": "ann"}, "token_url", "missing"),
        ({"mechanism": "oauthbearer", **CLIENT, "username": "ann"}, "username", "extra_forbidden"),
        ({"mechanism": "scram-sha-256", **USER, "scope": "kafka"}, "scope", "extra_forbidden"),
    ],
)
def test_a_mechanism_wants_its_own_settings_and_no_others(sasl: dict[str, Any], where: str, flaw: str) -> None:
    with pytest.raises(ValidationError) as caught:
        connection(tls=True, sasl=sasl)
    assert (where, flaw) in [(error["loc"][-1], error["type"]) for error in caught.value.errors()]


@pytest.mark.parametrize("mechanism", ["gssapi", "PLAIN", None])
def test_an_unknown_mechanism_is_answered_with_those_there_are(mechanism: str | None) -> None:
    assert "plain, scram-sha-256, scram-sha-512 or oauthbearer" in mistake(sasl={"mechanism": mechanism, **USER})


def test_a_section_without_content_is_no_silent_none(tmp_path: Path) -> None:
    """All its lines commented out, as in an example: whoever wrote `tls:` meant to have some."""
    (tmp_path / "c.yaml").write_text(
        "sources: {}\nsinks:\n  events:\n    kind: kafka\n    bootstrap_servers: kafka:9092\n    tls:\n    sasl:\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "c.yaml", {}, {}, catalogue())
    found = {(wrong.path, wrong.text) for wrong in caught.value.mistakes}
    empty = "has no value: give one, or leave the key out"
    assert {("sinks.events.tls", empty), ("sinks.events.sasl", empty)} <= found


def test_files_that_are_missing_or_hold_something_else_are_named(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "text").write_text("no certificate")
    own = authority.sign("files")
    for setting in ("ca_file", "certificate_file", "key_file"):
        missing = files(own) | {setting: tmp_path / "missing"}
        assert f"tls.{setting} {tmp_path / 'missing'} cannot be read: No such file" in mistake(tls=missing)
        other = files(own) | {setting: tmp_path / "text"}
        assert f"tls.{setting} {tmp_path / 'text'}" in mistake(tls=other)


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    own, other = authority.sign("own"), authority.sign("other")
    assert "do not belong together" in mistake(tls=files(own) | {"key_file": other.key_file})
    assert "need a tls.certificate_file" in mistake(tls={"key_file": own.key_file})


def test_an_encrypted_key_wants_its_password(authority: Authority) -> None:
    locked = files(authority.sign("locked", password="open-sesame"))
    connection(tls=locked | {"key_password": SecretStr("open-sesame")})
    for wrong in ({}, {"key_password": SecretStr("sesame")}):
        assert "tls.key_password" in mistake(tls=locked | wrong)


def test_a_key_may_stand_in_the_file_of_its_certificate(tmp_path: Path, authority: Authority) -> None:
    own = authority.sign("joined")
    (tmp_path / "both.pem").write_text(own.key_file.read_text() + own.file.read_text())
    connection(tls={"certificate_file": tmp_path / "both.pem"})


def test_certificates_behind_a_link_that_is_moved_count_as_renewed(tmp_path: Path, authority: Authority) -> None:
    """As Kubernetes replaces the files of a mounted secret: all at once, by one symbolic link."""
    for name in ("first", "second"):
        own = authority.sign(name)
        (tmp_path / name).mkdir()
        own.file.rename(tmp_path / name / "tls.crt")
        own.key_file.rename(tmp_path / name / "tls.key")
    data, new = tmp_path / "data", tmp_path / "new"
    data.symlink_to("first")
    used = Certificates(Tls(certificate_file=data / "tls.crt", key_file=data / "tls.key"))
    renewed = [used.renewed]
    for target in ("second", "nowhere"):
        new.symlink_to(target)
        new.replace(data)
        renewed.append(used.renewed)
    assert renewed == [False, True, False]


def test_files_that_cannot_be_used_are_read_again_once_they_or_their_rights_change(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked before every batch: to read them each time would hold up everything else."""
    own, other = authority.sign("half"), authority.sign("other-half")
    used = Certificates(Tls(**files(own)))
    reads = 0
    context = Tls.context

    def counted(tls: Tls) -> ssl.SSLContext:
        nonlocal reads
        reads += 1
        return context(tls)

    monkeypatch.setattr(Tls, "context", counted)
    other.file.replace(own.file)
    assert [used.renewed for _ in range(3)] == [False] * 3
    assert reads == 1
    own.key_file.chmod(0o400)
    assert not used.renewed
    assert reads == 2
    other.key_file.replace(own.key_file)
    assert used.renewed


def test_a_link_does_not_show_what_it_was_made_of() -> None:
    assert "open-sesame" not in repr(Link({"sasl_plain_password": "open-sesame"}, 0.0, None))


def test_a_certificate_whose_time_has_not_come_is_waited_for() -> None:
    """It was just renewed, and clocks differ."""
    early = ssl.SSLCertVerificationError(1, "certificate is not yet valid")
    early.verify_code = 9
    assert isinstance(translated(early, "kafka:9092", "answer"), Temporary)
    early.verify_code = 10
    assert isinstance(translated(early, "kafka:9092", "answer"), Fatal)


async def test_files_that_are_being_replaced_are_waited_for(authority: Authority) -> None:
    own = authority.sign("replaced")
    way = connection(tls=files(own))
    own.key_file.unlink()
    with pytest.raises(Temporary, match=r"tls\.key_file") as caught:
        await way.link()
    assert caught.value.reason == "tls_files"
