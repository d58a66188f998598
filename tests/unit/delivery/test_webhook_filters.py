"""Which events a receiver wants."""

from __future__ import annotations

from typing import Any

import pytest
from receiving import ENTRY, settings

from bridge.delivery.sink import Unjudged
from bridge.delivery.sinks.webhook.filters import Filters


def filters(**options: Any) -> Filters:
    chosen = settings("https://a.example", **options)
    return Filters(chosen.types, chosen.sources, chosen.jobs, chosen.when)


def wanted(**options: Any) -> bool:
    return filters(**options).judge(ENTRY)


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        ({}, True),
        ({"types": ["job.*"]}, True),
        ({"types": ["job.completed", "job.out*"]}, True),
        ({"types": ["watch.*"]}, False),
        ({"types": ["job.completed"]}, False),
        ({"sources": ["auvy"]}, True),
        ({"sources": ["au"]}, False),
        ({"sources": ["Auvy"]}, False),
        ({"sources": ["ten*", "au*"]}, True),
        ({"jobs": ["job-[0-9]"]}, True),
        ({"jobs": ["ob-1"]}, False),
        ({"types": ["job.*"], "sources": ["auvy"], "jobs": ["other"]}, False),
    ],
)
def test_all_patterns_must_fit_the_whole_text(options: dict[str, Any], wants: bool) -> None:
    assert wanted(**options) is wants


@pytest.mark.parametrize(
    ("when", "wants"),
    [
        ("data.job.status == 'running'", True),
        ("data.job.status == 'failed'", False),
        ("type == 'job.output' && source == 'auvy' && subject == 'job-1'", True),
        ("sequence == '000000000007'", True),
        ("data.nothing.there", False),
        ("data.nothing", False),
        ("`false`", False),
        ("''", False),
        ("`[]`", False),
        ("`{}`", False),
        ("`0`", True),
        ("data.detail.piece", True),
        ("contains(data.detail.piece, 'Gr')", True),
        ("contains(data.detail.piece, 'x')", False),
    ],
)
def test_a_predicate_sees_the_event_and_its_data(when: str, wants: bool) -> None:
    assert wanted(when=when) is wants


@pytest.mark.parametrize("when", ["contains(data.nothing, 'x')", "length(data.job.status.x)", "ceil(data.job)"])
def test_a_predicate_that_cannot_be_applied_says_so_and_repeats_nothing_of_the_event(when: str) -> None:
    with pytest.raises(Unjudged, match=r"takes .+, not ") as raised:
        wanted(when=when)
    assert "running" not in str(raised.value)
    assert filters(when=when).want(ENTRY)


def test_data_is_not_decoded_for_what_other_filters_refuse() -> None:
    broken = ENTRY._replace(data=b"never looked at")
    assert not filters(sources=["other"], when="data.job").want(broken)
