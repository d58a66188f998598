"""The writer of one journal partition: one producer, one transaction per batch, the mark committed along with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka

from bridge.delivery.sink import Check, Mark
from bridge.delivery.sinks.kafka import positions
from bridge.delivery.sinks.kafka.batches import Batches, Refusal
from bridge.delivery.sinks.kafka.load import Load, Target
from bridge.delivery.sinks.kafka.memory import Memory
from bridge.delivery.sinks.kafka.producer import close
from bridge.delivery.sinks.kafka.registry import Registry
from bridge.delivery.sinks.kafka.routes import Routes
from bridge.delivery.sinks.kafka.settings import KafkaSettings
from bridge.delivery.sinks.kafka.shipping import ship
from bridge.delivery.sinks.kafka.topics import Topics
from bridge.errors import Fatal
from bridge.journal.store import Entry, Outcome
from bridge.kafka.failure import bounded

_ENTRY_BYTES = 1024
"""What an entry takes besides its data: headers, key, and the objects around them."""

_PATIENCE_S = 2.0
"""A batch that is not taken by then may be for a topic that is gone: the client would wait for it in silence."""


class _Lot(NamedTuple):
    """What the next flush takes along."""

    load: Load
    loans: AsyncExitStack
    """The memory that it takes, given back with this."""


class KafkaWriter:
    """One producer, for one partition of the journal. `key` names it: its transactional id and its position's key."""

    def __init__(
        self, settings: KafkaSettings, key: str, memory: Memory, registry: Registry | None, ours: set[bytes | None]
    ) -> None:
        self._settings = settings
        self._key = key.encode()
        self._memory = memory
        self._registry = registry
        self._routes = Routes(settings.all_routes)
        self._own = {spec.name: spec for spec in settings.own_topics}
        self._targets: dict[str, Target] = {}
        self._producer: Any = None
        self._in_transaction = False
        self._next = self._lot()
        self._flushing = asyncio.Lock()
        """Held by a flush: the producer that it sends with stays."""
        self._ground = asyncio.Lock()
        """Held by who changes the producer or what is known of the topics: `add` and `flush` may both want to."""
        self._ours = ours
        """What the mark in Kafka can be while nobody else writes it: as last read, last committed or last tried, by
        this writer or the one before it in this process. Empty as long as none has read it."""

    async def start(self, check: Check | None = None) -> None:
        """Connect, see to the topics that are known by name, and fence every earlier producer of this key.

        Before that, `check` is given the mark, as far as it can be read while another producer may be at work.
        """
        async with self._bounded("start a producer"):
            await self._reach()
            if check is not None and self._remembers and (held := await self._mark(patient=False)) is not None:
                await check(positions.decode(held, self._settings.positions_topic))
            await self._produce()

    async def close(self) -> None:
        """Let go of everything; what was only added is forgotten."""
        await self._next.loans.aclose()
        if self._producer is not None:
            await close(self._producer, in_transaction=self._in_transaction)

    async def recover(self) -> Mark | None:
        """The last committed mark; None where none is kept, or the settings say not to go by it."""
        settings = self._settings
        if not settings.exactly_once:
            return None
        async with self._bounded("tell the position"):
            held = await self._mark()
            self._ours.clear()
            self._ours.add(held)
        if not self._remembers:
            return None
        return Mark(0, "") if held is None else positions.decode(held, settings.positions_topic)

    async def add(self, entries: Sequence[Entry]) -> None:
        """Make records of the entries, while the batch before them is on its way to the brokers."""
        size = sum([len(entry.data) for entry in entries]) + _ENTRY_BYTES * len(entries)
        topics = self._routes.topics(entries)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._memory.lent(size))
            if self._registry is not None:
                async with self._bounded("have its schemas registered"):
                    await self._registry.prepare(zip(topics, [entry.type for entry in entries], strict=True))
            while unknown := {*topics, *self._own} - self._targets.keys():  # a flush may forget some meanwhile
                async with self._bounded("tell about the topics"), self._ground:
                    if not self._flushing.locked():
                        await self._renew_if_stale()
                    await self._require(unknown)
            lot = self._next  # of now: a flush may have begun meanwhile
            lot.load.see(self._targets)
            lot.load.events(entries, topics, None if self._registry is None else self._registry.frame)
            lot.loans.push_async_exit(stack.pop_all())

    async def flush(self) -> Sequence[Outcome]:
        """Write what was added and the mark of the last entry, in one transaction where the guarantee asks for it.

        An entry that Kafka will never take is dead and the rest goes on. Raises as the seam says.
        """
        (load, loans), self._next = self._next, self._lot()
        async with loans, self._bounded("take a batch"), self._flushing:
            async with self._ground:
                await self._renew_if_stale()
            load.states()
            if self._settings.exactly_once:
                await self._transact(load)
            else:
                await self._deliver(load)
            return load.outcomes

    def _lot(self) -> _Lot:
        return _Lot(Load(self._settings, self._targets), AsyncExitStack())

    async def _transact(self, load: Load) -> None:
        value = load.mark(self._key)
        await self._producer.begin_transaction()
        self._in_transaction = True
        while refused := await self._send(load.take()):
            load.bury(refused)
            value = load.mark(self._key)
        self._in_transaction = False
        self._ours.add(value)
        await self._producer.commit_transaction()
        self._ours.intersection_update({value})

    async def _deliver(self, load: Load) -> None:
        while refused := await self._send(load.take()):
            load.bury(refused)

    async def _send(self, batches: Batches) -> list[Refusal]:
        """Returns the records that are refused, once all others are written."""
        sending = asyncio.create_task(ship(self._producer, batches))
        try:
            await asyncio.wait({sending}, timeout=_PATIENCE_S)
            if not sending.done():
                await self._look_again({topic for topic, _ in batches.places})
            shipped = await sending
        finally:
            sending.cancel()
        for topic in shipped.tight:
            self._forget(topic)
        return shipped.refused

    async def _look_again(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._forget(topic)
        with suppress(kafka.KafkaError, OSError):  # brokers that are unwell have until the deadline
            async with self._ground:
                await self._require(topics)

    def _forget(self, topic: str) -> None:
        self._topics.forget(topic)
        self._targets.pop(topic, None)

    async def _require(self, topics: Iterable[str]) -> None:
        """See to the topics, and have the producer follow them."""
        await self._topics.require([self._routes.specs.get(name) or self._own[name] for name in topics])
        for name in topics:
            limit = self._topics.record_bytes_max(name)
            self._targets[name] = Target(
                self._topics.partitions(name),
                batch_bytes=min(self._settings.batch_bytes, limit),
                record_bytes=min(self._settings.record_bytes_max, limit),
            )
        # All of them in one go: when it learns of one by itself, it may forget another that it was never told of.
        await self._producer.client.set_topics(self._targets)

    @property
    def _remembers(self) -> bool:
        return self._settings.exactly_once and self._settings.recover_from != "journal"

    async def _reach(self) -> None:
        """Connect without a producer: nobody is fenced by that. Raises `Fatal` where we are fenced already."""
        settings = self._settings
        self._link = await settings.link()
        self._topics = Topics(self._link.options, settings.create_topics, settings.replication_factor)
        self._targets.clear()
        await self._topics.require(list(self._own.values()))
        await self._check_ours()

    async def _produce(self) -> None:
        self._producer = AIOKafkaProducer(**self._link.options, **self._settings.producer(self._key.decode()))
        await self._producer.start()
        await self._require([*self._routes.specs, *self._own])

    async def _renew_if_stale(self) -> None:
        """Put a producer with a new link in the place of the old one, and go on from where that one stood."""
        if self._link.stale:
            await close(self._producer, in_transaction=False)
            await self._reach()
            await self._produce()
            await self._check_ours()

    async def _check_ours(self) -> None:
        """Raise `Fatal` where somebody else has written the mark since this process did.

        Asked before a producer starts, since that fences whoever has the key: a process that stood still for long must
        not end its successor.
        """
        if self._ours and await self._mark(patient=False) not in {None, *self._ours}:
            raise Fatal(
                f"another producer has written to {self._settings.positions_topic} under {self._key.decode()}: it took "
                "over `transactional_id_prefix`, so this one stops",
                reason="fenced",
            )

    async def _mark(self, *, patient: bool = True) -> bytes | None:
        return await positions.last_value(
            self._link.options, self._settings.positions_topic, positions.PARTITION, self._key, patient=patient
        )

    def _bounded(self, what: str) -> AbstractAsyncContextManager[None]:
        return bounded(self._settings.bootstrap_servers, self._settings.delivery_timeout_s, what)
