"""Errors named by what the loop does next, never by where they were raised.

A foreign exception is translated at the line where it enters (`raise Temporary(...) from error`). `str(error)` is
one sentence for an operator: what, where, and where possible what to do.
"""


class BridgeError(Exception):
    """Root of everything jobbridge raises on purpose.

    `reason` is a word from a small fixed set: it becomes a metric label and the reason shown on a parked
    subscription, so it must never hold an id, an address or a number.
    """

    reason = "error"
    status: int | None
    """The HTTP status behind it, where there was one."""

    def __init__(self, text: str, *, reason: str | None = None, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status
        if reason is not None:
            self.reason = reason


class Temporary(BridgeError):
    """Wait, then run the session again. `after_s` is the other side's wish: a floor for the wait, clamped."""

    reason = "temporary"

    def __init__(
        self, text: str, *, reason: str | None = None, status: int | None = None, after_s: float | None = None
    ) -> None:
        super().__init__(text, reason=reason, status=status)
        self.after_s = after_s


class Rejected(BridgeError):
    """This one thing will never be accepted: park the subscription, or make the event a dead letter."""

    reason = "rejected"


class Fatal(BridgeError):
    """Everything in the same group would fail alike (a source's key is refused): park the group, tell a person."""

    reason = "fatal"
