"""Logs are bounded JSON lines, from our loggers and from libraries, and nothing secret gets out by them."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, SecretStr

from bridge.errors import Temporary
from bridge.telemetry.logs import LogFormat, configure, scrub

HUSH = "hush-hush-4711"


@pytest.fixture
def stream() -> io.StringIO:
    """Takes what is logged."""
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_event_first(stream: io.StringIO) -> None:
    configure("info", "json", stream).info("session.end", source="auvy", wait_s=1.5, jobs=["a", "b"], reason=None)
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "source", "wait_s", "jobs", "reason"]
    assert line["timestamp"].endswith("Z")
    assert abs(datetime.fromisoformat(line.pop("timestamp")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert line == {
        "level": "info",
        "event": "session.end",
        "source": "auvy",
        "wait_s": 1.5,
        "jobs": ["a", "b"],
        "reason": None,
    }


def test_less_than_the_level_is_not_written(stream: io.StringIO) -> None:
    log = configure("warning", "json", stream)
    log.info("quiet")
    log.warning("loud")
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_stream_is_standard_output_by_default(capsys: pytest.CaptureFixture[str], stream: io.StringIO) -> None:
    configure("info", "json").info("here")
    assert json.loads(capsys.readouterr().out)["event"] == "here"


def test_libraries_speak_through_the_same_renderer_from_warnings_up(stream: io.StringIO) -> None:
    configure("debug", "json", stream)
    log = logging.getLogger("aiokafka.producer")
    log.info("quiet")
    log.warning("broker %s is away", "b-1")
    (line,) = lines(stream)
    del line["timestamp"]
    assert line == {"level": "warning", "event": "broker b-1 is away", "logger": "aiokafka.producer"}


def test_configuring_again_replaces_and_leaves_the_handlers_of_others(stream: io.StringIO) -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    configure("info", "json", io.StringIO())
    configure("error", "json", stream)
    logging.getLogger("aiohttp").error("once")
    assert [line["event"] for line in lines(stream)] == ["once"]
    assert other in logging.getLogger().handlers


def raise_chained() -> None:
    local = HUSH
    try:
        int(f"Bearer {local}")
    except ValueError as error:
        raise Temporary(f"the API said no to https://u:{HUSH}@api.example/v1?t={HUSH}") from error


@pytest.mark.parametrize("logger", ["ours", "a library's"])
def test_an_exception_is_a_field_with_its_causes_and_without_locals(stream: io.StringIO, logger: str) -> None:
    log: Any = configure("info", "json", stream) if logger == "ours" else logging.getLogger("aiohttp.server")
    configure("info", "json", stream)
    try:
        raise_chained()
    except Temporary:
        log.error("session.bug", exc_info=True)
    (line,) = lines(stream)
    assert [cause["exc_type"] for cause in line["exception"]] == ["Temporary", "ValueError"]
    assert line["exception"][0]["exc_value"] == "the API said no to https://…@api.example/v1?…"
    assert line["exception"][0]["frames"][-1]["name"] == "raise_chained"
    assert HUSH not in stream.getvalue()


class Options(BaseModel):
    token: SecretStr


SECRET_FIELDS: list[dict[str, Any]] = [
    {"token": HUSH},
    {"webhook-signature": HUSH},
    {"Authorization": HUSH},
    {"sasl_plain_password": HUSH},
    {"X-API-Key": HUSH},
    {"apiKey": HUSH},
    {"headers": {"authorization": HUSH, "Set-Cookie": HUSH, "accept": "x"}},
    {"deep": [{"deeper": ({"client_secret": HUSH},)}]},
    {"given": SecretStr(HUSH)},
    {"given": [SecretStr(HUSH)]},
    {"given": {"x": Options(token=SecretStr(HUSH))}},
    {"given": HUSH.encode()},
    {"url": f"https://api.example/v1/public/jobs/1/stream?after=0&t={HUSH}"},
    {"url": f"kafka://user:{HUSH}@broker:9092"},
    {"detail": f"sent 'Authorization: Bearer {HUSH}' to it"},
    {"detail": f"sent Basic {HUSH}=="},
    {"detail": f'{{"token": "{HUSH}", "a": 1}}'},
    {"detail": str({"webhook-signature": f"v1,{HUSH}"})},
    {"detail": f"password={HUSH}&x=1"},
    {"detail": f"key ak_live_{HUSH}"},
    {"detail": f"key whsec_{HUSH}"},
    {"detail": f"eyJ{HUSH}.{HUSH}.{HUSH}"},
    {"detail": RuntimeError(f"Bearer {HUSH}")},
    {"detail": {f"Bearer {HUSH}": 1}},
    {"detail": "x" * 2000 + f" Bearer {HUSH}" + "x" * 2000},
    {"detail": "x" * 16_380 + f" Bearer {HUSH}"},
]


@pytest.mark.parametrize("fields", SECRET_FIELDS, ids=lambda fields: str(fields)[:60])
@pytest.mark.parametrize("fmt", ["json", "console"])
def test_nothing_secret_gets_out(stream: io.StringIO, fmt: LogFormat, fields: dict[str, Any]) -> None:
    configure("info", fmt, stream).error("what", **fields)
    logging.getLogger("aiohttp").error("%s", fields.get("detail", "nothing"))
    assert "what" in stream.getvalue()
    assert HUSH not in stream.getvalue()


def test_what_is_bound_to_the_context_is_written_and_redacted_too(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(source="auvy", api_key=HUSH):
        configure("info", "json", stream).info("what")
    (line,) = lines(stream)
    assert (line["source"], "api_key" in line) == ("auvy", False)


def test_every_value_is_bounded_and_every_line_is_json(stream: io.StringIO) -> None:
    knot: list[Any] = []
    knot.append(knot)
    configure("info", "json", stream).info(
        "e" * 100_000,
        text="t" * 100_000,
        many=list(range(100_000)),
        wide={str(n): n for n in range(100_000)},
        knot=knot,
        number=10**5000,
        nan=float("nan"),
        lone="\ud800",
        broken="a\nb\x00",
        key={(1, 2): {3}},
        raw=b"\x00" * 10,
    )
    assert len(stream.getvalue().splitlines()) == 1
    assert len(stream.getvalue()) < 12_000
    (line,) = lines(stream)
    assert line["nan"] == "nan"
    assert line["number"] == "<16610 bits>"
    assert line["key"] == {"(1, 2)": [3]}
    assert line["raw"] == "<10 bytes>"
    assert line["broken"] == "a\nb\x00"


def test_a_text_that_is_cut_keeps_both_ends() -> None:
    cut = scrub("begin" + "x" * 5_000 + "end")
    assert cut.startswith("begin")
    assert cut.endswith("end")
    assert len(cut) < 2_100


def test_words_that_only_sound_secret_are_left_alone() -> None:
    text = "job tok-1 failed: no bearer; see https://api.example/v1/jobs/1, key=job/1"
    assert scrub(text) == text


def test_people_get_a_readable_line_and_a_whole_traceback(stream: io.StringIO) -> None:
    log = configure("info", "console", stream)
    try:
        raise_chained()
    except Temporary:
        log.exception("session.bug", source="auvy")
    assert "session.bug" in stream.getvalue()
    assert "source=auvy" in stream.getvalue()
    assert "ValueError: invalid literal for int() with base 10: 'Bearer …'" in stream.getvalue()
    assert "Temporary: the API said no" in stream.getvalue()
    assert HUSH not in stream.getvalue()
