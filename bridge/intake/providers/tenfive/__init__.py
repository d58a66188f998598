"""TenFive in two halves: what is asked for, and how it is read."""

from bridge.intake.providers.tenfive.plug import PLUG, TenFive, TenFiveSettings

__all__ = ["PLUG", "TenFive", "TenFiveSettings"]
