"""Probes and the scrape."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import Fatal, Temporary

from .room import HEALTHY, Room, Scripted, open_room

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def _get(room: Room, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with room.http.get(room.url(path), headers={"Accept": accept}) as reply:
        return reply.status, await reply.text(), reply.headers["Content-Type"]


async def test_livez_answers_while_the_journal_hangs_and_the_bridge_drains() -> None:
    async with open_room(draining=lambda: True) as room:
        room.journal.hang = True
        assert (await _get(room, "/livez"))[:2] == (200, "alive\n")


async def test_probes_and_metrics_need_no_token_even_when_none_is_set() -> None:
    async with open_room(token=None) as room:
        assert [(await _get(room, path))[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]


async def test_ready_when_the_journal_takes_writes() -> None:
    async with open_room() as room:
        assert (await _get(room, "/readyz"))[:2] == (200, "ready\n")


async def test_ready_over_a_real_journal() -> None:
    async with open_room() as room:
        room.journal.told = None
        await room.store.register(["kafka", "hooks"])
        status, body = await room.call("GET", "/readyz?verbose")
        assert (status, body["ready"], body["sinks"]["kafka"]["depth"]) == (200, True, 0)


async def test_not_ready_while_draining() -> None:
    async with open_room(draining=lambda: True) as room:
        assert (await _get(room, "/readyz"))[:2] == (503, "not ready: draining\n")


async def test_not_ready_without_a_writable_journal() -> None:
    async with open_room() as room:
        room.journal.told = replace(HEALTHY, writable=False, detail="disk full")
        assert (await _get(room, "/readyz"))[:2] == (503, "not ready: journal is not writable\n")


async def test_a_journal_that_hangs_is_not_ready_within_the_health_timeout() -> None:
    async with open_room(health_timeout_s=0.05) as room:
        room.journal.hang = True
        status, body = await room.call("GET", "/readyz?verbose")
        assert (status, body["obstacles"], body["journal"]) == (503, ["journal does not answer"], None)


@pytest.mark.parametrize("query", ["verbose", "verbose=1", "verbose=1&colour=red", "colour=red&verbose"])
async def test_verbose_tells_every_part_and_unknown_parameters_are_ignored(query: str) -> None:
    async with open_room() as room:
        await room.board(
            Scripted("auvy/1", "auvy"),
            Scripted("auvy/2", "auvy", Temporary("cut")),
            Scripted("kafka/0", "kafka", Temporary("broker down")),
        )
        status, body = await room.call("GET", f"/readyz?{query}")
        assert status == 200
        assert body == {
            "ready": True,
            "obstacles": [],
            "draining": False,
            "journal": {"writable": True, "live_bytes": 4096, "high_water_bytes": 1 << 20, "entries": 7},
            "sources": {"auvy": {"state": "running"}, "auvy-eu": {"state": "idle"}},
            "sinks": {
                "kafka": {
                    "state": "waiting",
                    "depth": 3,
                    "oldest_unsettled": "2023-11-14T22:13:10.500Z",
                    "outstanding": {},
                },
                "hooks": {
                    "state": "idle",
                    "depth": 0,
                    "oldest_unsettled": None,
                    "outstanding": {"retrying": 2, "dead": 1},
                },
            },
        }


@pytest.mark.parametrize("query", ["", "?colour=red", "?verbose=0", "?verbose=false"])
async def test_a_plain_readyz_is_one_line(query: str) -> None:
    async with open_room() as room:
        assert (await _get(room, f"/readyz{query}"))[:2] == (200, "ready\n")


async def test_readyz_never_shows_the_text_of_an_error() -> None:
    async with open_room() as room:
        await room.board(Scripted("auvy/1", "auvy", Fatal("key sk-12345 refused", reason="unauthorized")))
        status, body = await room.call("GET", "/readyz?verbose")
        assert (status, body["sources"]["auvy"]) == (200, {"state": "parked"})
        assert "sk-12345" not in str(body)


async def test_a_sink_that_is_away_makes_it_unready_only_where_that_is_asked_for() -> None:
    away = Scripted("kafka/0", "kafka", Temporary("broker down"))
    async with open_room() as room:
        await room.board(away)
        assert (await _get(room, "/readyz"))[0] == 200
    async with open_room(ready_needs_sinks=True) as room:
        await room.board(away, Scripted("auvy/1", "auvy", Temporary("cut")))
        assert (await _get(room, "/readyz"))[:2] == (503, "not ready: sink kafka is waiting\n")


async def test_one_running_session_is_enough_for_a_sink_to_be_there() -> None:
    async with open_room(ready_needs_sinks=True) as room:
        await room.board(Scripted("kafka/0", "kafka", Temporary("cut")), Scripted("kafka/1", "kafka"))
        assert (await _get(room, "/readyz"))[0] == 200


async def test_metrics_parse_in_both_formats() -> None:
    async with open_room() as room:
        room.view.metrics.events.labels("auvy", "job.output").inc(5)
        _, text, kind = await _get(room, "/metrics", "text/plain")
        assert kind.startswith("text/plain; version=0.0.4")
        assert _value(list(text_string_to_metric_families(text)), "jobbridge_events_total", type="job.output") == 5
        _, text, kind = await _get(room, "/metrics", OPENMETRICS)
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert _value(_openmetrics(text), "jobbridge_events_total", type="job.output") == 5


async def test_the_scrape_looks_up_journal_and_sessions() -> None:
    async with open_room() as room:
        await room.board(Scripted("auvy/1", "auvy"), Scripted("auvy/2", "auvy", Temporary("cut")))
        families = list(text_string_to_metric_families((await _get(room, "/metrics"))[1]))
        assert _value(families, "jobbridge_sessions", group="auvy", state="running") == 1
        assert _value(families, "jobbridge_sessions", group="auvy", state="waiting") == 1
        assert _value(families, "jobbridge_sessions", group="kafka", state="parked") == 0
        assert _value(families, "jobbridge_journal_depth_entries", sink="kafka") == 3
        oldest = "jobbridge_journal_oldest_unsettled_timestamp_seconds"
        assert _value(families, oldest, sink="kafka") == 1_699_999_990.5
        assert _value(families, oldest, sink="hooks") == 0
        assert _value(families, "jobbridge_outstanding_entries", sink="hooks", state="dead") == 1


async def test_a_sink_that_left_the_configuration_leaves_the_metrics() -> None:
    async with open_room() as room:
        await _get(room, "/metrics")
        room.journal.told = replace(HEALTHY, depth={"kafka": 3})
        assert 'sink="hooks"' not in (await _get(room, "/metrics"))[1]


@pytest.mark.parametrize("hang", [True, False])
async def test_a_journal_in_trouble_does_not_stop_the_scrape_nor_blank_it(hang: bool) -> None:
    async with open_room(health_timeout_s=0.05) as room:
        await _get(room, "/metrics")
        room.journal.hang = hang
        room.journal.told = replace(HEALTHY, writable=False, depth={})
        families = list(text_string_to_metric_families((await _get(room, "/metrics"))[1]))
        assert _value(families, "jobbridge_journal_depth_entries", sink="kafka") == 3


async def test_metric_names_follow_the_rules_of_prometheus() -> None:
    async with open_room() as room:
        families = _openmetrics((await _get(room, "/metrics", OPENMETRICS))[1])
        assert len(families) > 10
        assert [fault for family in families for fault in _lint(family)] == []


def test_the_lint_of_names_finds_what_it_should() -> None:
    bad = Metric("bridge_wait_ms_total", "", "gauge")
    bad.add_sample("bridge_wait_ms_total", {"jobId": "1"}, 1)
    assert len(list(_lint(bad))) == 5


def _lint(family: Metric) -> list[str]:
    """What promtool would say of a family, and that it bears our name."""
    rules = {
        "starts with jobbridge_": family.name.startswith("jobbridge_"),
        "says what it is": bool(family.documentation.strip()),
        "base units, written out": not re.search(
            r"_(ms|millis|milliseconds|us|kb|mb|kib|mib|min|hours?)(_|$)", family.name
        ),
        "total is for counters": family.type == "counter" or not family.name.endswith("_total"),
        "labels in snake case": all(
            re.fullmatch(r"[a-z_]+", key) for sample in family.samples for key in sample.labels
        ),
        "histograms have a unit": family.type != "histogram" or family.name.endswith(("_seconds", "_bytes")),
    }
    return [f"{family.name}: {rule}" for rule, kept in rules.items() if not kept]


def _openmetrics(text: str) -> list[Metric]:
    """The families of an OpenMetrics text; its parser is stricter than the one of the older format."""
    return list(openmetrics_parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def _value(families: list[Metric], name: str, **labels: str) -> float:
    [value] = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return value
