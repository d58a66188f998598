"""The decoder against WHATWG HTML sections 9.2.5 and 9.2.6, whatever the cuts between chunks."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.intake.sse import Decoder, Frame

BOM = b"\xef\xbb\xbf"


def expected(data: bytes, event_id: str = "", event: str = "message", dropped_bytes: int = 0) -> Frame:
    return Frame(event, data, event_id, dropped_bytes)


def decode(chunks: Iterable[bytes], frame_bytes_max: int = 1024) -> tuple[list[Frame], str, int | None]:
    decoder = Decoder(frame_bytes_max)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return frames, decoder.last_event_id, decoder.retry_ms


CASES: dict[str, tuple[bytes, list[Frame]]] = {
    "the example of the standard: two lines of data": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [expected(b"YHOO\n+2\n10")],
    ),
    "the example of the standard: comment, id, no id, a space": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [expected(b"first event", "1"), expected(b"second event"), expected(b" third event")],
    ),
    "the example of the standard: fields without a colon, and no last blank line": (
        b"data\n\ndata\ndata\n\ndata:",
        [expected(b""), expected(b"\n")],
    ),
    "the example of the standard: the space is optional": (
        b"data:test\n\ndata: test\n\n",
        [expected(b"test"), expected(b"test")],
    ),
    "line feeds": (b"id: 1\ndata: a\n\ndata: b\n\n", [expected(b"a", "1"), expected(b"b", "1")]),
    "carriage returns": (b"id: 1\rdata: a\r\rdata: b\r\r", [expected(b"a", "1"), expected(b"b", "1")]),
    "both": (b"id: 1\r\ndata: a\r\n\r\ndata: b\r\n\r\n", [expected(b"a", "1"), expected(b"b", "1")]),
    "mixed line ends": (
        b"data: a\rdata: b\r\n\rdata: c\n\r\ndata: d\r\n\n",
        [expected(b"a\nb"), *map(expected, (b"c", b"d"))],
    ),
    "a line feed and a carriage return are two line ends": (
        b"data: a\n\rdata: b\n\r",
        [expected(b"a"), expected(b"b")],
    ),
    "one byte order mark": (BOM + b"data: a\n\n", [expected(b"a")]),
    "a second byte order mark is text": (BOM + BOM + b"data: a\n\ndata: b\n\n", [expected(b"b")]),
    "a byte order mark later on is text": (b"data: a\n\n" + BOM + b"data: b\n\n", [expected(b"a")]),
    "a byte order mark inside data": (b"data:" + BOM + b"a\n\n", [expected(BOM + b"a")]),
    "half a byte order mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [expected(b"b")]),
    "a byte order mark and nothing else": (BOM, []),
    "comments": (b":\n: ping\n:data: no\ndata: a\n:in between\ndata: b\n\n", [expected(b"a\nb")]),
    "a comment and a blank line after an id": (b"id: 1\ndata: a\n\n: ping\n\n\n", [expected(b"a", "1")]),
    "only one space is stripped": (b"data:   a \n\ndata:\ta\n\n", [expected(b"  a "), expected(b"\ta")]),
    "a colon in the value": (b"data: a: b\n\n", [expected(b"a: b")]),
    "names are case-sensitive and never trimmed": (b"Data: a\n data: b\ndata : c\ndatax: d\n\n", []),
    "unknown fields": (b"foo: bar\nfoo\ndata: a\n\n", [expected(b"a")]),
    "the event name holds for one block": (
        b"event: tick\ndata: a\n\ndata: b\n\nevent: x\nevent: tock\ndata: c\n\n",
        [expected(b"a", event="tick"), expected(b"b"), expected(b"c", event="tock")],
    ),
    "an event name without data is forgotten": (b"event: tick\n\ndata: a\n\n", [expected(b"a")]),
    "an empty event name": (b"event: tick\nevent:\ndata: a\n\n", [expected(b"a")]),
    "an id that stands after the data": (b"data: a\nid: 7\n\n", [expected(b"a", "7")]),
    "ids are sticky until emptied": (
        b"id: 1\ndata: a\n\ndata: b\n\nid:\ndata: c\n\n",
        [expected(b"a", "1"), expected(b"b", "1"), expected(b"c")],
    ),
    "a block of only an id": (b"id: 9\n\ndata: a\n\n", [expected(b"a", "9")]),
    "an id with NUL is ignored": (b"id: 1\nid: 2\0\ndata: a\n\n", [expected(b"a", "1")]),
    "NUL elsewhere is text": (b"data: a\0b\nevent: \0\n\n", [expected(b"a\0b", event="\0")]),
    "data without a value": (b"data:\n\n", [expected(b"")]),
    "a line that is a single space": (b"data: a\n \n\n", [expected(b"a")]),
    "what is not UTF-8 is replaced": (
        b"data: a\xffb\xe2\x82\nid: \xc0\nevent: \xed\xa0\x80\n\n",
        [expected("a\ufffdb\ufffd".encode(), "\ufffd", "\ufffd" * 3)],
    ),
    "other alphabets": ("id: é\nevent: щ\ndata: 東京 🚀\n\n".encode(), [expected("東京 🚀".encode(), "é", "щ")]),
    "what Unicode and Python call line ends is text": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        [expected("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg".encode())],
    ),
    "an unfinished block": (b"data: a\n\ndata: b\n", [expected(b"a")]),
    "nothing": (b"", []),
    "data exactly at the limit": (b"data: " + b"x" * 1024 + b"\n\n", [expected(b"x" * 1024)]),
    "data one byte over the limit, then an id": (
        b"data:" + b"x" * 1025 + b"\nid: 5\n\ndata: b\n\n",
        [expected(b"x" * 1024, "5", dropped_bytes=1), expected(b"b", "5")],
    ),
    "many lines of data over the limit": (
        b"data: abcdefg\n" * 200 + b"event: big\n\n",
        [expected(b"abcdefg\n" * 128, event="big", dropped_bytes=200 * 8 - 1 - 1024)],
    ),
    "data far over the limit, in two lines, behind a byte order mark": (
        BOM + b"data: " + b"x" * 3000 + b"\r\ndata: " + b"y" * 2000 + b"\r\n\r\n",
        [expected(b"x" * 1024, dropped_bytes=5001 - 1024)],
    ),
    "a cut inside a character drops the whole of it": (
        b"data: x" + "é".encode() * 600 + b"\n\n",
        [expected(b"x" + "é".encode() * 511, dropped_bytes=1201 - 1024)],
    ),
    "long lines of other fields are ignored": (
        b"id: 1\nid: " + b"2" * 1100 + b"\nevent: " + b"e" * 1100 + b"\n:" + b"c" * 1100 + b"\ndata: a\n\n",
        [expected(b"a", "1")],
    ),
    "a long field name that begins like data": (b"data" + b"a" * 1100 + b": b\n\ndata: c\n\n", [expected(b"c")]),
}


@pytest.mark.parametrize(("stream", "frames"), CASES.values(), ids=CASES.keys())
def test_a_stream_gives_the_same_frames_wherever_it_is_cut(stream: bytes, frames: list[Frame]) -> None:
    whole = decode([stream])
    assert whole[0] == frames
    assert decode(stream[i : i + 1] for i in range(len(stream))) == whole
    for cut in range(len(stream)):
        assert decode([stream[:cut], stream[cut:]]) == whole, cut
        assert decode([stream[:cut], b"", stream[cut:]]) == whole, cut


PIECES = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\n\n", b":", b" ", b"\0", BOM, b"\xef", b"\xbb\xbf", b"\xff", "é\u2028".encode()),
        *(b"data", b"data:", b"data: x", b"id: ", b"id: 7", b"event: e", b"retry: 12", b"x" * 30, b"y" * 90),
    ]
)


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 800), max_size=12))
def test_cuts_never_matter(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert decode(chunks, 64) == decode([stream], 64)


@given(st.binary(max_size=300), st.integers(1, 7))
def test_data_is_always_utf_8(noise: bytes, size: int) -> None:
    stream = b"data: " + noise + b"\n\n"
    frames, _, _ = decode((stream[i : i + size] for i in range(0, len(stream), size)), 64)
    for frame in frames:
        frame.data.decode()


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b"\r\n\r"])
def test_an_event_is_given_out_with_the_first_byte_that_ends_it(end: bytes) -> None:
    decoder = Decoder()
    stream = b"data: a" + (end[:-1] if end.endswith(b"\r\n") else end)
    assert decoder.feed(stream[:-1]) == []
    assert decoder.feed(stream[-1:]) == [expected(b"a")]


@pytest.mark.parametrize(
    ("stream", "retry_ms"),
    [
        (b"retry: 1500\n", 1500),
        (b"retry:0\n", 0),
        (b"retry: 007\n\n", 7),
        (b"retry: 1\nretry: 2\n\n", 2),
        (b"retry: 5\nretry: x\n\n", 5),
        (b"retry: +1\n\n", None),
        (b"retry: -1\n\n", None),
        (b"retry: 1_000\n\n", None),
        (b"retry: 1.5\n\n", None),
        (b"retry:  1\n\n", None),
        (b"retry: 1 \n\n", None),
        (b"retry:\nretry\n\n", None),
        ("retry: ١٢\n\n".encode(), None),
        ("retry: ２\n\n".encode(), None),
        (b"retry: " + b"9" * 900 + b"\n\n", None),
        (b"retry: 1500", None),
    ],
)
def test_retry_takes_ascii_digits_only(stream: bytes, retry_ms: int | None) -> None:
    for chunks in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        assert decode(chunks) == ([], "", retry_ms)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_blank_line_commits_the_id_with_or_without_data(end: bytes) -> None:
    decoder = Decoder()
    decoder.feed(b"id: 1" + end)
    assert decoder.last_event_id == ""
    assert decoder.feed(end) == []
    assert decoder.last_event_id == "1"
    decoder.feed(b"id: 2" + end + b"data: cut off" + end)
    assert decoder.last_event_id == "1"


def test_an_oversized_frame_keeps_four_kibibytes_and_the_stream_goes_on() -> None:
    decoder = Decoder(1 << 20)
    frames = decoder.feed(b"data: " + b"x" * (3 << 20) + b"\nid: 8\n\ndata: next\n\n")
    assert frames == [expected(b"x" * 4096, "8", dropped_bytes=(3 << 20) - 4096), expected(b"next", "8")]


@pytest.mark.parametrize(
    "head",
    [b"data: ", b":", b"id: ", b"event: ", b"retry: 1", b"a_field_name"],
    ids=["data", "comment", "id", "event", "retry", "name"],
)
def test_memory_is_bounded_on_an_endless_line(head: bytes) -> None:
    decoder = Decoder(1 << 20)
    chunk = b"7" * (64 << 10)
    tracemalloc.start()
    try:
        decoder.feed(head)
        for _ in range(50 << 4):  # 50 MiB
            assert decoder.feed(chunk) == []
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 << 20
    assert peak < 4 << 20
    frames = decoder.feed(b"\ndata: b\nid: 3\n\n")
    assert [frame.id for frame in frames] == ["3"]
    assert (frames[0].dropped_bytes > 0) == (head == b"data: ")


@pytest.mark.parametrize("line", [b"data\n", b"data: ab\n", b"data: abcdefghij\n"])
def test_memory_is_bounded_on_an_endless_block(line: bytes) -> None:
    decoder = Decoder(1 << 18)
    chunk = line * 1000
    tracemalloc.start()
    try:
        for _ in range(400):
            assert decoder.feed(chunk) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    (frame,) = decoder.feed(b"\n")
    assert frame.dropped_bytes + len(frame.data) == 400_000 * len(line.removeprefix(b"data").removeprefix(b": ")) - 1


def cpu_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("frame_bytes_max", [1 << 20, 64 << 20], ids=["over the limit", "within the limit"])
def test_a_long_line_in_small_chunks_takes_linear_time(frame_bytes_max: int) -> None:
    def read(mebibytes: int) -> None:
        decoder = Decoder(frame_bytes_max)
        decoder.feed(b"data: ")
        for _ in range(mebibytes << 10):
            decoder.feed(chunk)
        assert len(decoder.feed(b"\n\n")) == 1

    chunk = b"x" * 1024
    ratio = min(cpu_s(lambda: read(8)) for _ in range(3)) / min(cpu_s(lambda: read(1)) for _ in range(3))
    assert ratio < 24  # eight times the bytes; a quadratic reader needs sixty-four times the time
