"""The only thread that writes: whatever waits when it comes round shares one transaction and one fsync."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from typing import Any, NamedTuple, TypeVar

from bridge.errors import BridgeError, Temporary
from bridge.journal.stores.sqlite.file import translated
from bridge.journal.stores.sqlite.reads import Tide, tide

A = TypeVar("A")
R = TypeVar("R")

Write = Callable[[Connection, int, Sequence[A]], Sequence[R]]
"""A kind of write: applies many requests of its kind, given Unix milliseconds, and returns a result for each."""

_REQUESTS_MAX = 256


class _Request(NamedTuple):
    write: Write[Any, Any]
    argument: Any
    future: asyncio.Future[Any]


class Writer:
    """Runs writes in a thread of its own.

    After every commit `risen` is told, in the event loop, how far the journal has come and what every write gave.
    """

    def __init__(
        self,
        connection: Connection,
        turn: AbstractContextManager[object],
        clock_ms: Callable[[], int],
        risen: Callable[[Tide, Sequence[Any]], None],
    ) -> None:
        self.trouble: BridgeError | None = None
        """Why the last transaction failed, until one succeeds."""
        self._connection = connection
        self._turn = turn
        self._clock_ms = clock_ms
        self._risen = risen
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._level = tide(connection)
        self._open = True
        self._thread.start()

    async def submit(self, write: Write[A, R], argument: A) -> R:
        """Have it written; returns when durable. Raises `Temporary` when the disk cannot take it now.

        A caller who is cancelled leaves once the write is decided: whoever comes after it reads what it wrote.
        """
        self.check_open()
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put(_Request(write, argument, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def check_open(self) -> None:
        """Raises `Temporary` once the journal is closed."""
        if not self._open:
            raise Temporary("the journal is closed", reason="journal")

    async def close(self) -> None:
        """Finish what waits, then end the thread."""
        self._open = False
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while requests := self._next():
            results = self._transact(requests)
            self._loop.call_soon_threadsafe(self._hand_back, requests, results, self._level)

    def _next(self) -> list[_Request]:
        """Everything that waits, up to a bound; waits for the first. Empty when there will be nothing more."""
        requests: list[_Request] = []
        with suppress(Empty):
            while len(requests) < _REQUESTS_MAX:
                request = self._queue.get(block=not requests)
                if request is None:
                    self._queue.put(None)
                    break
                requests.append(request)
        return requests

    def _transact(self, requests: Sequence[_Request]) -> list[Any]:
        """A result for each, or the exception that is to be raised in its place.

        A request that fails by its own fault fails alone: the others are then given a transaction each.
        """
        try:
            with self._turn, self._connection:
                results, level = self._transaction(requests)
        except sqlite3.Error as error:
            trouble = translated(error)
            if trouble is not None:
                self.trouble = trouble
                return [_copy(trouble, error) for _ in requests]
            fault: Exception = error
        except Exception as error:  # noqa: BLE001  it is handed to the caller whose request it is
            fault = error
        else:
            self.trouble, self._level = None, level
            return results
        if len(requests) == 1:
            return [fault]
        return [result for request in requests for result in self._transact([request])]

    def _transaction(self, requests: Sequence[_Request]) -> tuple[list[Any], Tide]:
        """Requests of a kind are written together, in the order in which they came."""
        kinds: dict[Write[Any, Any], list[int]] = {}
        for index, request in enumerate(requests):
            kinds.setdefault(request.write, []).append(index)
        self._connection.execute("BEGIN IMMEDIATE")
        now_ms = self._clock_ms()
        results: list[Any] = [None] * len(requests)
        for write, indices in kinds.items():
            written = write(self._connection, now_ms, [requests[index].argument for index in indices])
            for index, result in zip(indices, written, strict=True):
                results[index] = result
        return results, tide(self._connection)

    def _hand_back(self, requests: Sequence[_Request], results: Sequence[Any], level: Tide) -> None:
        self._risen(level, results)
        for request, result in zip(requests, results, strict=True):
            if request.future.done():  # its caller was cancelled; what it asked for is written all the same
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)


def _copy(trouble: BridgeError, cause: Exception) -> BridgeError:
    """One for each caller: a traceback grows on an exception wherever it is raised."""
    copy = type(trouble)(str(trouble), reason=trouble.reason)
    copy.__cause__ = cause
    return copy
