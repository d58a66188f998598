"""Credentials for the brokers: a user with a password, or a token."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from bridge.secret import Secret
from bridge.tls import trusting

ExtensionName = Annotated[str, Field(pattern="^[A-Za-z]+$")]
ExtensionValue = Annotated[str, Field(pattern=r"^[\x21-\x7e \t]+$")]


class Credentials(BaseModel):
    """What all credentials have, whatever their mechanism."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"] = Field(
        description="How the brokers are told: `oauthbearer` by a token, the others by a user and password."
    )
    allow_plaintext: bool = Field(
        False, description="Let a password or token travel unencrypted, for everybody on the way to read."
    )

    @property
    def readable(self) -> bool:
        """Whether what is sent shows the secret; SCRAM only proves that it is known."""
        return not self.mechanism.startswith("scram")


class Password(Credentials):
    """A user with a password."""

    username: str = Field(min_length=1, description="Name of the user; not with `oauthbearer`.")
    password: Secret = Field(description="Password of the user.")

    def client(self) -> dict[str, Any]:
        """What an aiokafka client needs to know."""
        return {
            "sasl_mechanism": self.mechanism.upper(),
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password.get_secret_value(),
        }


class OAuth(Credentials):
    """A token for the brokers, fetched with a client's own credentials."""

    token_url: str = Field(description="Where `oauthbearer` fetches tokens: client credentials grant.")
    client_id: str = Field(min_length=1, description="Name of this client at the token endpoint.")
    client_secret: Secret = Field(description="Secret of this client at the token endpoint.")
    client_auth: Literal["header", "form"] = Field(
        "header", description="Whether name and secret go as HTTP Basic or as fields of the form."
    )
    scope: str | None = Field(None, description="Scopes to ask for, separated by spaces.")
    token_parameters: dict[str, str] = Field(
        {}, description="Further fields of the token request, such as `audience` or `resource`."
    )
    token_ca_file: Path | None = Field(
        None, description="PEM file of the authorities that sign the token endpoint's certificate."
    )
    token_timeout_s: float = Field(10.0, gt=0, description="Limit of one token request.")
    extensions: dict[ExtensionName, ExtensionValue] = Field(
        {}, description="SASL extensions for the brokers, such as `logicalCluster`."
    )

    @model_validator(mode="after")
    def _usable(self) -> OAuth:
        try:
            url = urlsplit(self.token_url)
            dialled = url.scheme in {"https", "http"} and url.hostname and url.port != 0
        except ValueError:
            dialled = False
        if not dialled or re.search(r"\s", self.token_url):
            raise ValueError("sasl.token_url must begin with https:// and name a host, and where needed a port")
        if url.username is not None or url.password is not None:
            raise ValueError("sasl.token_url must not hold credentials: they are sasl.client_id and sasl.client_secret")
        if url.scheme == "http" and not self.allow_plaintext:
            raise ValueError(
                "sasl.token_url is http, which sends the secret in the clear: use https, or set sasl.allow_plaintext"
            )
        self.token_context()
        return self

    def client(self) -> dict[str, Any]:
        """What an aiokafka client needs to know, save for the provider of tokens."""
        return {"sasl_mechanism": "OAUTHBEARER"}

    def token_context(self) -> ssl.SSLContext:
        """Raises ValueError with a sentence that names the setting."""
        return trusting(self.token_ca_file, "sasl.token_ca_file")


def _sort(value: object) -> str | None:
    mechanism = value.get("mechanism") if isinstance(value, Mapping) else getattr(value, "mechanism", None)
    if mechanism not in get_args(Credentials.model_fields["mechanism"].annotation):
        return None
    return "oauth" if mechanism == "oauthbearer" else "password"


Sasl = Annotated[
    Annotated[Password, Tag("password")] | Annotated[OAuth, Tag("oauth")],
    Discriminator(
        _sort,
        custom_error_type="sasl_mechanism",
        custom_error_message="mechanism must be plain, scram-sha-256, scram-sha-512 or oauthbearer",
    ),
]
