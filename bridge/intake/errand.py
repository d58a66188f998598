"""A person's wish, passed on to the provider with our credential: the only way in which jobbridge acts on a job."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from bridge.errors import Fatal, Rejected
from bridge.event import EventType, Json
from bridge.intake.decoding import decoded
from bridge.intake.provider import Action, Answer, Reading
from bridge.intake.source import Source
from bridge.journal.store import IntakeJournal, SubscriptionRecord, SubscriptionState
from bridge.wire import excerpt


async def pass_on(
    source: Source, record: SubscriptionRecord, action: Action, body: Json, journal: IntakeJournal
) -> Answer:
    """The provider's answer, whatever it is, and an event that says what was asked and how it was answered.

    Raises what the provider's `act` raises; nothing was asked then, or nobody knows whether it arrived (`Temporary`).
    A refused credential is `Fatal`, or `Temporary` where it could be renewed: the wish can be repeated.
    """
    if record.state is SubscriptionState.REMOVED:
        raise Rejected("this job is not followed", reason="unknown")
    async with source.authorized():
        answer = await source.provider.act(record.key.job_id, action, body)
        if answer.status == 401:
            raise Fatal(f"the provider refuses our credential: {excerpt(answer.body)}", reason="unauthorized")
    # The job may have moved meanwhile: its own session alone writes what is known of it.
    life = source.life(record.key, record.memory)
    reading = Reading(
        type=EventType.STATE,
        key=f"action.{uuid4().hex}",
        detail={"action": action.value, "request": body, "answer": {"status": answer.status, "body": _read(answer)}},
    )
    await journal.append(record, life.apply([reading]), None)
    return answer


def _read(answer: Answer) -> Any:
    """The body as JSON where it is that, else as text."""
    try:
        return decoded(answer.body)[0]
    except ValueError:
        return answer.body.decode("utf-8", "replace")
