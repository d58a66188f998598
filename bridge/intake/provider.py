"""The seam of the upper half: what one job API must be able to say, and what it is given to say it with.

A provider translates. It keeps no cursor, opens no socket of its own, never waits, counts or logs. The shapes here
are all that passes between the wire, the provider and the loop that drives both.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Protocol, Self

from pydantic import AfterValidator, AnyHttpUrl, BaseModel, ConfigDict, Field, model_validator

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.event import Cursor, EventType, JobStatus, Json, addressable
from bridge.wire import excerpt, retry_after_s


class Frame(NamedTuple):
    """One dispatched server-sent event, before any meaning is read from it (WHATWG HTML section 9.2.6)."""

    event: str
    """The event name; `message` where the stream names none."""
    data: bytes
    """UTF-8 without a trailing line feed. Cut to a prefix when `dropped_bytes` is not zero."""
    id: str
    """The last event id as of this frame: ids are sticky, so this can be an earlier frame's."""
    dropped_bytes: int = 0
    """How many bytes of data went over the frame limit and were thrown away."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request as a provider words it. `url` is absolute and its path already percent-encoded."""

    url: str
    method: str = "GET"
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Json | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that is not the success hoped for; `body` is cut to the answer limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_s: float
    """Unix time of arrival, for dates in `Retry-After`."""


class Reading(NamedTuple):
    """What a provider read in one frame, or in one answer of the status endpoint, in canonical words.

    A field left None says nothing about its subject. Three sorts:

    * `key` set: something that happened, at the provider's own position `key`. It becomes one event.
    * `key` None: the state as of now. It becomes an event only where it differs from what is known, or where its
      `fingerprint` differs from the last one.
    * `reopen` set: no event; the server will close the stream for its own reasons and wants it opened again.
    """

    type: EventType | None = None
    """None: the loop names the event after the change of status."""
    key: str | None = None
    cursor: Cursor | None = None
    """Where to resume once this reading is journalled."""
    time: str | None = None
    status: JobStatus | None = None
    provider_status: str | None = None
    kind: str | None = None
    progress: Any = None
    step: Any = None
    waiting_for: Any = None
    detail: Json | None = None
    """The piece this event is about (a token, a tool call, why a frame could not be read)."""
    result: Any = None
    error: Json | None = None
    payload: bytes | None = None
    """The provider's own JSON, as it came."""
    told: bool = False
    """The other members tell all that the payload does: the same JSON value could be made of them."""
    fingerprint: str | None = None
    """Of a state: short and the same for the same state, so that repeats after a reconnect are known as such."""
    hole: bool = False
    """Positions are missing in front of this one: no loss by itself, but worth asking `backfill` first."""
    reopen: bool = False


Payloads = Literal["always", "unless_told", "never"]
"""When events carry the provider's payload."""

Refusal = Callable[[Answer], BridgeError]
"""An API's error table: which error an answer means for the loop."""


class Http(Protocol):
    """Requests that are answered at once, under the source's budget, with limits on time and size."""

    async def json(self, request: Request, refusal: Refusal) -> Any:
        """The decoded JSON body of a 2xx answer.

        Raises what `refusal` makes of any other answer, `Temporary` when there was none or it was not JSON.
        """

    async def exchange(self, request: Request) -> Answer:
        """Whatever the answer is, for somebody else to judge. Raises `Temporary` when there was none."""


class OpenStream(Protocol):
    """One open event stream."""

    unread: bool
    """Whether something has arrived that still waits for its turn to be read: the silence is ours, not the server's."""

    @property
    def retry_s(self) -> float | None:
        """The reconnection time the server last asked for with a `retry:` field, in seconds."""

    def __aiter__(self) -> AsyncIterator[list[Frame]]:
        """The frames of each chunk as it arrives; an empty list is a sign of life without news.

        Ends when the server closed the stream. Raises `Temporary` when it was cut, or silent for too long.
        """


class Streams(Protocol):
    """Opens event streams, under the source's budget of requests and of open streams."""

    @property
    def full(self) -> bool:
        """Whether as many streams are open as may be, so that another one would have to wait."""

    def open(self, request: Request, refusal: Refusal) -> AbstractAsyncContextManager[OpenStream]:
        """Raises on entering: what `refusal` makes of a status of 400 or more, `Temporary` without an answer,
        `Rejected` (reason `no_stream`) on 204, a redirect, or a body that is no event stream."""


class Action(StrEnum):
    """What may be asked of a job through us."""

    INPUT = "input"
    CANCEL = "cancel"
    RESUME = "resume"


class Provider(Protocol):
    """One job API. `stream`, `read` and `refusal` are pure. A plug names this class as its parent and so takes over
    what is written here for whatever its API does not have."""

    tells_beside: bool = False
    """Whether `backfill` tells what the stream never shows, so that it is asked at every look and before the end."""

    def stream(self, job_id: str, cursor: Cursor | None) -> Request | None:
        """How to open the job's stream behind `cursor`; None where this API can only be polled."""
        return None

    def read(self, frame: Frame, cursor: Cursor | None) -> Sequence[Reading]:
        """What the frame says. Never raises: what cannot be read is a reading of type `job.unmapped`.

        Frames at or before `cursor`, where the cursors of this API have an order, read as nothing.
        """
        return ()

    async def status(self, job_id: str) -> Reading:
        """The job as the status endpoint tells it now, without a key.

        Raises `Rejected` with the reason `no_status` where this API, or this credential, has no such endpoint.
        """

    async def backfill(self, job_id: str, cursor: Cursor | None) -> AsyncGenerator[Sequence[Reading], None]:
        """What happened behind `cursor`, oldest first; nothing where the stream itself replays.

        Asked once a stream is open, so that nothing falls between the two. Readings that repeat cost nothing: their
        events are dropped by id.
        """
        nothing: tuple[Sequence[Reading], ...] = ()
        for readings in nothing:
            yield readings

    async def jobs(self) -> AsyncGenerator[Sequence[str], None]:
        """Ids of the jobs that the API lists, page by page, until a page brings nothing new."""
        nothing: tuple[Sequence[str], ...] = ()
        for job_ids in nothing:
            yield job_ids

    def refusal(self, answer: Answer) -> BridgeError:
        """This API's error table for streams. The reason `stale_cursor` makes the loop start without its cursor."""
        return common_refusal(answer)

    async def renew(self) -> bool:
        """After a 401: try for a fresh credential; True when there is one now. Called by one job at a time."""
        return False

    async def act(self, job_id: str, action: Action, body: Json) -> Answer:
        """Pass on a person's wish to the API's own route, with the source's credential, and return its answer.

        Raises `Rejected`: `unsupported` where the API has no such route, `invalid` with a sentence about the body
        where that can be told beforehand; `Temporary` when there was no answer.
        """
        raise Rejected(f"this API has no route for {action}", reason="unsupported")


class Discover(BaseModel):
    """Finding jobs by listing them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    every_s: float = Field(30.0, ge=1, description="Seconds between two listings.")
    pages_max: int = Field(20, ge=1, le=1000, description="Pages read in one listing at most.")


class SourceSettings(BaseModel):
    """What every source has, whatever its provider; each provider's settings extend it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    provider: str = Field(description="Kind of job API, for example `auvy`.")
    jobs: list[Annotated[str, AfterValidator(addressable)]] = Field(
        default_factory=list,
        description="Ids of jobs to follow from the start, beside those found or handed in.",
    )
    discover: Discover | None = Field(None, description="List the API for jobs to follow. Off when absent.")
    requests_per_minute: float = Field(
        300.0, gt=0, description="Budget for all requests to this source together: streams, status, lists."
    )
    open_streams: int = Field(2000, ge=1, description="Streams held open at once; further jobs wait for a free place.")
    idle_timeout_s: float = Field(
        90.0,
        gt=0,
        description="A stream without a single byte for so long is dead. Keep-alive comments count.",
    )
    status_interval_s: float = Field(
        15.0, gt=0, description="Seconds between two looks at the status endpoint beside an open stream."
    )
    confirm_timeout_s: float = Field(
        10.0, gt=0, description="How long the status endpoint may lag behind the stream at the end of a job."
    )
    end_quiet_s: float = Field(
        5.0,
        gt=0,
        description="Silence of a stream after the status endpoint called the job over, before it is reopened.",
    )
    not_found_grace_s: float = Field(
        10.0, ge=0, description="How long a new job may be unknown to the API before we give it up."
    )
    request_timeout_s: float = Field(30.0, gt=0, description="Deadline for one whole request other than a stream.")
    frame_bytes_max: int = Field(
        1 << 20, ge=1024, description="A larger frame is kept as `job.unmapped` with its first bytes only."
    )
    event_bytes_max: int = Field(
        512 << 10, ge=4096, description="A larger event is cut, its payload first, and says so with `truncated`."
    )
    stalled_after_s: float | None = Field(
        None, gt=0, description="Unchanged for so long, `watch.stalled` is told and the job looked at less often."
    )
    stalled_interval_s: float = Field(30.0, gt=0, description="Seconds between two looks at a stalled job.")
    poll_when_full: bool = Field(
        False, description="With no free place for a stream, follow by the status endpoint instead of waiting for one."
    )
    payloads: Payloads = Field(
        "unless_told",
        description="Keep the provider's payload, as it came, in every event's data. `unless_told` leaves it out where "
        "the event's own members tell all of it: a piece of text would go everywhere twice.",
    )

    @model_validator(mode="after")
    def _has_no_credentials_in_addresses(self) -> Self:
        """Addresses stand in error texts and so in logs, in events and on the console."""
        for name in type(self).model_fields:
            address = getattr(self, name)
            if isinstance(address, AnyHttpUrl) and (address.username or address.password):
                raise ValueError(f"{name}: an address holds no user or password")
        return self


def common_refusal(answer: Answer) -> BridgeError:
    """The retry classes that all the job APIs share; a provider's own table comes before it.

    408, 425, 429 and 5xx pass. 401 concerns the key and so the source; every other answer concerns the job alone.
    """
    what = f"HTTP {answer.status}: {excerpt(answer.body)}"
    if answer.status in {408, 425, 429} or answer.status >= 500:
        after_s = retry_after_s(_header(answer.headers, "retry-after"), answer.received_s)
        reason = "rate_limited" if answer.status == 429 else "server_error"
        return Temporary(what, reason=reason, after_s=after_s)
    if answer.status == 401:
        return Fatal(what, reason="unauthorized")
    reasons = {402: "denied", 403: "denied", 404: "not_found", 410: "gone"}
    return Rejected(what, reason=reasons.get(answer.status, "refused"))


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)
