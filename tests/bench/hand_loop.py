"""What a good engineer writes in an afternoon, to measure against: httpx-sse in, aiokafka out.

`python tests/bench/hand_loop.py WAY BASE_URL BOOTSTRAP_SERVERS TOPIC STREAMS`. No journal, no vocabulary, no
reconnecting; only `transactions` keeps a cursor: records and the cursors that they reach are committed together.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import uvloop
from aiokafka import AIOKafkaProducer
from httpx_sse import ServerSentEvent, aconnect_sse

BATCH = 500
Item = tuple[str, str, str]
Queue = asyncio.Queue[Item]


async def frames(client: httpx.AsyncClient, base_url: str, job: str) -> AsyncGenerator[ServerSentEvent, None]:
    async with aconnect_sse(client, "GET", f"{base_url}/v1/jobs/{job}/stream") as source:
        async for frame in source.aiter_sse():
            yield frame


async def send_and_wait(
    client: httpx.AsyncClient, base_url: str, job: str, producer: AIOKafkaProducer, topic: str
) -> None:
    async with aclosing(frames(client, base_url, job)) as stream:
        async for frame in stream:
            await producer.send_and_wait(topic, **record(job, frame.id, frame.data))


async def read(client: httpx.AsyncClient, base_url: str, job: str, queue: Queue) -> None:
    async with aclosing(frames(client, base_url, job)) as stream:
        async for frame in stream:
            await queue.put((job, frame.id, frame.data))


async def write_batched(producer: AIOKafkaProducer, topic: str, queue: Queue) -> None:
    while True:
        items = await some(queue)
        await asyncio.gather(*[await producer.send(topic, **record(*item)) for item in items])


async def write_transactions(producer: AIOKafkaProducer, topic: str, queue: Queue) -> None:
    while True:
        items = await some(queue)
        cursors = {job: cursor for job, cursor, _ in items}
        async with producer.transaction():
            sent = [await producer.send(topic, **record(*item)) for item in items]
            sent.append(await producer.send(f"{topic}.positions", json.dumps(cursors).encode(), key=b"hand"))
            await asyncio.gather(*sent)


async def some(queue: Queue) -> list[Item]:
    items = [await queue.get()]
    while len(items) < BATCH and not queue.empty():
        items.append(queue.get_nowait())
    return items


def record(job: str, cursor: str, data: str) -> dict[str, Any]:
    return {"value": data.encode(), "key": job.encode(), "headers": [("ce_id", cursor.encode())]}


def guarantee(way: str, topic: str) -> dict[str, Any]:
    if way == "transactions":
        return {"transactional_id": topic}
    return {"enable_idempotence": way == "batched"}


async def main(way: str, base_url: str, bootstrap_servers: str, topic: str, streams: int) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    jobs = [f"job-{number}" for number in range(streams)]
    queue: Queue = asyncio.Queue(4 * BATCH)
    async with (
        httpx.AsyncClient(timeout=None, limits=limits) as client,
        AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, max_batch_size=512 << 10, **guarantee(way, topic)
        ) as producer,
        asyncio.TaskGroup() as tasks,
    ):
        if way == "send_and_wait":
            for job in jobs:
                tasks.create_task(send_and_wait(client, base_url, job, producer, topic))
            return
        write = write_batched if way == "batched" else write_transactions
        tasks.create_task(write(producer, topic, queue))
        for job in jobs:
            tasks.create_task(read(client, base_url, job, queue))


if __name__ == "__main__":
    _, chosen, address, servers, name, count = sys.argv
    uvloop.run(main(chosen, address, servers, name, int(count)))
