"""What can be said of the image without building it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def stages() -> list[list[tuple[str, str]]]:
    """Each stage's instructions as (word, rest), beginning with its FROM; what stands before the first is left out."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", TEXT, flags=re.MULTILINE))
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest.strip()))
    return found


BUILD, LAST = stages()


def rests(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for found, rest in stage if found == word]


def test_both_stages_stand_on_one_base_that_the_builder_can_pin() -> None:
    assert re.search(r"^ARG BASE_IMAGE=python:3\.\d+-slim-[a-z]+$", TEXT, re.MULTILINE)
    assert rests(BUILD, "FROM") == ["${BASE_IMAGE} AS build"]
    assert rests(LAST, "FROM") == ["${BASE_IMAGE}"]


def test_dependencies_come_before_the_source_so_that_their_layer_lasts() -> None:
    steps = [rest for word, rest in BUILD if word in {"COPY", "RUN"}]
    download = next(n for n, step in enumerate(steps) if "pip download" in step)
    assert steps[:download] == ["requirements.txt ./"]
    assert "bridge bridge" in steps[download:]


def test_every_dependency_is_checked_against_its_hash_and_none_comes_from_elsewhere() -> None:
    download, build = rests(BUILD, "RUN")
    assert "--require-hashes" in download
    assert "install --no-index --find-links /wheels" in build
    assert "pip install" not in " ".join(rests(LAST, "RUN"))


def test_the_last_stage_takes_only_the_environment_and_drops_pip() -> None:
    assert rests(LAST, "COPY") == [
        "--from=build /opt/jobbridge /opt/jobbridge",
        "config/providers /opt/jobbridge/providers",
    ]
    assert not rests(LAST, "ADD")
    assert "pip uninstall --yes" in rests(LAST, "RUN")[0]
    assert "--without-pip" in rests(BUILD, "RUN")[1]
    assert "apt-get" not in TEXT


def test_the_user_is_a_number_so_that_kubernetes_can_tell_it_is_not_root() -> None:
    assert rests(LAST, "USER") == ["10001:10001"]
    assert [word for word, _ in LAST].index("USER") > max(n for n, (word, _) in enumerate(LAST) if word == "RUN")


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_no_shell_stands_between_the_signal_and_the_process(word: str) -> None:
    (rest,) = rests(LAST, word)
    assert all(isinstance(argument, str) for argument in json.loads(rest))
    assert rests(LAST, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize(("status", "verdict"), [(200, 0), (503, 1)])
def test_the_health_check_believes_the_status_and_needs_only_python(status: int, verdict: int) -> None:
    class Livez(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (rest,) = rests(LAST, "HEALTHCHECK")
    python, option, program = json.loads(rest.partition("CMD ")[2])
    assert (python, option) == ("python", "-c")
    with HTTPServer(("127.0.0.1", 0), Livez) as server:
        program = program.replace("8080", str(server.server_port))
        with subprocess.Popen([sys.executable, option, program], env={"http_proxy": "http://127.0.0.1:9"}) as probe:
            server.handle_request()
    assert probe.returncode == verdict


def test_older_builders_can_read_it() -> None:
    assert "<<" not in TEXT


def test_the_label_tells_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"VERSION={version}" in rests(LAST, "ARG")


def test_the_builder_is_sent_what_is_copied_and_nothing_else() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copies = [*rests(BUILD, "COPY"), *rests(LAST, "COPY")]
    copied = {source for rest in copies if "--from" not in rest for source in rest.split()[:-1]}
    assert sent == copied
    assert all((ROOT / source).exists() for source in copied)
