"""A person's wish, passed on to the provider with our credential: the only way in which jobbridge acts on a job."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson

from bridge.errors import Rejected
from bridge.event import EventType, Json
from bridge.intake.lifecycle import Lifecycle
from bridge.intake.provider import Action, Answer, Reading
from bridge.intake.source import Source
from bridge.journal.store import IntakeJournal, SubscriptionRecord, SubscriptionState


async def pass_on(
    source: Source, record: SubscriptionRecord, action: Action, body: Json, journal: IntakeJournal
) -> Answer:
    """The provider's answer, whatever it is, and an event that says what was asked and how it was answered.

    Raises what the provider's `act` raises; nothing was asked then, or nobody knows whether it arrived (`Temporary`).
    """
    if record.state is SubscriptionState.REMOVED:
        raise Rejected("this job is not followed", reason="unknown")
    answer = await source.provider.act(record.key.job_id, action, body)
    # The job may have moved meanwhile: its own session alone writes what is known of it.
    life = Lifecycle(record.key, source.kind, record.memory)
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
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return answer.body.decode("utf-8", "replace")
