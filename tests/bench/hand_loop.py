"""What a good engineer writes in an afternoon, to measure against: httpx-sse in, a Kafka transaction of up to 500 out.

`python tests/bench/hand_loop.py BASE_URL BOOTSTRAP_SERVERS TOPIC JOBS`. Records and the cursors that they reach are
committed together. No journal, no vocabulary, no reconnecting.
"""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import uvloop
from aiokafka import AIOKafkaProducer
from httpx_sse import aconnect_sse

TRANSACTION = 500
Item = tuple[str, str, str]


async def read(client: httpx.AsyncClient, base_url: str, job: str, queue: asyncio.Queue[Item]) -> None:
    async with aconnect_sse(client, "GET", f"{base_url}/v1/jobs/{job}/stream") as source:
        async for frame in source.aiter_sse():
            await queue.put((job, frame.id, frame.data))


async def write(producer: AIOKafkaProducer, topic: str, queue: asyncio.Queue[Item]) -> None:
    while True:
        items = [await queue.get()]
        while len(items) < TRANSACTION and not queue.empty():
            items.append(queue.get_nowait())
        cursors = {job: cursor for job, cursor, _ in items}
        async with producer.transaction():
            sent = [
                await producer.send(topic, data.encode(), key=job.encode(), headers=[("ce_id", cursor.encode())])
                for job, cursor, data in items
            ]
            sent.append(await producer.send(f"{topic}.positions", json.dumps(cursors).encode(), key=b"hand"))
            await asyncio.gather(*sent)


async def main(base_url: str, bootstrap_servers: str, topic: str, jobs: int) -> None:
    queue: asyncio.Queue[Item] = asyncio.Queue(4 * TRANSACTION)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        httpx.AsyncClient(timeout=None, limits=limits) as client,
        AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, transactional_id=topic, max_batch_size=512 << 10
        ) as producer,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(write(producer, topic, queue))
        for number in range(jobs):
            tasks.create_task(read(client, base_url, f"job-{number}", queue))


if __name__ == "__main__":
    _, address, servers, name, count = sys.argv
    uvloop.run(main(address, servers, name, int(count)))
