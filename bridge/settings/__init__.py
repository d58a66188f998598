"""The configuration: its shape, how a file becomes settings, and how both are described to people and editors.

A source's options are judged by its provider's own settings model and a sink's by its kind's; both catalogues are
handed in, so that a new plug changes nothing here.
"""

from bridge.settings.check import ConfigError, load
from bridge.settings.describe import json_schema, settings_table
from bridge.settings.shape import (
    ControlSettings,
    JournalSettings,
    Settings,
    SupervisionSettings,
    TelemetrySettings,
)
from bridge.settings.yaml_source import Mistake

__all__ = [
    "ConfigError",
    "ControlSettings",
    "JournalSettings",
    "Mistake",
    "Settings",
    "SupervisionSettings",
    "TelemetrySettings",
    "json_schema",
    "load",
    "settings_table",
]
