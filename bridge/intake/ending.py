"""When is a job over? The stream claims it, the status endpoint confirms it; neither is believed alone in haste."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bridge.errors import Rejected, Temporary
from bridge.event import SUSPENDED
from bridge.intake.provider import Reading
from bridge.intake.source import Source

_UNANSWERED = frozenset({"no_status", "not_found", "gone", "too_large"})


def is_end(reading: Reading | None) -> bool:
    """Whether the reading says that the job will never move again."""
    return reading is not None and reading.status is not None and reading.status.terminal


async def look(source: Source, job_id: str) -> Reading | None:
    """The status endpoint's word; None where there is none, it no longer knows the job, or says more than we read."""
    try:
        return await source.provider.status(job_id)
    except Rejected as error:
        if error.reason in _UNANSWERED:
            return None
        raise


async def confirm(
    claim: Reading,
    source: Source,
    job_id: str,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Reading:
    """Hold the stream's claim that the job is over against the status endpoint, whose word counts.

    The endpoint may lag behind the stream. Where it has gone or never was, the claim stands, marked unconfirmed.
    Where it still says at the deadline that the job is suspended, that is what the stream's end meant: the reading
    comes back with that status. Raises `Temporary` (reason `unconfirmed`) when it disagrees otherwise: nothing of the
    claim is journalled then, so the next connection reads it again.
    """
    deadline_s = clock() + source.settings.confirm_timeout_s
    wait_s = 0.1
    while True:
        seen = await look(source, job_id)
        if seen is None:
            return claim._replace(detail={**(claim.detail or {}), "confirmed": False})
        if is_end(seen):
            return _merged(claim, seen)
        if clock() >= deadline_s:
            if seen.status in SUSPENDED:
                return _merged(claim, seen)
            word = seen.provider_status
            raise Temporary(f"the stream says the job is over, the status endpoint {word!r}", reason="unconfirmed")
        await sleep(wait_s)
        wait_s = min(wait_s * 2, 2.0)


def _merged(claim: Reading, seen: Reading) -> Reading:
    """The claim's place and payload with the status endpoint's verdict."""
    return claim._replace(
        type=None,
        status=seen.status,
        provider_status=seen.provider_status,
        progress=seen.progress,
        step=seen.step,
        time=claim.time or seen.time,
        result=seen.result if seen.result is not None else claim.result,
        error={**(claim.error or {}), **(seen.error or {})} or None,
        waiting_for=seen.waiting_for,
    )
