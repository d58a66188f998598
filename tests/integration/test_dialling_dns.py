"""DNS rebinding with the system's own resolver, in a network of its own where the name server is ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import rebinding

_OWN_NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-ec"]
_NETWORK = """\
ip link set lo up
ip address add 10.9.8.7/32 dev lo
ip address add fd00:9::7/128 dev lo nodad
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""


@pytest.mark.parametrize(
    ("outside", "inside"),
    [("10.9.8.7", "127.0.0.1"), ("fd00:9::7", "::1"), ("10.9.8.7", "::1"), ("fd00:9::7", "127.0.0.1")],
)
def test_a_name_that_flips_between_two_look_ups_never_leads_inside(outside: str, inside: str, tmp_path: Path) -> None:
    servers = tmp_path / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\noptions timeout:5 attempts:1\n")
    network = [*_OWN_NAMESPACES, _NETWORK, "network", str(servers)]
    if subprocess.run([*network, "true"], capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("a network of one's own needs unshare, ip, and the right to use them")
    program = [sys.executable, rebinding.__file__, outside, inside]
    done = subprocess.run([*network, *program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    refused = f"{inside} is not a public address: open its network with allow_networks"
    assert orjson.loads(done.stdout) == {"told": ["200", refused] * 2, "visits": {outside: 2, inside: 0}}
