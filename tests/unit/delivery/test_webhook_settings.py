"""Mistakes in a receiver's settings are found when they are read, and said in words that name the setting."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from receiving import OLD_SECRET, SECRET, settings

from bridge.delivery.sinks.webhook import WebhookSettings
from bridge.secret import Referenced

PLAIN = {"kind": "webhook", "url": "https://example.com/hook", "secret": Referenced(SECRET)}


def header(name: str, value: str = "x") -> dict[str, Any]:
    return {"headers": {name: Referenced(value)}}


@pytest.mark.parametrize(
    ("options", "at", "why"),
    [
        ({"url": "http://example.com/hook"}, "", "allow_http"),
        ({"url": "example.com/hook"}, "url", "https://"),
        ({"url": "https://example.com:25/hook"}, "", "allow_ports"),
        ({"url": "http://example.com/", "allow_http": True, "tls": {}}, "", "tls needs a url"),
        ({"secret": Referenced("whsec_c2hvcnQ=")}, "secret", "24 to 64"),
        ({"secret": Referenced("whsec_" + "-" * 44)}, "secret", "url-safe"),
        ({"secret": [Referenced(SECRET)] * 4}, "secret", "at most 3"),
        ({"secret": SECRET}, "secret", "never written here"),
        ({"types": []}, "types", "at least 1"),
        ({"types": ["job.*", "job.complete"]}, "types.1", "fits no event type; there are: job.queued, "),
        ({"types": ["JOB.*"]}, "types.0", "fits no event type"),
        ({"types": [""]}, "types.0", "fits no event type"),
        ({"sources": []}, "sources", "at least 1"),
        ({"jobs": [""]}, "jobs.0", "at least 1"),
        ({"when": "data.job["}, "when", "is no JMESPath"),
        ({"when": "shout(type)"}, "when", "no function shout()"),
        ({"when": ""}, "when", "is no JMESPath"),
        ({"when": "a" * 1_001}, "when", "at most 1000"),
        ({"body": "xml"}, "body", "'thin'"),
        ({"body_bytes_max": 100}, "body_bytes_max", "4096"),
        ({"retry_schedule_s": []}, "retry_schedule_s", "at least 1"),
        ({"retry_schedule_s": [5] * 1_000}, "retry_schedule_s", "at most 100"),
        ({"retry_schedule_s": [5, -1]}, "retry_schedule_s.1", "greater than or equal to 0"),
        ({"retry_schedule_s": [1e9]}, "retry_schedule_s.0", "less than or equal to 604800"),
        ({"ttl_s": {"job.otput": 5}}, "ttl_s", "fits no event type"),
        ({"ttl_s": {"job.output": 0}}, "ttl_s", "greater than 0"),
        ({"coalesce": ["job.completed"]}, "coalesce.0", "'job.progress' or 'job.output'"),
        ({"requests_per_second": 0}, "requests_per_second", "greater than 0"),
        ({"concurrency": 0}, "concurrency", "greater than or equal to 1"),
        ({"connect_timeout_s": 0}, "connect_timeout_s", "greater than 0"),
        ({"probe_wait_s": 600}, "", "probe_wait_s must not be longer"),
        ({"tls": {"key_file": "/nowhere"}}, "tls", "tls.certificate_file"),
        ({"tls": {"ca_file": "/nowhere/ca.pem"}}, "tls", "cannot be read"),
        ({"headers": {"X-Tenant": "acme"}}, "headers", "never written here"),
        (header("X Tenant"), "headers", "cannot name a header"),
        (header("X-Tenant:"), "headers", "cannot name a header"),
        (header("X-Te\r\nnant"), "headers", "cannot name a header"),
        (header(""), "headers", "cannot name a header"),
        (header("Webhook-Id"), "headers", "cannot be set here"),
        (header("webhook-signature"), "headers", "cannot be set here"),
        (header("CE-id"), "headers", "cannot be set here"),
        (header("Content-Type"), "headers", "cannot be set here"),
        (header("Content-Length"), "headers", "cannot be set here"),
        (header("Transfer-Encoding"), "headers", "cannot be set here"),
        (header("Connection"), "headers", "cannot be set here"),
        (header("Host"), "headers", "cannot be set here"),
        (header("User-Agent"), "headers", "cannot be set here"),
        (header("X-Tenant", "acme\r\nwebhook-id: forged"), "headers", "visible ASCII"),
        (header("X-Tenant", "acme\x00"), "headers", "visible ASCII"),
        (header("X-Tenant", " acme"), "headers", "visible ASCII"),
        (header("X-Tenant", "acme "), "headers", "visible ASCII"),
        (header("X-Tenant", "Grüße"), "headers", "visible ASCII"),
        ({"headers": {"X-Tenant": Referenced("a"), "x-tenant": Referenced("b")}}, "headers", "twice"),
        ({"colour": "red"}, "colour", "Extra inputs"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_reason(options: dict[str, Any], at: str, why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        WebhookSettings.model_validate(PLAIN | options)
    (mistake,) = caught.value.errors()
    place = ".".join(map(str, mistake["loc"]))
    assert place == at or (at and place.startswith(f"{at}."))
    assert why in mistake["msg"]
    assert SECRET not in str(caught.value)
    assert "forged" not in str(caught.value)


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "X-Webhook-Token", "Cookie", "Idempotency_Key"])
def test_other_headers_are_free(name: str) -> None:
    chosen = settings("https://a.example", headers={name: Referenced("Bearer a  b")})
    assert chosen.headers[name].get_secret_value() == "Bearer a  b"
    assert "Bearer" not in repr(chosen)


def test_one_secret_or_a_list_is_fine_and_neither_is_shown() -> None:
    one = WebhookSettings.model_validate(PLAIN)
    assert SECRET not in repr(one)
    assert one.ring.sign("msg_1", 1, b"{}").count("v1,") == 1
    two = settings("https://a.example", secrets=[SECRET, OLD_SECRET])
    assert two.ring.sign("msg_1", 1, b"{}").count("v1,") == 2
    assert one.retry_schedule_s == [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]


def test_the_schema_for_editors_can_be_made() -> None:
    assert WebhookSettings.model_json_schema()["properties"]["secret"]


def test_the_lanes_learn_everything_they_need() -> None:
    patience = settings(
        "https://a.example",
        retry_schedule_s=[1, 2],
        retry_after_max_s=3,
        retry_age_max_s=4,
        ttl_s={"job.output": 60, "job.*": 600},
        ordered=False,
        coalesce=["job.progress"],
        concurrency=5,
        circuit_jobs=6,
        probe_wait_s=7,
        probe_wait_max_s=8,
    ).patience
    assert (patience.schedule_s, patience.retry_after_max_s, patience.age_max_s) == ((1, 2), 3, 4)
    assert [patience.ttl_s(each) for each in ("job.output", "job.failed", "watch.gap")] == [60, 600, None]
    assert (patience.ordered, patience.coalesce, patience.concurrency) == (False, frozenset({"job.progress"}), 5)
    assert (patience.circuit_jobs, patience.probe_wait_s, patience.probe_wait_max_s) == (6, 7, 8)
