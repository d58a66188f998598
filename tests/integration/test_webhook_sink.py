"""The webhook sink against real receivers on loopback, alone and driven by the lanes over a real journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import structlog
from aiohttp import web
from receiving import ENTRY, OLD_SECRET, SECRET, Receiver, answering, listening, opened, settings

from bridge import __version__
from bridge.delivery.lane_dispatcher import LaneDispatcher
from bridge.delivery.sink import Endpoint, Trial
from bridge.delivery.sinks.webhook import PLUG
from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint
from bridge.journal.stores.sqlite import SqliteJournal, open_journal
from bridge.telemetry.metrics import Metrics


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with listening() as receiver:
        yield receiver


async def failure(endpoint: Endpoint, trial: Trial | None = None) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        await endpoint.deliver(ENTRY, trial or Trial(1))
    assert "t0ken" not in str(caught.value)
    assert "Grüße" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return caught.value


# -- what goes out


async def test_the_reference_library_verifies_what_arrives(receiver: Receiver) -> None:
    async with opened(receiver.url) as endpoint:
        receipt = await endpoint.deliver(ENTRY, Trial(1))
    assert receipt.status == 204
    assert 0 < receipt.duration_s < 10
    (got,) = receiver.got
    assert got.verified() == {
        "type": "job.output",
        "timestamp": "2025-11-24T16:00:00Z",
        "id": ENTRY.id,
        "source": ENTRY.source,
        "subject": ENTRY.subject,
        "sequence": ENTRY.sequence,
        "data": {
            "job": {"id": "job-1", "source": "auvy", "status": "running"},
            "detail": {"piece": "Grüße"},
        },
    }
    assert got.headers["Content-Type"] == "application/json"
    assert got.headers["User-Agent"] == f"jobbridge/{__version__}"
    assert got.headers["Accept-Encoding"] == "identity"
    assert got.headers["Content-Length"] == str(len(got.body))


async def test_holders_of_the_new_and_of_the_old_secret_both_verify(receiver: Receiver) -> None:
    async with opened(receiver.url, secrets=[SECRET, OLD_SECRET]) as endpoint:
        await endpoint.deliver(ENTRY, Trial(1))
    (got,) = receiver.got
    assert got.verified(SECRET) == got.verified(OLD_SECRET)


async def test_a_retry_has_the_same_id_and_a_new_time_and_signature(receiver: Receiver) -> None:
    moments = iter([1_764_000_000.9] * 2 + [1_764_000_300.2] * 2)
    receiver.answer = answering(500)
    async with opened(receiver.url, lambda: next(moments)) as endpoint:
        await failure(endpoint)
        receiver.answer = None
        await endpoint.deliver(ENTRY, Trial(2))
    first, second = (got.headers for got in receiver.got)
    assert first["webhook-id"] == second["webhook-id"]
    assert (first["webhook-timestamp"], second["webhook-timestamp"]) == ("1764000000", "1764000300")
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_no_cookie_goes_back(receiver: Receiver) -> None:
    receiver.answer = answering(200, Set_Cookie="session=1; Path=/")
    async with opened(receiver.url.replace("127.0.0.1", "localhost")) as endpoint:  # cookies stick to names alone
        await endpoint.deliver(ENTRY, Trial(1))
        await endpoint.deliver(ENTRY, Trial(1))
    assert [got.headers.get("Cookie") for got in receiver.got] == [None, None]


# -- what comes back


async def test_the_trial_knows_whom_it_dialled_and_what_was_answered(receiver: Receiver) -> None:
    address = urlsplit(receiver.url).netloc
    receiver.answer = answering(503, "bu\x00sy " + "x" * 300)
    trials = [Trial(1), Trial(2)]
    async with opened(receiver.url.replace("127.0.0.1", "localhost")) as endpoint:
        for trial in trials:  # the second one over the first one's connection
            await failure(endpoint, trial)
    assert {(trial.address, trial.status) for trial in trials} == {(address, 503)}
    assert trials[0].answer.startswith("bu sy xxx")
    assert len(trials[0].answer) == 200


async def test_the_trial_of_a_success_is_as_complete(receiver: Receiver) -> None:
    receiver.answer = answering(202, "queued")
    trial = Trial(1)
    async with opened(receiver.url) as endpoint:
        await endpoint.deliver(ENTRY, trial)
    assert trial == Trial(1, urlsplit(receiver.url).netloc, 202, "queued")


@pytest.mark.parametrize(
    ("status", "wish", "kind", "reason"),
    [
        (503, "disable", Fatal, "disabled"),
        (200, "disable", Fatal, "disabled"),
        (400, " Disable ", Fatal, "disabled"),
        (500, "abort-message", Rejected, "aborted"),
        (429, "abort-message", Rejected, "aborted"),
        (410, "abort-message", Fatal, "gone"),
        (500, "abort", Temporary, "server_error"),
        (500, "", Temporary, "server_error"),
    ],
)
async def test_a_receivers_explicit_word_counts(
    receiver: Receiver, status: int, wish: str, kind: type[BridgeError], reason: str
) -> None:
    receiver.answer = answering(status, Webhook_Delivery=wish)
    async with opened(receiver.url) as endpoint:
        error = await failure(endpoint)
    assert (type(error), error.reason, error.status) == (kind, reason, status)


async def test_what_is_accepted_cannot_be_aborted(receiver: Receiver) -> None:
    receiver.answer = answering(200, Webhook_Delivery="abort-message")
    async with opened(receiver.url) as endpoint:
        assert (await endpoint.deliver(ENTRY, Trial(1))).status == 200


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_receipt(receiver: Receiver, status: int) -> None:
    receiver.answer = answering(status)
    async with opened(receiver.url) as endpoint:
        assert (await endpoint.deliver(ENTRY, Trial(1))).status == status


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, Temporary, "refused"),
        (401, Temporary, "refused"),
        (404, Temporary, "refused"),
        (408, Temporary, "refused"),
        (410, Fatal, "gone"),
        (422, Temporary, "refused"),
        (429, Temporary, "rate_limited"),
        (500, Temporary, "server_error"),
        (503, Temporary, "server_error"),
    ],
)
async def test_what_each_failure_means(receiver: Receiver, status: int, kind: type[BridgeError], reason: str) -> None:
    receiver.answer = answering(status, "no\nthanks")
    async with opened(receiver.url) as endpoint:
        error = await failure(endpoint)
    assert (type(error), error.reason, error.status) == (kind, reason, status)
    assert str(error) == f"partner: HTTP {status}: no thanks"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Temporary),
        (400, Rejected),
        (404, Rejected),
        (408, Temporary),
        (410, Fatal),
        (422, Rejected),
        (425, Temporary),
        (429, Temporary),
        (500, Temporary),
    ],
)
async def test_reject_4xx_gives_up_only_where_trying_again_is_pointless(
    receiver: Receiver, status: int, kind: type[BridgeError]
) -> None:
    receiver.answer = answering(status)
    async with opened(receiver.url, reject_4xx=True) as endpoint:
        assert type(await failure(endpoint)) is kind


@pytest.mark.parametrize(
    ("value", "after_s"),
    [
        ("120", 120.0),
        ("Mon, 24 Nov 2025 16:02:00 GMT", 120.0),
        ("soon", None),
        ("-5", None),
        (f"Mon, 24 Nov 2025 16:02:00 +{'9' * 20}", None),
    ],
)
async def test_retry_after_is_read_in_both_forms(receiver: Receiver, value: str, after_s: float | None) -> None:
    receiver.answer = answering(429, Retry_After=value)
    async with opened(receiver.url, lambda: 1_764_000_000.0) as endpoint:
        error = await failure(endpoint)
    assert isinstance(error, Temporary)
    assert error.after_s == after_s


async def test_a_redirect_is_a_failure_and_is_not_followed(receiver: Receiver) -> None:
    receiver.answer = answering(307, Location="/elsewhere")
    async with opened(receiver.url) as endpoint:
        error = await failure(endpoint)
    assert (type(error), error.reason, error.status) == (Temporary, "redirect", 307)
    assert receiver.elsewhere == 0


async def test_a_dripping_answer_meets_the_whole_deadline(receiver: Receiver) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b".")
            await asyncio.sleep(0.02)

    receiver.answer = drip
    trial = Trial(1)
    async with opened(receiver.url, timeout_s=0.3) as endpoint:
        started_s = time.monotonic()
        error = await failure(endpoint, trial)
    assert time.monotonic() - started_s > 0.25
    assert (type(error), error.reason) == (Temporary, "timeout")
    assert (trial.status, trial.answer[:3]) == (200, "...")


async def test_who_takes_the_call_and_says_nothing_meets_the_dialling_deadline() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # and never a word of TLS
        writer.close()
        hung_up.set()

    trial, hung_up = Trial(1), asyncio.Event()
    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"https://127.0.0.1:{port}/hook/t0ken", connect_timeout_s=0.2) as endpoint:
            error = await failure(endpoint, trial)
        await hung_up.wait()
    assert (type(error), error.reason) == (Temporary, "timeout")
    assert str(error) == "partner: no connection within 0.2 s"
    assert trial.address == f"127.0.0.1:{port}"


async def test_of_a_huge_answer_only_the_start_is_read(receiver: Receiver) -> None:
    sent, hung_up = 0, asyncio.Event()

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(status=500)
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65_536)
                sent += 65_536
        finally:
            hung_up.set()

    receiver.answer = pour
    async with opened(receiver.url, answer_bytes_max=1_000, timeout_s=20) as endpoint:
        error = await failure(endpoint)
        assert error.reason == "server_error"
        assert len(str(error)) < 300
        async with asyncio.timeout(10):
            await hung_up.wait()
    assert sent < 32 << 20


async def test_a_compressed_answer_is_not_unpacked(receiver: Receiver) -> None:
    receiver.answer = answering(500, "not gzip at all", Content_Encoding="gzip")
    async with opened(receiver.url) as endpoint:
        assert str(await failure(endpoint)) == "partner: HTTP 500: not gzip at all"


async def test_a_cut_connection_is_temporary(receiver: Receiver) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    receiver.answer = cut
    async with opened(receiver.url) as endpoint:
        error = await failure(endpoint)
    assert (type(error), error.reason) == (Temporary, "network")


async def test_nobody_at_home_is_temporary() -> None:
    async with listening() as receiver:
        url = receiver.url
    async with opened(url) as endpoint:
        error = await failure(endpoint)
    assert (type(error), error.reason) == (Temporary, "network")


async def test_an_answer_that_is_not_http_is_temporary_and_shows_no_url() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}/hook/t0ken") as endpoint:
            error = await failure(endpoint)
    assert (type(error), error.reason) == (Temporary, "network")


# -- whom it calls


async def test_a_private_address_is_refused_when_it_is_dialled(receiver: Receiver) -> None:
    url, trial = receiver.url.replace("127.0.0.1", "localhost"), Trial(1)
    async with opened(url, allow_private_networks=False, allow_ports=[urlsplit(url).port]) as endpoint:
        error = await failure(endpoint, trial)
    assert (type(error), error.reason) == (Temporary, "network")
    assert "not a public address" in str(error)
    assert trial.address is None
    assert receiver.got == []


async def test_the_same_addresses_are_called_once_that_is_allowed(receiver: Receiver) -> None:
    async with opened(receiver.url.replace("127.0.0.1", "localhost")) as endpoint:
        await endpoint.deliver(ENTRY, Trial(1))
    assert len(receiver.got) == 1


# -- driven by the lanes


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the journal tells nobody that it settled
            await asyncio.sleep(0.005)


@asynccontextmanager
async def delivering(journal: SqliteJournal, url: str, now_ms: int) -> AsyncIterator[None]:
    dispatcher = LaneDispatcher(
        "partner",
        0,
        PLUG.build("partner", settings(url)),
        journal=journal,
        metrics=Metrics(),
        log=structlog.get_logger(),
        clock_ms=lambda: now_ms,
        dice=lambda: 0.0,
    )
    task = asyncio.create_task(dispatcher.run(lambda: None))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def journal_three_events(journal: SqliteJournal, job: str) -> None:
    ((record, _),) = await journal.follow([JobKey("auvy", job)], "config")
    bodies = [orjson.dumps({"job": {"id": job}, "detail": {"n": n}}) for n in (1, 2, 3)]
    events = [JobEvent(f"{job}-{n}", "auvy", job, EventType.OUTPUT, body) for n, body in enumerate(bodies)]
    await journal.append(record, events, Checkpoint(None, b""))


async def test_order_and_ids_hold_through_failures_and_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    async def refuse_a(request: web.Request) -> web.Response:
        job = orjson.loads(await request.read())["data"]["job"]["id"]
        return web.Response(status=503 if job == "a" else 204)

    receiver.answer = refuse_a
    now_ms = 1_764_000_000_000
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register(["partner"])
        await journal_three_events(journal, "a")
        await journal_three_events(journal, "b")
        async with delivering(journal, receiver.url, now_ms):

            async def all_passed() -> bool:
                return await journal.position("partner", 0) == 6

            await eventually(all_passed)
        assert list((await journal.blocked("partner", 0)).values()) == [now_ms + 5_000]

    receiver.answer = None
    async with open_journal(tmp_path / "journal.db") as journal:
        await journal.register(["partner"])
        async with delivering(journal, receiver.url, now_ms + 5_000):

            async def none_blocked() -> bool:
                return not await journal.blocked("partner", 0)

            await eventually(none_blocked)

    bodies = [(got.headers["webhook-id"], got.verified()) for got in receiver.got]
    arrived = [(identity, body["subject"], body["data"]["detail"]["n"]) for identity, body in bodies]
    assert [n for _, job, n in arrived if job == "b"] == [1, 2, 3]
    assert [n for _, job, n in arrived if job == "a"] == [1, 1, 2, 3]
    first, again = (identity for identity, job, n in arrived if (job, n) == ("a", 1))
    assert first == again
    assert len({identity for identity, _, _ in arrived}) == 6
