"""A way to a cluster that was tried: what clients are built with, and when they are to be built anew."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from bridge.tls import Certificates


@dataclass(frozen=True, slots=True)
class Link:
    """Options for any number of aiokafka clients, good until `stale`."""

    options: dict[str, Any] = field(repr=False)  # secrets are among them
    """Keyword arguments of every aiokafka client, whatever it does."""
    ends_s: float
    """When the brokers, or the token, end what was authenticated now, less a reserve; on the monotonic clock."""
    certificates: Certificates | None

    @property
    def stale(self) -> bool:
        """Whether clients should be closed and built with a new link: certificate files changed, or the brokers will
        soon end the authenticated session, which the client library never renews. Cheap: ask before every batch."""
        if time.monotonic() >= self.ends_s:
            return True
        return self.certificates is not None and self.certificates.renewed
