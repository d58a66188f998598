"""An endpoint's keys as the configuration states them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.delivery.signing import new_private_key, new_secret, parse_key
from bridge.delivery.signing_settings import SigningSettings
from bridge.plug import Plug
from bridge.secret import Referenced
from bridge.settings import ConfigError, load

NEW, OLD, OLDEST, FOURTH = (Referenced(new_secret()) for _ in range(4))
PRIVATE = Referenced(new_private_key()[0])
PAST, FUTURE, FAR = "2020-01-01T00:00:00Z", "2990-01-01T00:00:00Z", "2991-01-01T00:00:00+02:00"
FUTURE_S = datetime(2990, 1, 1, tzinfo=UTC).timestamp()


def settings(secret: Any, **options: Any) -> SigningSettings:
    return SigningSettings.model_validate({"kind": "signed", "secret": secret, **options})


def mistake(secret: Any, **options: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(secret, **options)
    (flaw,) = caught.value.errors()
    for text in (NEW, OLD, OLDEST, PRIVATE):
        assert text not in str(caught.value)
    return f"{'.'.join(str(key) for key in flaw['loc'])}: {flaw['msg']}"


@pytest.mark.parametrize("secret", [NEW, [NEW], [{"key": NEW, "until": FUTURE}], PRIVATE])
def test_one_key_in_every_form_signs(secret: Any) -> None:
    [key] = settings(secret).ring.current(0)
    assert key == parse_key(PRIVATE if secret is PRIVATE else NEW)


def test_a_key_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "new").write_text(NEW + "\n")
    (tmp_path / "old").write_text(OLD)
    plain, ending = {"file": str(tmp_path / "new")}, {"key": {"file": str(tmp_path / "old")}, "until": FUTURE}
    assert settings(plain).ring.current(0) == [parse_key(NEW)]
    assert settings([plain, ending]).ring.current(0) == [parse_key(NEW), parse_key(OLD)]


def test_each_key_signs_up_to_its_own_end() -> None:
    ring = settings([NEW, {"key": OLD, "until": FAR}, {"key": OLDEST, "until": FUTURE}]).ring
    new, old, oldest = (parse_key(key) for key in (NEW, OLD, OLDEST))
    assert ring.current(FUTURE_S - 1) == [new, old, oldest]
    assert ring.current(FUTURE_S) == [new, old]
    assert ring.current(datetime(2990, 12, 31, 22, tzinfo=UTC).timestamp()) == [new]


def test_an_old_key_that_has_ended_may_stay_in_the_list() -> None:
    assert settings([NEW, {"key": OLD, "until": PAST}]).ring.current(FUTURE_S) == [parse_key(NEW)]


def test_keys_are_never_shown() -> None:
    shown = repr(settings([NEW, {"key": OLD, "until": FUTURE}]))
    assert NEW not in shown
    assert OLD not in shown


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        ([], "at least 1"),
        ([NEW, OLD, OLDEST, FOURTH], "at most 3"),
        ([NEW, NEW], "listed twice"),
        ([NEW, PRIVATE], "set allow_mixed_schemes"),
        ([{"key": NEW, "until": FUTURE}, OLD], "list the new one first"),
        ([{"key": NEW, "until": PAST}], "every webhook secret has ended, the last one at 2020-01-01T00:00:00Z"),
        ([NEW, {"key": OLD, "until": "2990-01-01"}], "must be a time with its zone"),
        ([NEW, {"key": OLD, "until": "2990-01-01T00:00:00"}], "must be a time with its zone"),
        ([NEW, {"key": OLD, "until": "32188320000"}], "must be a time with its zone"),
        ([NEW, {"key": OLD, "until": 32188320000}], "must be a time with its zone"),
        ([NEW, {"key": OLD, "until": "2990-02-30T00:00:00Z"}], "valid datetime"),
        ([NEW, {"key": OLD, "until": FUTURE, "for": "ever"}], "Extra inputs"),
        ([NEW, {"until": FUTURE}], "Field required"),
        ([NEW, {"key": OLD}], "Field required"),
        ([NEW, {"key": OLD, "until": None}], "must be a time with its zone"),
        ([NEW, {"key": "whsec_written/down/here+++++++++++++++", "until": FUTURE}], "a secret is never written here"),
        ([NEW, Referenced(OLD.rstrip("="))], "padding"),
        ([NEW, {"key": Referenced("whsec_c2hvcnQ="), "until": FUTURE}], "24 to 64"),
        ({"key": NEW, "until": FUTURE}, "a secret is never written here"),
    ],
)
def test_mistakes_are_found_when_the_configuration_is_read(secret: Any, why: str) -> None:
    assert why in mistake(secret)


def test_schemes_are_mixed_only_where_that_is_allowed() -> None:
    assert len(settings([PRIVATE, OLD], allow_mixed_schemes=True).ring.current(0)) == 2
    assert mistake([PRIVATE, OLD], allow_mixed_schemes="perhaps").startswith("allow_mixed_schemes: ")


def test_a_mistake_is_told_with_the_line_of_the_key_that_has_it(tmp_path: Path) -> None:
    file = tmp_path / "jobbridge.yaml"
    file.write_text(
        """\
sources: {}
sinks:
  partner:
    kind: signed
    secret:
      - ${NEW}
      - key: ${OLD}
        until: tomorrow
"""
    )
    plug = Plug(kind="signed", settings=SigningSettings, build=lambda *_: None)
    with pytest.raises(ConfigError) as caught:
        load(file, {"NEW": NEW, "OLD": OLD}, {}, {"signed": plug})
    found = [each for each in caught.value.mistakes if each.path.startswith("sinks")]
    assert [(each.path, each.line) for each in found] == [("sinks.partner.secret.1.until", 8)]
