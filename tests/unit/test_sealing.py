"""What is sealed opens by its keys, for its owner, and for nobody else."""

from __future__ import annotations

import base64

import pytest

from bridge.sealing import Seal

OLD, NEW = (base64.b64encode(bytes([byte]) * 32).decode() for byte in (1, 2))


def test_what_was_sealed_opens_again_and_shows_nothing() -> None:
    sealed = Seal([OLD]).seal(b"whsec_secret", "partner")
    assert b"whsec" not in sealed
    assert Seal([OLD]).open(sealed, "partner") == b"whsec_secret"
    assert Seal([OLD]).seal(b"whsec_secret", "partner") != sealed


def test_the_first_key_seals_and_every_key_opens() -> None:
    old, both, new = Seal([OLD]), Seal([NEW, OLD]), Seal([NEW])
    assert both.open(old.seal(b"x", "a"), "a") == b"x"
    assert new.open(both.seal(b"x", "a"), "a") == b"x"
    with pytest.raises(ValueError, match="another key"):
        old.open(both.seal(b"x", "a"), "a")


def test_it_opens_for_its_owner_alone() -> None:
    with pytest.raises(ValueError, match="another key, or are damaged"):
        Seal([OLD]).open(Seal([OLD]).seal(b"x", "a"), "b")


@pytest.mark.parametrize("cut", range(30))
def test_a_damaged_one_never_opens(cut: int) -> None:
    sealed = Seal([OLD]).seal(b"x", "a")
    flipped = bytes([*sealed[:cut], sealed[cut] ^ 1, *sealed[cut + 1 :]])
    for damaged in (sealed[:cut], flipped):
        with pytest.raises(ValueError, match="damaged"):
            Seal([OLD]).open(damaged, "a")


def test_without_a_key_nothing_opens() -> None:
    assert not Seal([])
    with pytest.raises(ValueError, match="another key"):
        Seal([]).open(Seal([OLD]).seal(b"x", "a"), "a")


@pytest.mark.parametrize(
    ("key", "why"),
    [("", "0 bytes"), ("c2hvcnQ=", "5 bytes"), ("not base64!", "not standard base64"), (OLD.rstrip("="), "base64")],
)
def test_a_key_that_is_none_is_refused_without_repeating_it(key: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        Seal([key])
    assert not key or key not in str(refused.value)
