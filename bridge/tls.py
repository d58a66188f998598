"""Encryption towards others: the only place that loads certificates and notices that there are newer ones."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bridge.secret import Secret

Fingerprint = tuple[tuple[int, ...], ...]


class Tls(BaseModel):
    """How the other side proves who it is, and how we do. Without a `ca_file` the system's authorities vouch for it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that vouch for the other side, instead of the system's.",
    )
    certificate_file: Path | None = Field(
        None, description="PEM file of the client certificate and its chain. Read again when it changes."
    )
    key_file: Path | None = Field(None, description="PEM file of its key, where `certificate_file` does not hold it.")
    key_password: Secret | None = Field(None, description="Password of an encrypted key.")
    check_hostname: bool = Field(
        True, description="Whether the other side's certificate must hold the name or address that was dialled."
    )

    @model_validator(mode="after")
    def _usable(self) -> Tls:
        if self.certificate_file is None and (self.key_file or self.key_password):
            raise ValueError("tls.key_file and tls.key_password need a tls.certificate_file")
        self.context()
        return self

    def context(self) -> ssl.SSLContext:
        """The files as they are now. Raises ValueError with a sentence that names the setting."""
        context = trusting(self.ca_file, "tls.ca_file")
        context.check_hostname = self.check_hostname
        if self.certificate_file is not None:
            self._identify(context, self.certificate_file)
        return context

    def fingerprint(self) -> Fingerprint | None:
        """Changes when a file does, also behind a symbolic link, and when its rights do. None while one is missing."""
        files = [file for file in (self.ca_file, self.certificate_file, self.key_file) if file is not None]
        try:
            found = [file.stat() for file in files]
        except OSError:
            return None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_ctime_ns, each.st_size) for each in found)

    def _identify(self, context: ssl.SSLContext, certificate_file: Path) -> None:
        _readable(certificate_file, "tls.certificate_file")
        if self.key_file is not None:
            _readable(self.key_file, "tls.key_file")
        # Always a password, if an empty one: without any OpenSSL would ask for it on the terminal, and wait.
        password = self.key_password.get_secret_value() if self.key_password else ""
        try:
            context.load_cert_chain(certificate_file, self.key_file, password)
        except OSError as error:  # those of OpenSSL are among them, and files that vanished just now
            key = f"tls.key_file {self.key_file}" if self.key_file else "the key in it"
            mismatch = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
            fault = "do not belong together" if mismatch else "cannot be used"
            hint = "" if mismatch else "; they must be PEM, opened by tls.key_password"
            raise ValueError(f"tls.certificate_file {certificate_file} and {key} {fault}{hint}") from error


class Certificates:
    """The certificates in use, as against newer ones in the files."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen = tls.fingerprint()  # before they are read: a change in between is then noticed, not missed
        self._unusable: Fingerprint | None = None
        self.context = tls.context()

    @property
    def renewed(self) -> bool:
        """Whether the files changed and can be used: a pair of which one half was replaced is not yet renewed."""
        found = self._tls.fingerprint()
        if found is None or found in (self._seen, self._unusable):
            return False
        try:
            self._tls.context()
        except ValueError:
            self._unusable = found  # asked before every batch, and reading takes tens of milliseconds
            return False
        return True

    def latest(self) -> ssl.SSLContext:
        """What the files hold by now; as long as that cannot be used, what they held before."""
        found = self._tls.fingerprint()
        if found is not None and found != self._seen:
            self._seen = found
            with suppress(ValueError):
                self.context = self._tls.context()
        return self.context


def trusting(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """A client's context that trusts the authorities in the file, or the system's. Raises ValueError as `Tls` does."""
    if ca_file is not None:
        _readable(ca_file, setting)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"{setting} {ca_file} holds no certificates in PEM form") from error


def _readable(file: Path, setting: str) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{setting} {file} cannot be read: {error.strerror}") from error
