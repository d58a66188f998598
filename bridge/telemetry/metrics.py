"""Every metric: its name, labels and meaning. Built on a registry that is handed in; there is no global.

Labels are bounded: names from the configuration and words from fixed sets, never a job, an event or an address.
Moments are exported as timestamps, so that a graph can tell how long ago they were.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from bridge import __version__

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_NETWORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)


class Metrics:
    """All metrics of one running bridge, ready to be scraped from `registry`."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        build = Info("jobbridge_build", "Version of the running code.", registry=self.registry)
        build.info({"version": __version__})
        self._intake()
        self._journal()
        self._delivery()
        self._sessions()

    def _intake(self) -> None:
        self.events = self._counter("events", "Events journalled, repeats not counted.", "source", "type")
        self.duplicates = self._counter("duplicate_events", "Events read again and dropped by the journal.", "source")
        self.oversized = self._counter(
            "oversized_frames",
            "Frames over the source's frame_bytes_max, kept in part as job.unmapped.",
            "source",
        )
        self.late = self._counter("late_events", "Frames read after their job's terminal event.", "source")
        self.open_streams = self._gauge("open_streams", "Event streams open now.", "source")
        self.open_streams_limit = self._gauge(
            "open_streams_limit", "Event streams that may be open at once; further jobs wait for a place.", "source"
        )
        self.budget_waiting = self._gauge("budget_waiting", "Requests that wait for the source's budget now.", "source")
        self.budget_tokens = self._gauge(
            "budget_tokens",
            "Requests that the source's budget would let out at once now; below 1 the next one waits.",
            "source",
        )
        self.last_byte = self._gauge(
            "last_byte_timestamp_seconds",
            "When a stream of the source last gave a byte, comments included.",
            "source",
        )
        self.requests = self._counter(
            "provider_requests",
            "Requests to the source by outcome: 2xx, 4xx, 5xx, error.",
            "source",
            "outcome",
        )
        self.commands = self._counter(
            "commands", "Commands of the command topic that were journalled, repeated ones included.", "action"
        )
        self.commands_passed_over = self._counter(
            "commands_passed_over", "Records of the command topic that could not be obeyed.", "reason"
        )
        self.subscriptions = self._gauge("subscriptions", "Jobs followed, by what we mean to do.", "source", "state")

    def _journal(self) -> None:
        self.append_seconds = self._histogram(
            "journal_append_seconds", "Time to journal one batch of a subscription, waits included.", _FAST
        )
        self.settle_seconds = self._histogram("journal_settle_seconds", "Time to settle one batch.", _FAST)
        self.live_bytes = self._gauge("journal_live_bytes", "Bytes of the journal in use.")
        self.high_water_bytes = self._gauge("journal_high_water_bytes", "Bytes at which intake stops reading.")
        self.depth = self._gauge("journal_depth_entries", "Entries the sink has not settled yet.", "sink")
        self.oldest = self._gauge(
            "journal_oldest_unsettled_timestamp_seconds",
            "When the oldest entry the sink has not settled was journalled; 0 when there is none.",
            "sink",
        )

    def _delivery(self) -> None:
        self.deliveries = self._counter(
            "deliveries",
            "Events by what became of them at the sink: delivered, retrying, filtered, expired, dead.",
            "sink",
            "outcome",
        )
        self.unjudged = self._counter(
            "unjudged_events",
            "Looks at events that the endpoint's `when` could not be applied to, or not in time: they are sent.",
            "sink",
        )
        self.delivery_seconds = self._histogram(
            "delivery_seconds",
            "Time of one Kafka batch or one webhook attempt, failed ones included.",
            _NETWORK,
            "sink",
        )
        self.endpoint_concurrency = self._gauge(
            "endpoint_concurrency",
            "Events that may be under way at the endpoint at once now.",
            "sink",
            "partition",
        )
        self.endpoint_circuit_open = self._gauge(
            "endpoint_circuit_open",
            "1 while the endpoint is left alone, but for a probe, because it refused everything.",
            "sink",
            "partition",
        )
        self.endpoint_turns = self._counter(
            "endpoint_turns",
            "How often operators were to be told of the endpoint: failing, disabled, recovered.",
            "sink",
            "turn",
        )
        self.outstanding = self._gauge(
            "outstanding_entries",
            "Entries passed by the sink but not finished, and dead letters.",
            "sink",
            "state",
        )

    def _sessions(self) -> None:
        self.session_ends = self._counter(
            "session_ends",
            "Ends of sessions by reason; a reconnect follows a temporary one.",
            "group",
            "reason",
        )
        self.sessions = self._gauge("sessions", "Sessions by state: running, waiting, parked.", "group", "state")
        self.bugs = self._counter("session_bugs", "Sessions ended by an error nobody foresaw. Report these.", "group")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"jobbridge_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"jobbridge_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"jobbridge_{name}", text, labels, buckets=buckets, registry=self.registry)


def metrics_table() -> str:
    """Every metric as a Markdown table, from the definitions above."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for collector in Metrics().registry._collector_to_names:
        family = next(iter(collector.collect()))
        labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        rows.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)
