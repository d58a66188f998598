"""Which event of a job came before which at one endpoint: the only place that remembers it. Pure."""

from __future__ import annotations

from collections import OrderedDict

from bridge.journal.store import Entry

_JOBS_MAX = 10_000


class Chain:
    """The last event of each job that was meant for the endpoint, among those that were read here, in order."""

    def __init__(self, jobs_max: int = _JOBS_MAX) -> None:
        self._jobs_max = jobs_max
        self._last: OrderedDict[int, int] = OrderedDict()

    def link(self, entry: Entry) -> int | None:
        """The next entry is meant for the endpoint: `sequence` of the job's one before it, 0 where there is none. None
        where that was not read here, or so long ago that only the journal remembers."""
        previous = self._last.get(entry.subscription, 0 if entry.sequence == 1 else None)
        self._keep(entry.subscription, entry.sequence)
        return previous

    def skip(self, entry: Entry) -> None:
        """The next entry is not meant for the endpoint."""
        if entry.sequence == 1:  # so that nobody has to look what came before the first that is
            self._keep(entry.subscription, 0)

    def _keep(self, subscription: int, sequence: int) -> None:
        self._last[subscription] = sequence
        self._last.move_to_end(subscription)
        if len(self._last) > self._jobs_max:
            self._last.popitem(last=False)
