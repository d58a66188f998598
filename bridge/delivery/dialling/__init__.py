"""Whom a receiver's URL lets us dial: the only place that stands between a foreign URL and our own network.

The judgement falls when the socket is made, on the very address that is then dialled, or that the proxy is asked for.
A name that resolves to something else a moment later, or a URL that holds a bare address, meets the same judge.
"""

from bridge.delivery.dialling.connector import DiallingConnector
from bridge.delivery.dialling.settings import DiallingRules, DiallingSettings

__all__ = ["DiallingConnector", "DiallingRules", "DiallingSettings"]
