"""How an endpoint's keys stand in the configuration: one secret, or several while keys are changed.

A sink that signs extends `SigningSettings` and signs with its `ring`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    field_validator,
)

from bridge.delivery.signing import KEYS_MAX, Key, KeyRing, parse_key
from bridge.delivery.sink import SinkSettings
from bridge.secret import Secret

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _signs(secret: SecretStr) -> SecretStr:
    parse_key(secret.get_secret_value())
    return secret


def _rfc_3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be a time with its zone, such as 2027-01-31T12:00:00Z")


_Secret = Annotated[Secret, AfterValidator(_signs)]


class EndingSecret(BaseModel):
    """A secret that signs up to a moment."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    key: _Secret = Field(description="The secret: `whsec_...` (v1) or `whsk_...` (v1a).")
    until: Annotated[AwareDatetime, BeforeValidator(_rfc_3339)] = Field(
        description="When it ends, such as 2027-01-31T12:00:00Z."
    )


def _one_or_several(value: object) -> str:
    return "several" if isinstance(value, list) else "one"


def _plain_or_ending(value: object) -> str:
    ending = isinstance(value, EndingSecret) or (isinstance(value, Mapping) and "file" not in value)
    return "ending" if ending else "plain"


_Listed = Annotated[
    Annotated[_Secret, Tag("plain")] | Annotated[EndingSecret, Tag("ending")], Discriminator(_plain_or_ending)
]
SigningKeys = Annotated[
    Annotated[_Secret, Tag("one")] | Annotated[list[_Listed], Field(min_length=1, max_length=KEYS_MAX), Tag("several")],
    Discriminator(_one_or_several),
]
"""A setting that holds an endpoint's keys, the new one first: a secret, or a list of secrets and `EndingSecret`s."""


class Signing(BaseModel):
    """What everything has that signs."""

    allow_mixed_schemes: bool = Field(False, description="Let `secret` list keys of v1 and of v1a side by side.")
    secret: SigningKeys = Field(
        description="`whsec_...` (v1) or `whsk_...` (v1a). While keys are changed, a list of up to three, the new one "
        "first; an old one as `{key: ..., until: 2027-01-31T12:00:00Z}`."
    )

    @field_validator("secret")
    @classmethod
    def _can_sign(cls, secret: SigningKeys, info: ValidationInfo) -> SigningKeys:
        ring = _ring(secret, allow_mixed_schemes=info.data.get("allow_mixed_schemes", True))
        ring.check(time.time())
        return secret

    @property
    def ring(self) -> KeyRing:
        """The keys, each with its end."""
        return _ring(self.secret, allow_mixed_schemes=self.allow_mixed_schemes)


class SigningSettings(Signing, SinkSettings):
    """What every sink has that signs."""


def _ring(secret: SigningKeys, *, allow_mixed_schemes: bool) -> KeyRing:
    listed = secret if isinstance(secret, list) else [secret]
    return KeyRing([_with_end(one) for one in listed], allow_mixed_schemes=allow_mixed_schemes)


def _with_end(one: SecretStr | EndingSecret) -> tuple[Key, float]:
    if isinstance(one, SecretStr):
        return parse_key(one.get_secret_value()), inf
    return parse_key(one.key.get_secret_value()), one.until.timestamp()
