"""What is SQLite's own: the file, its guard, full disks, shared transactions, rows in bulk."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Fatal, Temporary
from bridge.event import Cursor, EventType, JobEvent, JobKey
from bridge.journal.store import Checkpoint, SubscriptionRecord
from bridge.journal.stores import open_store
from bridge.journal.stores.sqlite import SqliteJournal, open_journal
from bridge.journal.stores.sqlite.bulk import look_up, packed, unpacked, write

DATA = b"x" * 4000


def events(first: int, count: int) -> list[JobEvent]:
    return [JobEvent(str(n), "auvy", "a", EventType.OUTPUT, DATA) for n in range(first, first + count)]


async def append(journal: SqliteJournal, job: SubscriptionRecord, first: int, count: int) -> int:
    return await journal.append(job, events(first, count), Checkpoint(Cursor(str(first)), b""))


@asynccontextmanager
async def one_job(path: Path) -> AsyncIterator[tuple[SqliteJournal, SubscriptionRecord]]:
    async with open_journal(path) as journal:
        ((job, _),) = await journal.follow([JobKey("auvy", "a")], "config")
        yield journal, job


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


async def refusal(path: Path, partitions: int = 1) -> str:
    with pytest.raises(Fatal) as caught:
        async with open_journal(path, partitions=partitions):
            pass
    assert caught.value.reason == "journal"
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- opening ----------------------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    script = (
        "import asyncio, sys\n"
        "from bridge.journal.stores.sqlite import open_journal\n"
        "async def main():\n"
        "    async with open_journal(sys.argv[1]):\n"
        "        print('open', flush=True)\n"
        "        sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        assert await refusal(path) == (
            f"journal {path} is in use by another process: stop that one, or give this one a journal of its own"
        )
        other.kill()
    async with open_journal(path):
        assert "is in use" in await refusal(path)


async def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    text, database = tmp_path / "text", tmp_path / "other.db"
    text.write_bytes(b"not a database, whatever one may have hoped for\n" * 300)
    before = text.read_bytes()
    assert await refusal(text) == f"journal {text} cannot be opened: file is not a database"
    assert text.read_bytes() == before
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert "is a database of something else" in await refusal(database)


async def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in await refusal(tmp_path / "missing" / "journal.db")
    directory = tmp_path / "directory"
    directory.mkdir()
    assert "unable to open database file" in await refusal(directory)


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with one_job(path) as (journal, job):
        await append(journal, job, 0, 10)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 6000)
    assert "malformed" in await refusal(path)


async def test_a_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "has schema version 99 and this release knows 5: run the newer release again" in await refusal(path)


async def test_another_partition_count_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, partitions=4):
        pass
    assert "was made with 4 partitions and is opened with 2" in await refusal(path, partitions=2)
    async with open_journal(path, partitions=4) as journal:
        assert journal.partitions == 4


async def test_a_url_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{tmp_path}/absolute.db", "sqlite:///relative.db", "sqlite::memory:"):
        async with open_store(url, partitions=2) as journal:
            assert journal.partitions == 2
    assert names(tmp_path) >= {"absolute.db", "relative.db"}
    for url in ("mysql://somewhere/x", "sqlite:///", "sqlite", "journal.db", ""):
        with pytest.raises(Fatal, match="cannot be opened: write sqlite:///relative/path"):
            open_store(url)


# -- a disk that fails ------------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond: the write itself fails, as on a failing disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


async def test_a_write_error_is_temporary_for_all_and_nothing_of_it_happened(tmp_path: Path) -> None:
    async with one_job(tmp_path / "journal.db") as (journal, job):
        await journal.register(["kafka"])
        await append(journal, job, 0, 3)
        waiting = asyncio.create_task(journal.pending(0, 3, limit=10))
        with file_size_limit(64 * 1024):
            failed = await asyncio.gather(
                append(journal, job, 3, 50),
                append(journal, job, 53, 1),
                journal.settle("kafka", 0, 3),
                return_exceptions=True,
            )
            for error in failed:
                assert isinstance(error, Temporary)
                assert error.reason == "journal"
                assert isinstance(error.__cause__, sqlite3.OperationalError)
            assert len({id(error) for error in failed}) == 3
            health = await journal.health()
            assert (health.writable, health.entries, health.depth) == (False, 3, {"kafka": 3})
            assert "the journal cannot be used now" in health.detail
            assert len(await journal.pending(0, 0, limit=10)) == 3
            assert not waiting.done()
        assert (await journal.health()).writable
        assert await append(journal, job, 0, 6) == 3
        assert [e.position for e in await waiting] == [4, 5, 6]
        assert [e.position for e in await journal.pending(0, 0, limit=10)] == [1, 2, 3, 4, 5, 6]


async def test_a_full_disk_is_temporary_and_work_goes_on_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, "4m"):
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (2 << 20))
        async with one_job(disk / "journal.db") as (journal, job):
            count = 0

            async def fill() -> None:
                nonlocal count
                while True:
                    count += await append(journal, job, count, 10)

            with pytest.raises(Temporary, match="full"):
                await fill()
            assert not (await journal.health()).writable
            ballast.unlink()
            assert await append(journal, job, count, 10) == 10
            assert (await journal.health()).writable
            found = await journal.pending(0, 0, limit=count + 20)
            assert [e.position for e in found] == list(range(1, count + 11))


# -- the writing thread -----------------------------------------------------------------------------------------------


async def test_what_waits_shares_a_transaction_and_reads_do_not_wait_for_it(tmp_path: Path) -> None:
    transactions = 0
    gate = threading.Event()

    def clock_ms() -> int:  # is asked once in every transaction
        nonlocal transactions
        transactions += 1
        assert gate.wait(10)
        return 1_000_000

    gate.set()
    async with open_journal(tmp_path / "journal.db", clock_ms=clock_ms) as journal:
        jobs = [job for job, _ in await journal.follow([JobKey("auvy", str(n)) for n in range(50)], "config")]
        await append(journal, jobs[0], 0, 1)
        gate.clear()
        before = transactions
        appends = [asyncio.create_task(append(journal, job, 1, 2)) for job in jobs]
        assert len(await journal.pending(0, 0, limit=10)) == 1
        assert (await journal.health()).entries == 1
        gate.set()
        assert await asyncio.gather(*appends) == [2] * 50
        assert transactions - before <= 2


async def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with one_job(path) as (journal, job):
        late = [asyncio.create_task(append(journal, job, n, 1)) for n in range(400)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*late) == [1] * 400
    with pytest.raises(Temporary, match="the journal is closed"):
        await append(journal, job, 0, 1)
    with pytest.raises(Temporary, match="the journal is closed"):
        await journal.subscription(job.key)
    assert names(tmp_path) == {"journal.db", "journal.db.lock"}


async def test_the_write_ahead_log_stays_small(tmp_path: Path) -> None:
    async with one_job(tmp_path / "journal.db") as (journal, job):
        for n in range(80):
            await append(journal, job, n * 100, 100)
        assert (tmp_path / "journal.db").stat().st_size > 20 << 20
        assert (tmp_path / "journal.db-wal").stat().st_size < 16 << 20


# -- rows in bulk -----------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])), st.binary())
    )
)
def test_rows_in_bulk_come_back_as_they_went(rows: list[tuple[int, str, bytes]]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (nth INTEGER PRIMARY KEY, n INTEGER, s TEXT, b BLOB) STRICT")
        write(connection, "INSERT INTO t (n, s, b) VALUES :rows", rows)
        sql = packed("n, s, NULL", "b", "SELECT * FROM t ORDER BY nth LIMIT 1000000")
        assert [tuple(row) for row in unpacked(connection.execute(sql))] == [(n, s, None, b) for n, s, b in rows]


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1023])
def test_any_number_of_rows_takes_few_statements(count: int) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        write(connection, "INSERT INTO t VALUES :rows", [(n,) for n in range(count)])
        inserts = [sql for sql in statements if sql.startswith("INSERT")]
        assert len(inserts) <= count // 256 + 8
        sql = "SELECT json_group_array(json_array(n)) FROM (VALUES :rows) CROSS JOIN t ON n = column1"
        assert sorted(look_up(connection, sql, [(n,) for n in range(count)])) == [[n] for n in range(count)]
