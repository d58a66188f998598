"""What a receiver gets when it asks, instead of waiting until it is called: its events behind a cursor, signed.

It is given whatever the journal has, delivered or not, and no delivery's outcome changes because of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from bridge.delivery.chain import Chain
from bridge.delivery.sink import Pullable, Signed
from bridge.errors import Fatal
from bridge.journal.store import DeliveryJournal

EVENTS_MAX = 100
_LOOK = 1_000
"""Entries that a page looks through: a receiver that wants few events gets empty pages."""
_SLICE = 50
"""Entries between which nobody else has a turn."""
_BYTES_MAX = 4 << 20
_CURSOR = re.compile(r"\d{1,18}(\.\d{1,18})*", re.ASCII)


class Page(NamedTuple):
    """Events in the journal's order, and the cursor behind them and all that was passed over. May be empty although
    more follows."""

    events: Sequence[Signed]
    following: str


class UnreadableCursor(ValueError):
    """It did not come from here."""


class Busy(Exception):
    """The endpoint's receiver is being given a page already."""


class Pulls:
    """Fetching, one page at a time for each endpoint."""

    def __init__(self, journal: DeliveryJournal, find: Callable[[str], Awaitable[object]]) -> None:
        """`find` gives the sink of that name, if there is one."""
        self._journal = journal
        self._find = find
        self._busy: set[str] = set()

    async def endpoint(self, name: str) -> Pullable | None:
        """The endpoint of that name; None where there is none, or nothing that can be fetched from now."""
        try:
            sink = await self._find(name)
        except Fatal:  # a person is needed: whoever delivers to it says so
            return None
        return sink if isinstance(sink, Pullable) else None

    async def page(self, name: str, endpoint: Pullable, after: str | None, limit: int) -> Page:
        """As the function `page`. Raises `Busy` while another page is made for the same endpoint."""
        if name in self._busy:
            raise Busy
        self._busy.add(name)
        try:
            return await page(self._journal, name, endpoint, after, limit)
        finally:
            self._busy.discard(name)


async def page(journal: DeliveryJournal, name: str, endpoint: Pullable, after: str | None, limit: int) -> Page:
    """Up to `limit` events that the endpoint wants, behind the cursor `after`; without one, from where it began.

    A cursor is the position in every partition. Raises `UnreadableCursor`, and KeyError for an endpoint that is not
    registered.
    """
    positions = await _positions(journal, name, after)
    found: list[Signed] = []
    room_bytes, look = _BYTES_MAX, _LOOK
    for partition in range(len(positions)):
        chain = Chain()
        while look and (entries := await journal.entries(partition, positions[partition], limit=min(_SLICE, look))):
            look -= len(entries)
            for entry in entries:
                if endpoint.wants(entry):
                    if len(found) == limit or room_bytes <= 0:
                        return Page(found, _cursor(positions))
                    previous = chain.link(entry)
                    if previous is None:
                        previous = await journal.previous(name, entry, endpoint.wants)
                    found.append(endpoint.signed(entry, previous))
                    room_bytes -= len(found[-1].body)
                else:
                    chain.skip(entry)
                positions[partition] = entry.position
                await asyncio.sleep(0)  # a predicate can take milliseconds to judge one
    return Page(found, _cursor(positions))


async def _positions(journal: DeliveryJournal, name: str, after: str | None) -> list[int]:
    begun = [await journal.begun(name, partition) for partition in range(journal.partitions)]
    if after is None:
        return begun
    given = [int(each) for each in after.split(".")] if _CURSOR.fullmatch(after) else []
    if len(given) != len(begun):
        raise UnreadableCursor("not a cursor: send the `next` of the page before, or none to begin with the first")
    return [max(position, first) for position, first in zip(given, begun, strict=True)]


def _cursor(positions: Sequence[int]) -> str:
    return ".".join(map(str, positions))
