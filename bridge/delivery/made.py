"""The seam to whatever makes endpoints out of what people ask for while the bridge runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from bridge.delivery.signing import PublicKey
from bridge.delivery.sink import EndpointSink, Pullable
from bridge.journal.endpoints import EndpointRecord


@dataclass(frozen=True, slots=True)
class Draft:
    """An endpoint as it is to be kept in the journal."""

    settings: bytes
    """JSON, without any secret."""
    sealed: bytes = field(repr=False)
    shown: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the answer has to show, since nobody can ask for it later: a secret made here, or its public half."""


class Maker(Protocol):
    """Makes endpoints of one kind.

    Whatever has to open secrets raises `Fatal`, with a sentence, where no key opens them.
    """

    kind: str

    @property
    def closed(self) -> str | None:
        """Why nothing can be made, in one sentence that names the setting; None where it can."""

    def draft(self, name: str, given: Mapping[str, Any]) -> Draft:
        """A new endpoint. Raises pydantic's `ValidationError` that names every fault in `given`."""

    def altered(self, record: EndpointRecord, given: Mapping[str, Any]) -> Draft:
        """The endpoint with some settings changed; null takes one back to its default. Raises as `draft` does."""

    def rotated(self, record: EndpointRecord, overlap_s: float) -> Draft:
        """The endpoint with a new secret in front; the one before ends after that time. Raises `Rejected` while
        too many secrets sign already."""

    def sink(self, record: EndpointRecord) -> EndpointSink:
        """The endpoint itself. Opening it raises `Fatal` where its secrets cannot be opened, or its settings are no
        longer allowed."""

    def pullable(self, record: EndpointRecord) -> Pullable | None:
        """The endpoint for who fetches its events; None where it is removed. Raises `Fatal` as opening it does."""

    def public_keys(self, now_s: float) -> Iterable[PublicKey]:
        """What verifies the signatures of open endpoints at that Unix time, where it is no secret."""
