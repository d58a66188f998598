"""The options that say where a receiver may live and how it is reached."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator
from yarl import URL

from bridge.delivery.dialling.addresses import Network, address_of
from bridge.delivery.dialling.judge import Judge
from bridge.delivery.dialling.proxy import Proxy
from bridge.secret import Secret

PORTS = (80, 443, 8080, 8443)
"""Where receivers listen, as against mail, databases and remote shells, which a foreign URL might name."""

_HOST = re.compile(r"[a-z0-9._-]+")  # after IDNA, which leaves nothing else of a name


def _network(value: object) -> object:
    if isinstance(value, str):
        return ip_network(value)
    if isinstance(value, Network):
        return value
    raise ValueError("a network is written like 10.1.0.0/16")  # a number would be taken for an address


_Network = Annotated[Network, BeforeValidator(_network), WithJsonSchema({"type": "string"})]


class DiallingRules(BaseModel):
    """Where receivers may live. Everything is refused that is neither public nor opened here."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    allow_http: bool = Field(False, description="Let the URL be `http`, without encryption.")
    allow_networks: list[_Network] = Field(
        default_factory=list,
        description="Networks, such as `10.1.0.0/16`, in which the receiver may live besides the public internet.",
    )
    allow_private_networks: bool = Field(
        False,
        description="Let the receiver live on any private, shared or loopback address. Link-local addresses and those "
        "of clouds' metadata still need allow_networks.",
    )
    allow_ports: list[Annotated[int, Field(ge=1, le=65_535)]] | None = Field(
        None,
        min_length=1,
        description="Ports that may be dialled. When absent: 80, 443, 8080, 8443; any with allow_private_networks.",
    )
    proxy: str | None = Field(
        None,
        description="An HTTP proxy, such as `http://proxy:3128`, that is asked to CONNECT to the receiver's address: "
        "names are looked up and judged here.",
    )
    proxy_username: str = Field("", description="User name for the proxy.")
    proxy_password: Secret | None = Field(None, description="Password for the proxy.")

    @field_validator("proxy")
    @classmethod
    def _proxy_can_be_used(cls, text: str | None) -> str | None:
        if text is None:
            return None
        url = _parsed("proxy", text)
        if url.scheme != "http" or not url.raw_host or not url.port or url.raw_path_qs != "/" or url.raw_fragment:
            raise ValueError("proxy must be of the form http://host:port")
        if url.raw_user is not None or url.raw_password is not None:
            raise ValueError("proxy must not hold a user name or a password: use proxy_username and proxy_password")
        return text

    @field_validator("proxy_username")
    @classmethod
    def _username_can_be_sent(cls, name: str) -> str:
        if ":" in name or not name.isprintable():
            raise ValueError("proxy_username must hold neither a colon nor control characters")
        return name

    @model_validator(mode="after")
    def _proxy_is_whole(self) -> DiallingRules:
        if self.proxy is None and (self.proxy_username or self.proxy_password):
            raise ValueError("proxy_username and proxy_password need a proxy")
        if self.proxy_password and not self.proxy_username:
            raise ValueError("proxy_password needs a proxy_username")
        return self

    @property
    def judge(self) -> Judge:
        """Who may be dialled."""
        ports = None if self.allow_ports is None and self.allow_private_networks else self.allow_ports or PORTS
        return Judge(tuple(self.allow_networks), ports, self.allow_private_networks)

    @property
    def proxy_to_dial(self) -> Proxy | None:
        """Through whom, if through anybody."""
        if self.proxy is None:
            return None
        url = URL(self.proxy)
        password = self.proxy_password.get_secret_value() if self.proxy_password else ""
        return Proxy(url.raw_host or "", url.port or 0, self.proxy_username, password)


class DiallingSettings(DiallingRules):
    """One receiver, and where it may live."""

    url: str = Field(description="Where to POST. `https` unless allow_http is on.")

    @field_validator("url")
    @classmethod
    def _url_can_be_used(cls, text: str) -> str:
        url = _parsed("url", text)
        if url.scheme not in {"https", "http"} or not url.raw_host:
            raise ValueError("url must begin with https:// and name a host")
        if url.raw_user is not None or url.raw_password is not None:
            raise ValueError("url must not hold a user name or a password: signatures prove who sent it")
        if not _could_exist(url):
            raise ValueError("url names a host or a port that cannot exist")
        return text

    @model_validator(mode="after")
    def _may_be_dialled(self) -> DiallingSettings:
        url = URL(self.url)
        if url.scheme == "http" and not self.allow_http:
            raise ValueError("url is http, which sends events in the clear: use https, or set allow_http")
        host = url.raw_host or ""
        is_name = address_of(host) is None  # judged by what it resolves to, each time it is dialled
        if is_name and (":" in host or _ends_in_a_number(host)):
            raise ValueError(
                "url holds an address in an unusual form: write 192.0.2.1, or [2001:db8::1] without a zone"
            )
        refusal = self.judge.port_refusal(url.port or 0) or (None if is_name else self.judge.address_refusal(host))
        if refusal is not None:
            raise ValueError(f"url cannot be dialled: {refusal}")
        return self


def _parsed(setting: str, text: str) -> URL:
    """The URL as the client that dials it reads it."""
    try:
        return URL(text)
    except ValueError:
        raise ValueError(f"{setting} is not a URL: its host or port cannot exist") from None


def _could_exist(url: URL) -> bool:
    """Whether host and port are such that a look-up can at least be tried: the resolver raises what is no OSError."""
    host = url.raw_host or ""
    try:
        return url.port != 0 and (":" in host or bool(_HOST.fullmatch(host) and host.encode("idna")))
    except ValueError:
        return False


def _ends_in_a_number(host: str) -> bool:
    """Whether resolvers take it for an IPv4 address, be it octal, hexadecimal or short."""
    last = host.rstrip(".").rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")
