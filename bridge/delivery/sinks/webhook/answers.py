"""What a receiver's answer means. Pure.

The header `webhook-delivery` is a receiver's explicit word, as proposed for Standard Webhooks: `disable` (call me
never again) and `abort-message` (this event will never be accepted).
"""

from __future__ import annotations

from collections.abc import Mapping

from bridge.errors import BridgeError, Fatal, Rejected, Temporary
from bridge.wire import retry_after_s

CONTROL_HEADER = "webhook-delivery"

_WORTH_A_RETRY = frozenset({408, 425, 429})


def refusal(
    status: int, headers: Mapping[str, str], what: str, now_s: float, *, reject_4xx: bool
) -> BridgeError | None:
    """What to raise for an answer; None for a plain acceptance. `what` tells of it in one line.

    `disable` counts with every status: an event that was accepted with it may come again once somebody enables the
    endpoint. `abort-message` beside a 2xx says nothing new. Any other word is as good as none.
    """
    wish = headers.get(CONTROL_HEADER, "").strip().lower()
    if wish == "disable":
        return Fatal(what, reason="disabled", status=status)
    if 200 <= status < 300:
        return None
    if status == 410:
        return Fatal(what, reason="gone", status=status)
    if wish == "abort-message":
        return Rejected(what, reason="aborted", status=status)
    if reject_4xx and 400 <= status < 500 and status not in _WORTH_A_RETRY:
        return Rejected(what, reason="refused", status=status)
    return Temporary(
        what, reason=_reason(status), status=status, after_s=retry_after_s(headers.get("retry-after"), now_s)
    )


def _reason(status: int) -> str:
    if 300 <= status < 400:
        return "redirect"
    if status == 429:
        return "rate_limited"
    return "server_error" if status >= 500 else "refused"
