"""What a record of the command topic asks for, or why it asks for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.delivery import sinks
from bridge.errors import Rejected
from bridge.event import JobKey
from bridge.intake import providers
from bridge.intake.commands import CommandSettings, Wish, decode
from bridge.settings import json_schema, load

SOURCES = {"auvy-prod"}
LIMIT = 256


def test_a_source_and_a_job_id_are_enough() -> None:
    command = decode(b'{"source": "auvy-prod", "job_id": "a/\\u00fc"}', LIMIT, SOURCES)
    assert (command.key, command.action) == (JobKey("auvy-prod", "a/ü"), Wish.FOLLOW)


@pytest.mark.parametrize("action", ["follow", "unfollow", "pause", "resume"])
def test_an_action_may_be_named_and_members_of_the_senders_own_are_let_be(action: str) -> None:
    value = {"source": "auvy-prod", "job_id": "a", "action": action, "requested_by": {"team": 7}}
    assert decode(orjson.dumps(value), LIMIT, SOURCES).action == action


def test_the_limit_is_the_last_size_that_is_taken() -> None:
    value = b'{"source": "auvy-prod", "job_id": "a"}'
    assert decode(value, len(value), SOURCES).job_id == "a"
    with pytest.raises(Rejected) as caught:
        decode(value, len(value) - 1, SOURCES)
    assert caught.value.reason == "too_large"


@given(st.one_of(st.binary(), st.recursive(st.none() | st.text() | st.floats(), st.lists).map(orjson.dumps)))
def test_rubbish_is_refused_in_so_many_words_and_never_quoted(value: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        decode(b'["s3cr3t"' + value, 10_000, SOURCES)
    assert caught.value.reason in {"not_json", "not_object"}
    assert "s3cr3t" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_that_is_nested_without_end_is_refused(depth: int) -> None:
    with pytest.raises(Rejected):
        decode(b"[" * depth + b"]" * depth, 1 << 20, SOURCES)


def test_a_setting_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="group"):
        CommandSettings.model_validate({"bootstrap_servers": "localhost:9092", "group": "mine"})


def test_the_topic_is_read_only_where_it_is_configured_if_only_by_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = "sources: {a: {provider: auvy, token: '${KEY}'}}\nsinks: {k: {kind: kafka, bootstrap_servers: 'b:9092'}}\n"
    path.write_text(text)
    environ = {"KEY": "ak_live_12345678"}
    catalogues = providers.catalogue(), sinks.catalogue()
    assert load(path, environ, *catalogues).commands is None
    by_variable = load(path, environ | {"JOBBRIDGE__COMMANDS__BOOTSTRAP_SERVERS": "b:9092"}, *catalogues).commands
    section = {"bootstrap_servers": "b:9092", "group_id": "ours"}
    path.write_text(f"{text}commands: {json.dumps(section)}\n")
    by_file = load(path, environ, *catalogues).commands
    assert by_variable is not None
    assert by_file == by_variable.model_copy(update={"group_id": "ours"})
    judge = jsonschema.Draft202012Validator(json_schema(*catalogues))
    assert judge.is_valid(yaml.safe_load(path.read_text()))
    assert not judge.is_valid(yaml.safe_load(text) | {"commands": section | {"group": "ours"}})
