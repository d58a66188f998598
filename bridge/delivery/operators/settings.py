"""The options of an operator's webhook."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from bridge.delivery.dialling import DiallingSettings
from bridge.delivery.signing_settings import Signing


class OperatorSettings(DiallingSettings, Signing):
    """One receiver of what happens to endpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    connect_timeout_s: float = Field(5.0, gt=0, description="Deadline of dialling alone, look-up and TLS included.")
    timeout_s: float = Field(
        15.0, gt=0, description="Deadline of one attempt, from dialling to the answer's last byte."
    )
