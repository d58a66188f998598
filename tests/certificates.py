"""Certificates for the tests, made by OpenSSL: the only place that calls it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from apache_kafka import unable

_CONFIG = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
[host]
subjectAltName = IP:127.0.0.1, DNS:partner.test
"""
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    file: Path
    key_file: Path


class Authority:
    """Signs certificates, all in one folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if shutil.which("openssl") is None:
            unable("certificates are made with openssl, and there is no openssl here")
        self._folder = folder
        self._config = folder / "openssl.cnf"
        self._config.write_text(_CONFIG)
        self._own = self._files(name)
        self.file = self._own.file
        self._openssl("req", "-x509", *self._new(self._own, name), "-extensions", "authority", "-days", "30")

    def sign(self, name: str, *, days: int = 10, password: str = "") -> Certificate:
        """A certificate for 127.0.0.1 and partner.test, with `CN=name`; -1 days make one that has expired."""
        made = self._files(name)
        request = self._folder / f"{name}.csr"
        self._openssl("req", "-new", *self._new(made, name, password), "-out", str(request))
        signer = ["-CA", str(self._own.file), "-CAkey", str(self._own.key_file), "-CAcreateserial"]
        extensions = ["-extfile", str(self._config), "-extensions", "host"]
        signed = ["-in", str(request), "-out", str(made.file), "-days", str(days)]
        self._openssl("x509", "-req", *signed, *signer, *extensions)
        return made

    def _files(self, name: str) -> Certificate:
        return Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")

    def _new(self, made: Certificate, name: str, password: str = "") -> list[str]:
        locked = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        return [
            *("-config", str(self._config), *_KEY, *locked),
            *("-keyout", str(made.key_file), "-out", str(made.file), "-subj", f"/CN={name}"),
        ]

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
