"""Encryption towards the brokers: the only place that loads certificates and notices that there are newer ones."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bridge.secret import Secret

Fingerprint = tuple[tuple[int, int, int], ...]


class Tls(BaseModel):
    """How the brokers prove who they are, and how this client does. Without a `ca_file` the system's authorities do."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    ca_file: Path | None = Field(
        None, description="PEM file of the authorities that sign the brokers' certificates, instead of the system's."
    )
    certificate_file: Path | None = Field(
        None, description="PEM file of the client certificate and its chain. Read again when it changes."
    )
    key_file: Path | None = Field(None, description="PEM file of its key, where `certificate_file` does not hold it.")
    key_password: Secret | None = Field(None, description="Password of an encrypted key.")
    check_hostname: bool = Field(
        True, description="Whether a broker's certificate must hold the name or address that was dialled."
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
        """Changes when a file does, also behind a symbolic link. None while one is missing."""
        files = [file for file in (self.ca_file, self.certificate_file, self.key_file) if file is not None]
        try:
            found = [file.stat() for file in files]
        except OSError:
            return None
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)

    def _identify(self, context: ssl.SSLContext, certificate_file: Path) -> None:
        _readable(certificate_file, "tls.certificate_file")
        if self.key_file is not None:
            _readable(self.key_file, "tls.key_file")
        # Always a password, if an empty one: without any OpenSSL would ask for it on the terminal, and wait.
        password = self.key_password.get_secret_value() if self.key_password else ""
        try:
            context.load_cert_chain(certificate_file, self.key_file, password)
        except ssl.SSLError as error:
            key = f"tls.key_file {self.key_file}" if self.key_file else "the key in it"
            fault = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "cannot be used"
            hint = "" if error.reason == "KEY_VALUES_MISMATCH" else "; they must be PEM, opened by tls.key_password"
            raise ValueError(f"tls.certificate_file {certificate_file} and {key} {fault}{hint}") from error


class Certificates:
    """The certificates in use, as against newer ones in the files."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen = tls.fingerprint()  # before they are read: a change in between is then noticed, not missed
        self.context = tls.context()

    @property
    def renewed(self) -> bool:
        """Whether the files changed and can be used: a pair of which one half was replaced is not yet renewed."""
        found = self._tls.fingerprint()
        if found is None or found == self._seen:
            return False
        try:
            self._tls.context()
        except ValueError:
            return False
        return True


def trusting(ca_file: Path | None, setting: str) -> ssl.SSLContext:
    """A client's context that trusts the authorities in the file, or the system's. Raises ValueError as `Tls` does."""
    if ca_file is not None:
        _readable(ca_file, setting)
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ValueError(f"{setting} {ca_file} holds no certificates in PEM form") from error


def _readable(file: Path, setting: str) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"{setting} {file} cannot be read: {error.strerror}") from error
