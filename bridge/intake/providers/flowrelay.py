"""Flow Relay: generation jobs that can only be polled, one small request budget for all of them.

Facts: the vendor's pages on asynchronous jobs, authentication and errors, and its own open client; contract page Flow
Relay 3.1 to 3.7. Not stated there, and decided here: a change of status is news whatever `updated_at` says, and
`updated_at` alone never is, because nothing says that it moves with the status or only with it. Between two statuses
only what a reader could see counts: the kind and id of the result, and the error.

There is no list of jobs and no way to cancel one. Starting one costs credits, so nothing here ever does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import orjson
from pydantic import AnyHttpUrl, Field

from bridge.errors import Temporary
from bridge.event import JobStatus, Json
from bridge.intake.provider import Http, Provider, Reading, Request, SourceSettings, common_refusal
from bridge.plug import Plug
from bridge.secret import Secret

_STATUSES = {
    "pending": JobStatus.PENDING,
    "processing": JobStatus.RUNNING,
    "completed": JobStatus.COMPLETED,
    "failed": JobStatus.FAILED,
}
_DETAILS = ("project_id", "result_kind", "result_id", "created_at")
_ERROR = {"code": "error_code", "message": "error", "meta": "error_meta"}


class FlowRelaySettings(SourceSettings):
    """What one Flow Relay key may see. The vendor allows 60 requests a minute for a key, and no job more than one a
    second (3.4)."""

    base_url: AnyHttpUrl = Field(
        AnyHttpUrl("https://www.flowrelay.it/api/v1"), description="Address of the API, with its version."
    )
    token: Secret = Field(description="API key (`fr_...`).")
    requests_per_minute: float = Field(
        50.0, gt=0, description="Budget for all requests to this source together; the vendor's limit is 60 for a key."
    )
    status_interval_s: float = Field(
        2.0, ge=1, description="Seconds between two looks at one job; longer once many jobs share the budget."
    )
    stalled_after_s: float | None = Field(
        180.0,
        gt=0,
        description="Without any change for so long, `watch.stalled` is told and the job looked at less often. "
        "The vendor's own client gives up then.",
    )


class FlowRelay(Provider):
    """The Flow Relay plug."""

    def __init__(self, settings: FlowRelaySettings, http: Http) -> None:
        self._http = http
        self._url = str(settings.base_url).rstrip("/")
        self._headers: Mapping[str, str] = {"Authorization": f"Bearer {settings.token.get_secret_value()}"}

    async def status(self, job_id: str) -> Reading:
        """A job that failed is an answer like any other (3.5): its `error_code` is the job's, never the request's."""
        request = Request(f"{self._url}/jobs/{quote(job_id, safe='')}", headers=self._headers)
        body = await self._http.json(request, common_refusal)
        job = body.get("job") if isinstance(body, dict) else None
        if not isinstance(job, dict) or not isinstance(job.get("status"), str):
            raise Temporary("the job endpoint answered without a job that has a `status`", reason="not_json")
        return Reading(
            status=_STATUSES.get(job["status"]),
            provider_status=job["status"],
            kind=_text(job.get("kind")),
            time=_text(job.get("updated_at")),
            detail=_present(job, {name: name for name in _DETAILS}),
            result=body.get("result"),
            error=_present(job, _ERROR),
            payload=orjson.dumps(body),
            fingerprint=_fingerprint(job),
        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _present(job: Json, names: Mapping[str, str]) -> Json | None:
    """Members under the names that we give them; None where the job has none of them."""
    members = {ours: job[theirs] for ours, theirs in names.items() if job.get(theirs) is not None}
    return members or None


def _fingerprint(job: Json) -> str:
    visible = [job.get(name) for name in ("status", "kind", "result_kind", "result_id", *_ERROR.values())]
    return hashlib.blake2b(orjson.dumps(visible, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


PLUG = Plug(kind="flowrelay", settings=FlowRelaySettings, build=FlowRelay)
