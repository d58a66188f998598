"""ArchAstro in two halves: what is asked for, and how it is read."""

from bridge.intake.providers.archastro.plug import PLUG, ArchAstro, ArchAstroSettings

__all__ = ["PLUG", "ArchAstro", "ArchAstroSettings"]
