"""What a job API looks like, in words of a YAML file: its routes, its status words, its frames, where facts stand.

A description is checked and compiled when the configuration is read, and says nothing about credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from bridge.event import EventType, JobStatus
from bridge.expression import JmesPath
from bridge.intake.provider import Action
from bridge.intake.providers.described.template import Template

News = Literal[
    EventType.PROGRESS, EventType.STEP, EventType.TOOL, EventType.STATE, EventType.OUTPUT, EventType.UNMAPPED
]
"""Types of events that change no status."""

Word = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
HeaderName = Annotated[str, Field(pattern="^[A-Za-z0-9._-]+$")]
HeaderValue = Annotated[str, Field(pattern="^[!-~]([ -~]*[!-~])?$")]


class Part(BaseModel):
    """Any part of a description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Facts(Part):
    """Where the facts about a job stand in one JSON document: a JMESPath each. Where it finds null, nothing is said."""

    status: JmesPath | None = Field(None, description="The API's own word for the status; `statuses` translates it.")
    verdict: JmesPath | None = Field(
        None, description="The canonical status itself, where the word alone does not tell it. Comes before `statuses`."
    )
    kind: JmesPath | None = Field(None, description="What sort of job it is.")
    progress: JmesPath | None = Field(None, description="How far it is.")
    step: JmesPath | None = Field(None, description="What it is at.")
    waiting_for: JmesPath | None = Field(None, description="What a person or a message is needed for.")
    time: JmesPath | None = Field(None, description="When it was so: RFC 3339, or seconds since 1970.")
    result: JmesPath | None = Field(None, description="What came of it.")
    error: JmesPath | None = Field(None, description="Why it failed: an object or a text.")
    detail: dict[str, JmesPath] = Field(default_factory=dict, description="Pieces of the event's detail, by name.")

    def read(self, document: Any, statuses: Mapping[str, JobStatus]) -> dict[str, Any]:
        """What the document says, under the names of a `Reading`'s fields. Raises `Unreadable`."""
        found = {name: value for name, path in self._paths if (value := path.of(document)) is not None}
        word, verdict = as_text(found.pop("status", None)), as_text(found.pop("verdict", None))
        status = JobStatus(verdict) if verdict in _CANONICAL else statuses.get(word or "")
        for name, shape in _SHAPES.items():
            if name in found:
                found[name] = shape(found[name])
        if self.detail:
            detail = {name: value for name, path in self.detail.items() if (value := path.of(document)) is not None}
            found["detail"] = detail or None
        return found | {"status": status, "provider_status": word}

    @cached_property
    def _paths(self) -> Sequence[tuple[str, JmesPath]]:
        paths = ((name, getattr(self, name)) for name in Facts.model_fields)
        return [(name, path) for name, path in paths if isinstance(path, JmesPath)]


class Followup(Facts):
    """A second question, where the first answer does not tell enough."""

    when: list[str] = Field(min_length=1, description="The API's status words behind which it is asked.")
    url: Template = Field(description="Path of the route.")
    refused: JobStatus | None = Field(
        None, description="What it means for the job when this route refuses with a 4xx that is not about us."
    )


class StatusRoute(Facts):
    """The status endpoint."""

    url: Template = Field(description="Path of the route.")
    fingerprint: JmesPath | None = Field(
        None, description="What of the answer makes a state a new one, beside status, progress, step and the like."
    )
    then: list[Followup] = Field(default_factory=list, description="Second questions; the first that applies is asked.")


class CursorRule(Part):
    """Where the place in a stream comes from and how it goes back."""

    path: JmesPath | None = Field(None, description="Where it stands in the payload; the SSE id when absent.")
    header: HeaderName | None = Field(None, description="Request header that takes it.")
    query: str | None = Field(None, description="Query parameter that takes it.")
    first: HeaderValue | None = Field(None, description="What is sent at the very beginning.")
    ordered: bool = Field(
        False, description="Whether cursors rise, by the numbers in them: what is at or below ours is then dropped."
    )
    refused: list[int] = Field(default_factory=list, description="HTTP statuses that say that it is too old.")


class FrameRule(Facts):
    """What one kind of frame says: `type` for news that change no status, otherwise a status."""

    type: News | None = Field(None, description="Type of the event.")
    becomes: JobStatus | None = Field(None, description="Canonical status, unless the payload tells another.")
    own_id: bool = Field(True, description="False for frames without an SSE id of their own: the last one's is sticky.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> FrameRule:
        moves = not (self.becomes is None and self.status is None and self.verdict is None)
        if moves is (self.type is not None):
            raise ValueError("needs either a `type`, or a status by `becomes`, `status` or `verdict`")
        return self


class StreamRoute(Part):
    """The event stream."""

    url: Template = Field(description="Path of the route, with whatever query it needs.")
    base_url: AnyHttpUrl | None = Field(None, description="Address of the stream's host, where it has its own.")
    data: Literal["json", "text"] = Field("json", description="What the data of a frame is.")
    latest_value: bool = Field(
        False, description="Whether each frame is the job as it is now, to be read like an answer of the status route."
    )
    type: JmesPath | None = Field(None, description="Where a frame's type stands; the SSE event name when absent.")
    key: JmesPath | None = Field(
        None, description="What names a frame for ever; its SSE id when absent, and without one a hash of it."
    )
    cursor: CursorRule | None = Field(None, description="How to resume. Without it every stream begins anew.")
    time: JmesPath | None = Field(None, description="When it happened: RFC 3339, or seconds since 1970.")
    frames: dict[str, FrameRule] = Field(
        default_factory=dict,
        description="What each type says. `*` and `?` may stand in it; the first that fits counts.",
    )
    otherwise: News = Field(EventType.UNMAPPED, description="Type of the event for any other frame.")
    keep_alive: list[str] = Field(default_factory=list, description="Types of frames that are signs of life only.")


class Listing(Part):
    """The route that lists jobs."""

    url: Template = Field(description="Path of the first page.")
    ids: JmesPath = Field(description="The job ids on a page: a list of texts, or of lists of an id's parts.")
    next: JmesPath | None = Field(None, description="What leads to the next page: its address, or a cursor.")
    query: str | None = Field(None, description="Query parameter that takes that cursor; `next` is an address without.")


class ActionRoute(Part):
    """A route that a person's wish is passed on to."""

    url: Template = Field(description="Path of the route.")
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = Field("POST", description="HTTP method.")
    required: list[str] = Field(default_factory=list, description="Members that the body must have.")


class Description(Part):
    """One job API."""

    base_url: AnyHttpUrl | None = Field(None, description="Address of the API, for sources that name none.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, description="Headers of every request, none of them secret."
    )
    job_id_parts: list[Word] = Field(
        default_factory=list,
        description="Names of what a job id consists of, joined with `/`. Only the first part may hold a `/` itself.",
    )
    statuses: dict[str, JobStatus] = Field(description="The API's status words, each with the canonical one.")
    stream: StreamRoute | None = Field(None, description="The event stream, where there is one.")
    status: StatusRoute | None = Field(None, description="The status endpoint, where there is one.")
    listing: Listing | None = Field(None, description="How jobs are listed, where they can be.")
    actions: dict[Action, ActionRoute] = Field(default_factory=dict, description="What can be asked of a job.")

    @model_validator(mode="after")
    def _hangs_together(self) -> Description:
        for at, template in self._templates():
            known = set() if at == "listing.url" else {"job_id", *self.job_id_parts}
            if unknown := sorted(template.names - known):
                raise ValueError(f"{at}: nothing here is called {{{unknown[0]}}}; there are: {sorted(known)}")
        if self.stream and self.stream.latest_value and self.status is None:
            raise ValueError("stream.latest_value: is read as `status` says, and there is no `status`")
        if self.status and not (self.status.status or self.status.verdict):
            raise ValueError("status: needs a `status` or a `verdict`")
        return self

    def _templates(self) -> Iterator[tuple[str, Template]]:
        if self.stream:
            yield "stream.url", self.stream.url
        if self.status:
            yield "status.url", self.status.url
            yield from ((f"status.then.{n}.url", more.url) for n, more in enumerate(self.status.then))
        if self.listing:
            yield "listing.url", self.listing.url
        yield from ((f"actions.{action}.url", route.url) for action, route in self.actions.items())

    def names(self, job_id: str) -> dict[str, str]:
        """What the templates' variables stand for. Raises ValueError where the id lacks a part."""
        parts = job_id.rsplit("/", len(self.job_id_parts) - 1) if self.job_id_parts else []
        if len(parts) != len(self.job_id_parts):
            raise ValueError(f"a job id is {'/'.join(self.job_id_parts)} here")
        return {"job_id": job_id, **dict(zip(self.job_id_parts, parts, strict=True))}


_CANONICAL = frozenset(JobStatus)
_YEAR_3000_S = 32_503_680_000


def moment(time: Any) -> str | None:
    """A time as job APIs tell it: a text, or seconds since 1970 made RFC 3339."""
    if isinstance(time, int | float) and not isinstance(time, bool) and 0 < time < _YEAR_3000_S:
        return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")
    return time if isinstance(time, str) else None


def as_text(value: Any) -> str | None:
    """A text or a whole number as a text that names something."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _as_object(error: Any) -> dict[str, Any] | None:
    return error if isinstance(error, dict) else {"message": str(error)} if error else None


_SHAPES: dict[str, Callable[[Any], Any]] = {
    "kind": as_text,
    "time": moment,
    "waiting_for": lambda found: found or None,
    "error": _as_object,
}
