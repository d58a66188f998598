"""What a JMESPath may cost: its text, its tree and one evaluation, whoever wrote it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from bridge.expression import JmesPath, Unreadable

KIB = 1 << 10
NUMBERS = {"p": [0] * (256 * KIB)}
TEXTS = {"p": ["x" * (256 * KIB), "x" * (256 * KIB - 1) + "y"]}
OBJECTS = {"p": [{"k": str(number), "a": [1]} for number in range(22_000)]}
MEMBERS = {"p": {str(number): number for number in range(30_000)}}
GLUE = {"glue": "y" * (256 * KIB), "texts": [""] * KIB}
TWICE, PAIRED = "[@,@][]|", "[@,@]|"

COSTLY: dict[str, tuple[str, Any]] = {
    "a list doubled again and again": ("p|" + TWICE * 25 + "@", NUMBERS),
    "pairs of pairs, gone through": ("p|" + PAIRED * 20 + "@" + "[*]" * 20, NUMBERS),
    "pairs of pairs, compared": ("[p]|" + PAIRED * 30 + "[@,[@[0],@[1]]]|@[0]==@[1]", TEXTS),
    "pairs of pairs, written out": ("to_string(p|" + PAIRED * 40 + "@)", NUMBERS),
    "pairs of pairs, in an error's text": ("p|" + PAIRED * 40 + "keys(@)|[@,keys(@)]", NUMBERS),
    "a text doubled again and again": ("p[0]|" + "join('',[@,@])|" * 25 + "@", TEXTS),
    "a long text between many": ("join(glue,texts)", GLUE),
    "long texts compared, many times": ("[p]|" + TWICE * 20 + "[?@[0]<@[1]]", TEXTS),
    "long texts sorted": ("p|" + TWICE * 20 + "sort(@)", TEXTS),
    "long texts turned round": ("p|" + TWICE * 8 + "map(&reverse(@),@)", TEXTS),
    "a long list cut, many times": ("[p]|" + TWICE * 8 + "[*].[[::2]]", NUMBERS),
    "a long list flattened, many times": ("[p]|" + TWICE * 8 + "[]", NUMBERS),
    "a long list searched, many times": ("[p]|" + TWICE * 8 + "map(&contains(@,`1`),@)", NUMBERS),
    "a large object copied, many times": ("[p]|" + TWICE * 8 + "[*].merge(@,@)", MEMBERS),
    "a function of each element": ("p[*].length(a)", OBJECTS),
    "sorted by a function of each": ("sort_by(p,&to_string([k,k,k]))", OBJECTS),
    "many conditions on each": ("p[?@>`1`||@>`2`||@>`3`||@>`4`||@>`5`]", NUMBERS),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_would_cost_too_much_is_left_off_without_taking_memory(name: str) -> None:
    text, document = COSTLY[name]
    predicate = JmesPath(text)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            predicate.holds(document)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["pairs of pairs, written out", "a text doubled again and again"])
def test_what_a_description_takes_out_is_bounded_as_well(name: str) -> None:
    text, document = COSTLY[name]
    with pytest.raises(Unreadable, match="too many steps"):
        JmesPath(text).of(document)


def test_what_is_taken_out_is_bounded_although_it_was_cheap_to_put_together() -> None:
    with pytest.raises(Unreadable, match="too many steps"):
        JmesPath("[p]|" + PAIRED * 40 + "@").of(NUMBERS)


@pytest.mark.parametrize(
    ("text", "document", "holds"),
    [
        ("length(p) > `20000`", OBJECTS, True),
        ("p[-1].k == '21999'", OBJECTS, True),
        ("p[:3].k", OBJECTS, True),
        ("length(values(a)) == `0`", {"a": {}}, True),
        ("keys(a)[?starts_with(@, 'b')]", {"a": {"b": 1}}, True),
        ("contains(p[0], 'y')", TEXTS, False),
        ("join('-', p) == 'a-b'", {"p": ["a", "b"]}, True),
        ("p[].q[] == `[1, 2, 3]`", {"p": [{"q": [1, 2]}, {"q": 3}]}, True),
        ("sort_by(p, &n)[0].n < sum(p[*].n)", {"p": [{"n": 2}, {"n": 1}]}, True),
        ("map(&@.n, p)[?@ >= `2`]", {"p": [{"n": 2}, {"n": 1}]}, True),
        ("nothing", {}, False),
    ],
)
def test_what_costs_little_is_judged_however_large_the_event_is(text: str, document: Any, holds: bool) -> None:
    assert JmesPath(text).holds(document) is holds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TWICE * 60 + "@", "it has 422 parts, of which it may have 250"),
        ("!" * 60 + "a", "it is nested 61 deep, and may be 50"),
        ("(" * 490 + "a" + ")" * 490, "is no JMESPath: "),
    ],
)
def test_what_is_too_large_to_be_meant_is_refused_when_it_is_read(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        JmesPath(text)
