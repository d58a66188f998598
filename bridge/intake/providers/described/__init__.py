"""Any other job API by YAML alone: its description, what is asked for, and how it is read."""

from bridge.intake.providers.described.plug import (
    POLL,
    SSE,
    DescribedSettings,
    Polled,
    PollSettings,
    SseSettings,
    Streamed,
)

__all__ = ["POLL", "SSE", "DescribedSettings", "PollSettings", "Polled", "SseSettings", "Streamed"]
