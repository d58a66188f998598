"""`jobbridge listen` as people meet it who integrate: a process that our own sink, and liars, send to."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner
from receiving import ENTRY, OLD_SECRET, SECRET, opened
from serving import serving

from bridge.cli import cli
from bridge.control.webhook_keys import jwk
from bridge.delivery.signing import Key, SharedKey, new_private_key, parse_key, sign
from bridge.delivery.sink import Trial
from bridge.errors import BridgeError, Temporary
from bridge.journal.store import Entry
from bridge.listen.options import Mood, Options
from bridge.listen.run import listen
from bridge.secret import Referenced

KEY = parse_key(SECRET)
BODY = b'{"type":"job.output","timestamp":"2026-01-01T00:00:00Z","data":{"n":1}}'
DEEP = b"[" * 500 + b"]" * 500
"""JSON that orjson reads but does not write."""
OTHER = BODY.replace(b'"n":1', b'"n":2')


@dataclass
class Listener:
    """A running one, and what it says."""

    process: Process
    url: str = ""

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def told(self) -> dict[str, Any]:
        return dict(json.loads(await self.line()))

    async def ended(self) -> str:
        """What it still says when Ctrl-C ends it, which is no error."""
        self.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            out, err = await self.process.communicate()
        assert (self.process.returncode, err.decode()) == (0, "")
        return out.decode()

    async def summary(self) -> dict[str, Any]:
        return dict(json.loads((await self.ended()).splitlines()[-1])["summary"])


@asynccontextmanager
async def listening(*options: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Listener]:
    environ = {**os.environ, "HOOK": SECRET, "OLD_HOOK": OLD_SECRET, **(environ or {})}
    command = [sys.executable, "-m", "bridge", "listen", "--port=0", *options]
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ)
    listener = Listener(process)
    try:
        line = await listener.line()
        listener.url = line.split()[2].strip(",") if "--json" not in options else json.loads(line)["listening"]
        yield listener
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def send(url: str, entry: Entry = ENTRY, **options: Any) -> BridgeError | None:
    """One attempt of the real sink; how it ended where that was no acceptance."""
    async with opened(f"{url}/hook", **options) as endpoint:
        try:
            await endpoint.deliver(entry, Trial(1))
        except BridgeError as error:
            return error
    return None


Headers = list[tuple[str, str]]


def signed(body: bytes = BODY, key: Key = KEY, *, webhook_id: str = "msg_1", at_s: float | None = None) -> Headers:
    timestamp_s = int(time.time() if at_s is None else at_s)
    signature = sign([key], webhook_id, timestamp_s, body)
    return [("webhook-id", webhook_id), ("webhook-timestamp", str(timestamp_s)), ("webhook-signature", signature)]


def having(headers: Headers, name: str, *values: str) -> Headers:
    return [*(pair for pair in headers if pair[0] != name), *((name, value) for value in values)]


async def post(url: str, headers: Headers, body: bytes = BODY, method: str = "POST") -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, headers=headers, data=io.BytesIO(body)) as answer,
    ):
        return answer.status, await answer.text()


# -- what it verifies


async def test_every_payload_form_is_verified_and_read() -> None:
    data = orjson.loads(ENTRY.data)
    awkward = ENTRY._replace(subject="Auftrag 7, 100%")
    async with listening("--secret=OLD_HOOK", "--secret=HOOK", "--json") as listener:
        for form in ("standard", "cloudevents", "cloudevents_binary", "thin"):
            assert await send(listener.url, awkward, body=form) is None
            told = await listener.told()
            assert (told["verified"], told["scheme"], told["key"], told["status"]) == (True, "v1", 2, 204)
            assert told["event"] == {
                "form": form,
                "id": ENTRY.id,
                "type": "job.output",
                "source": "auvy",
                "subject": awkward.subject,
                "sequence": 7,
                "data": data if form != "thin" else {"job": {"id": awkward.subject, "status": "running"}},
            }


async def test_a_secret_from_a_file_and_a_public_key_verify_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (private, public), (stranger, _) = new_private_key(), new_private_key()
    keys = [f"--secret=file:{tmp_path / 'secret'}", f"--public-key={public}"]
    async with listening(*keys, "--json") as listener:
        assert [await send(listener.url, secrets=[key]) for key in (SECRET, private)] == [None, None]
        assert await send(listener.url, secrets=[stranger]) is not None
        told = [await listener.told() for _ in range(3)]
    assert [(each.get("scheme"), each.get("key")) for each in told] == [("v1", 1), ("v1a", 2), (None, None)]
    assert told[2]["flaw"]["rule"] == "body"


async def test_a_key_set_is_read_anew_when_the_sender_changed_its_key() -> None:
    (first, first_public), (second, second_public) = new_private_key(), new_private_key()
    published = [first_public]

    async def reply(_: web.Request) -> web.Response:
        return web.json_response({"keys": [{"kty": "EC"}, *map(jwk, published)]})

    async with serving(reply) as address, listening("--jwks", address, "--json") as listener:
        assert await send(listener.url, secrets=[first]) is None
        published[:] = [second_public]
        assert await send(listener.url, secrets=[second]) is None
        assert await send(listener.url, secrets=[first]) is not None
        assert [(await listener.told())["verified"] for _ in range(3)] == [True, True, False]


# -- what it says about the others

_NOW_S = time.time()
LIES: dict[str, tuple[Headers, str, str]] = {
    "no id": (having(signed(), "webhook-id"), "id", "webhook-id is missing"),
    "a dot in the id": (having(signed(), "webhook-id", "msg.1"), "id", "malformed"),
    "a space in the id": (having(signed(), "webhook-id", "msg 1"), "id", "malformed"),
    "two timestamps": (having(signed(), "webhook-timestamp", "1", "2"), "timestamp", "is there 2 times"),
    "a fraction": (having(signed(), "webhook-timestamp", f"{_NOW_S:.1f}"), "timestamp", "whole Unix seconds"),
    "milliseconds": (signed(at_s=_NOW_S * 1000), "timestamp", "milliseconds"),
    "an old timestamp": (signed(at_s=_NOW_S - 3_600), "timestamp", "s old, and 300 s are allowed"),
    "a timestamp to come": (signed(at_s=_NOW_S + 3_600), "timestamp", "ahead of this clock"),
    "no signature": (having(signed(), "webhook-signature"), "signature", "is missing"),
    "two spaces": (having(signed(), "webhook-signature", f"{signed()[2][1]}  v9,AAAA"), "signature", "one space"),
    "no comma": (having(signed(), "webhook-signature", "v1=AAAA"), "signature", "a comma"),
    "no base64": (having(signed(), "webhook-signature", "v1,_-_-"), "signature", "base64"),
    "a short signature": (having(signed(), "webhook-signature", "v1,AAAA"), "signature", "3 bytes, not 32"),
    "no known scheme": (having(signed(), "webhook-signature", "v9,AAAA"), "signature", "no signature of scheme"),
    "a scheme without a key": (signed(key=parse_key(new_private_key()[0])), "scheme", "only a key of v1 was given"),
    "another secret": (signed(key=parse_key(OLD_SECRET)), "secret", "no key fits"),
    "the secret's text": (signed(key=SharedKey(SECRET.encode())), "secret", "decodes to"),
    "base64 as a key": (signed(key=SharedKey(SECRET.removeprefix("whsec_").encode())), "secret", "decodes to"),
    "another body": (signed(), "secret", "or the body was changed"),
    "a deep body": (signed(), "secret", "or the body was changed"),
    "a line end more": (signed(), "body", "a line end was added"),
    "a line end less": (signed(BODY + b"\n"), "body", "its last line end was cut off"),
    "JSON written anew": (signed(BODY), "body", "read and written anew"),
}


async def test_every_broken_rule_is_named_with_what_is_wrong() -> None:
    bodies = {"JSON written anew": json.dumps(json.loads(BODY)).encode(), "a line end more": BODY + b"\r\n"}
    bodies |= {"another body": OTHER, "a deep body": DEEP}
    async with listening("--secret=HOOK", "--json") as listener:
        for lie, (headers, rule, words) in LIES.items():
            status, text = await post(listener.url, headers, bodies.get(lie, BODY))
            told = await listener.told()
            assert (lie, status, told["status"], told["verified"]) == (lie, 400, 400, False)
            assert (lie, told["flaw"]["rule"]) == (lie, rule)
            assert words in told["flaw"]["text"], lie
            assert text == f"{rule}: {told['flaw']['text']}\n"
        summary = await listener.summary()
    assert (summary["deliveries"], summary["verified"], summary["answers"]) == (len(LIES), 0, {"400": len(LIES)})
    assert sum(summary["refused"].values()) == len(LIES)


async def test_once_the_key_was_right_a_changed_body_is_told_from_a_wrong_secret() -> None:
    now_s = time.time()
    first = signed(at_s=now_s - 5)
    async with listening("--secret=HOOK", "--json") as listener:
        assert (await post(listener.url, first))[0] == 204
        assert (await post(listener.url, first, OTHER))[1].startswith("body: the body is not the one that came")
        retried = having(first, "webhook-timestamp", str(int(now_s)))
        assert "sign every one afresh" in (await post(listener.url, retried))[1]
        assert "the key is right" in (await post(listener.url, signed(webhook_id="msg_2"), OTHER))[1]
        told = [await listener.told() for _ in range(4)]
    assert [each.get("flaw", {}).get("rule") for each in told] == [None, "body", "timestamp", "body"]


async def test_what_is_no_delivery_of_ours_is_refused_or_shown_as_unknown() -> None:
    bodies = (b"plain text", b"[1]", DEEP, b'{"data":{"job":5},"sequence":"\xd9\xa3"}')
    async with listening("--secret=HOOK", "--json") as listener:
        assert (await post(listener.url, signed(), method="PUT"))[0] == 405
        assert (await post(listener.url, signed(), b"x" * ((4 << 20) + 1)))[0] == 413
        assert (await listener.told())["flaw"]["rule"] == "size"
        for body in bodies:
            assert (await post(f"{listener.url}/any/path", signed(body), body))[0] == 204
        told = [await listener.told() for _ in bodies]
    assert [each["event"]["form"] for each in told] == ["unknown", "unknown", "unknown", "standard"]
    assert told[3]["event"]["sequence"] is None


async def test_what_is_no_http_or_no_text_costs_one_line_at_most() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    async with listening("--secret=HOOK", "--json") as listener:
        for request in (
            b"GARBAGE\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            head + b"Connection: close\r\nContent-Length: 1\r\nwebhook-id: \xff\r\n\r\nx",
        ):
            assert await exchanged(listener.url, request) == b"400"
        assert (await listener.told())["headers"] == {"webhook-id": "\\xff"}
        assert await listener.summary()  # and nothing on standard error


async def exchanged(url: str, request: bytes) -> bytes:
    """The status of the answer to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(request)
    async with asyncio.timeout(20):
        line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.split()[1]


# -- what it answers


async def test_the_first_deliveries_can_fail_with_a_status_and_a_wait() -> None:
    async with listening("--secret=HOOK", "--json", "--fail-first=2", "--retry-after=7") as listener:
        ends = [await send(listener.url) for _ in range(3)]
        told = [await listener.told() for _ in range(3)]
        summary = await listener.summary()
    assert [(type(end), end.status, getattr(end, "after_s", None)) for end in ends if end] == [(Temporary, 503, 7)] * 2
    assert ends[2] is None
    assert [each.get("repeat", {}).get("answered") for each in told] == [None, 503, 503]
    assert [each.get("repeat", {}).get("attempt") for each in told] == [None, 2, 3]
    assert summary["answers"] == {"204": 1, "503": 2}
    assert (summary["repeats"], summary["gaps"], summary["jobs"]) == (2, 0, 1)


@pytest.mark.parametrize(
    ("mood", "expected"),
    [
        (Mood(), [204, 204, 204]),
        (Mood(status=410), [410, 410, 410]),
        (Mood(status_after=1), [204, 503, 503]),
        (Mood(fail_first=1), [503, 204, 204]),
        (Mood(status_after=2, fail_first=1, status=429), [429, 204, 429]),
    ],
)
def test_the_status_is_the_one_asked_for(mood: Mood, expected: list[int]) -> None:
    assert [mood.answer(number) for number in (1, 2, 3)] == expected


async def test_a_sender_that_does_not_wait_for_a_late_answer_is_noticed() -> None:
    async with listening("--secret=HOOK", "--json", "--delay=60") as listener:
        end = await send(listener.url, timeout_s=0.3)
        assert isinstance(end, Temporary)
        assert end.reason == "timeout"
        assert (await listener.told())["delivery"] == 1
        assert await listener.told() == {"hung_up": 1}
        assert (await listener.summary())["hung_up"] == 1


async def test_who_still_waits_when_it_ends_did_not_hang_up() -> None:
    async with listening("--secret=HOOK", "--json", "--delay=60") as listener:
        sending = asyncio.create_task(send(listener.url))
        assert (await listener.told())["delivery"] == 1
        assert (await listener.summary())["hung_up"] == 0
        assert await sending is not None


# -- what it notices


async def test_gaps_and_late_events_are_noticed_by_job() -> None:
    def event(job: str, sequence: int) -> Entry:
        return ENTRY._replace(id=f"auvy/{job}/{sequence}", subject=job, sequence=sequence)

    order = [("a", 3), ("a", 4), ("b", 1), ("a", 8), ("b", 2), ("a", 6), ("a", 9)]
    async with listening("--secret=HOOK", "--json") as listener:
        for job, sequence in order:
            assert await send(listener.url, event(job, sequence)) is None
        told = [await listener.told() for _ in order]
        summary = await listener.summary()
    assert [each.get("gap") for each in told] == [None, None, None, [5, 7], None, None, None]
    assert [each.get("late_after") for each in told] == [*[None] * 5, 8, None]
    assert (summary["gaps"], summary["late"], summary["repeats"], summary["jobs"]) == (1, 1, 0, 2)


# -- how it speaks


async def test_people_read_what_came_what_is_remarkable_and_the_counts() -> None:
    nasty = ENTRY._replace(
        id="nasty", subject="job\u202e-2", sequence=9, data=b'{"job":{"id":"x"},"detail":"\xc2\x9b2J"}'
    )
    async with listening("--secret=HOOK") as listener:
        for _ in range(2):
            assert await send(listener.url) is None
        assert await send(listener.url, ENTRY._replace(id="other", sequence=9)) is None
        assert await send(listener.url, nasty) is None
        assert (await post(listener.url, signed(key=parse_key(OLD_SECRET))))[0] == 400
        said = await listener.ended()
    assert "#1  job.output  auvy/job-1  sequence 7  msg_" in said
    assert "v1 by key 1  -> 204" in said
    assert '{"job":{"id":"job-1","source":"auvy","status":"running"},"detail":{"piece":"Grüße"}}' in said
    assert "repeat: attempt 2;" in said
    assert "answered 204: drop it" in said
    assert "gap: of auvy/job-1 sequence 8 has not come" in said
    assert "job\\u{202e}-2" in said
    assert "\\u{9b}2J" in said
    assert "NOT VERIFIED  msg_1  -> 400\n              body: " in said
    assert "5 deliveries: 4 verified, of 2 jobs; refused: 1 for its body\n" in said
    assert all(each.isprintable() or each == "\n" for each in said)


async def test_with_forms_it_shows_the_form_our_headers_and_all_data_but_no_credentials() -> None:
    async with listening("--secret=HOOK", "--forms") as listener:
        headers = {"Authorization": Referenced("Bearer c0nfidential")}
        assert await send(listener.url, body="cloudevents_binary", headers=headers) is None
        said = await listener.ended()
    assert "form: cloudevents_binary" in said
    assert "ce-subject: job-1\n" in said
    assert "webhook-signature: v1," in said
    assert '    "piece": "Grüße"\n' in said
    assert "c0nfidential" not in said


# -- what it does not begin with


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "nothing to verify with"),
        ([f"--secret={SECRET}"], "a secret is never written here"),
        ([f"--secret={SECRET.removeprefix('whsec_')}"], "no environment variable of that name"),
        (["--secret=SHORT"], "24 to 64 random bytes"),
        (["--secret=PRIVATE"], "verify with --public-key or --jwks"),
        (["--secret=file:/nowhere/secret"], "/nowhere/secret cannot be read"),
        (["--public-key=whpk_AAAA"], "an ed25519 key has 32"),
        (["--jwks=http://127.0.0.1:9/"], "cannot be read"),
        (["--jwks=nonsense"], "cannot be read"),
        (["--secret=HOOK", "--host=192.0.2.1"], "cannot listen on 192.0.2.1:8090"),
    ],
)
def test_what_it_cannot_begin_with_is_one_line_without_the_secret(options: list[str], words: str) -> None:
    short = "whsec_" + base64.b64encode(b"short").decode()
    environ = {"HOOK": SECRET, "SHORT": short, "PRIVATE": new_private_key()[0]}
    ran = CliRunner().invoke(cli, ["listen", *options], env=environ)
    assert (ran.exit_code, ran.stdout) == (1, "")
    [line] = ran.stderr.splitlines()
    assert words in line
    assert SECRET.removeprefix("whsec_") not in line


@pytest.mark.parametrize(
    "content", ["<html>", "[]", '{"keys": [{"kty": "RSA"}]}', '{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}']
)
async def test_a_key_set_that_is_none_is_told_with_its_address(content: str) -> None:
    async def reply(_: web.Request) -> web.Response:
        return web.Response(text=content)

    async with serving(reply) as address:
        options = Options("127.0.0.1", 0, (), (), address, forms=False, json_output=False, mood=Mood())
        with pytest.raises(Temporary, match=f"^--jwks: {re.escape(address)}: .*JWK set"):
            await listen(options, {}, asyncio.Event, print)
