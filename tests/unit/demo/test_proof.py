"""The proof must be able to fail: each way of breaking the promise is built by hand and must be counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest

from bridge.demo.proof import Arrival, Emitted, Proof, Sides, by_source, prove

KEYS = ("1000-0", "1000-1", "1200-0", "9000-0", "10000-0")
OTHER_KEYS = ("1001-0", "1500-0")


def arrivals(job: str, keys: Iterable[str], end: str = "job.completed") -> list[Arrival]:
    """What a faithful bridge makes of a job: an event of its own first, then one for each entry."""
    found = [Arrival(f"auvy:{job}:watch.1", job, "watch.started", 1)]
    for number, key in enumerate(keys, start=2):
        found.append(Arrival(f"auvy:{job}:{key}", job, "job.output", number))
    found[-1] = found[-1]._replace(type=end)
    return found


def faithful() -> list[Arrival]:
    """Two jobs, interleaved as they are in a real topic."""
    one, two = arrivals("job_1", KEYS), arrivals("job_2", OTHER_KEYS, "job.failed")
    return [one[0], two[0], one[1], two[1], *one[2:4], two[2], *one[4:]]


EMITTED = {"job_1": Emitted(KEYS, "completed"), "job_2": Emitted(OTHER_KEYS, "failed")}


def proof_of(
    topic: Sequence[Arrival] | None = None,
    accepted: Sequence[Arrival] | None = None,
    emitted: dict[str, Emitted] = EMITTED,
) -> Proof:
    sides = Sides("auvy", emitted, faithful() if topic is None else topic, faithful() if accepted is None else accepted)
    return prove(sides, verified=9, reconnects=3)


def verdict(proof: Proof) -> dict[str, int]:
    """The counts that must be zero, without those that are."""
    counts = proof.counts()
    return {name: counts[name] for name in ("lost", "duplicates", "out_of_order", "invented") if counts[name]}


def test_a_faithful_run_has_no_flaws() -> None:
    proof = proof_of()
    assert proof.flaws == []
    assert proof.counts() == {
        "jobs": 2,
        "events_emitted": 7,
        "kafka_records": 9,
        "webhook_events": 9,
        "webhook_duplicates": 0,
        "signatures_verified": 9,
        "signatures_refused": 0,
        "reconnects": 3,
        "lost": 0,
        "duplicates": 0,
        "out_of_order": 0,
        "invented": 0,
    }


@pytest.mark.parametrize("index", range(9))
def test_an_event_missing_at_one_destination_is_lost(index: int) -> None:
    short = faithful()
    gone = short.pop(index)
    at_topic, at_receiver = proof_of(topic=short), proof_of(accepted=short)
    assert verdict(at_topic) == verdict(at_receiver) == {"lost": 1}
    assert at_topic.flaws == [f"{gone.id} is not in the topic"]
    assert at_receiver.flaws == [f"{gone.id} is not at the receiver"]


def test_an_emitted_event_missing_at_both_is_lost_twice() -> None:
    short = [arrival for arrival in faithful() if not arrival.id.endswith("1200-0")]
    assert verdict(proof_of(short, short)) == {"lost": 2}


def test_an_event_that_no_ledger_knows_is_missed_by_its_sequence() -> None:
    """What the bridge itself observed is in no ledger of the source."""
    short = faithful()[1:]
    proof = proof_of(short, short)
    assert verdict(proof) == {"lost": 1}
    assert proof.flaws == ["job_1 lacks its event with sequence 1"]


def test_a_job_that_nobody_followed_is_lost() -> None:
    proof = proof_of(emitted=EMITTED | {"job_3": Emitted((), "completed")})
    assert verdict(proof) == {"lost": 1}
    assert proof.flaws == ["job_3 is over but has no terminal event"]


def test_a_job_without_a_terminal_event_is_a_loss() -> None:
    endless = [a._replace(type="job.output") if a.type == "job.failed" else a for a in faithful()]
    assert verdict(proof_of(endless, endless)) == {"lost": 1}


def test_an_event_twice_in_the_topic_is_a_duplicate() -> None:
    twice = faithful()
    twice.insert(6, twice[2])
    proof = proof_of(topic=twice)
    assert verdict(proof) == {"duplicates": 1}
    assert proof.kafka_records == 10


def test_an_event_twice_at_the_receiver_is_allowed_and_counted() -> None:
    proof = proof_of(accepted=[*faithful(), *faithful()[2:4]])
    assert verdict(proof) == {}
    assert (proof.webhook_duplicates, proof.webhook_events) == (2, 9)


def test_a_second_terminal_event_is_a_duplicate() -> None:
    again = [*faithful(), Arrival("auvy:job_1:status.4", "job_1", "job.failed", 7)]
    assert verdict(proof_of(again, again)) == {"duplicates": 1}


def test_a_terminal_event_of_a_living_job_is_invented() -> None:
    assert verdict(proof_of(emitted=EMITTED | {"job_2": Emitted(OTHER_KEYS, None)})) == {"invented": 1}


@pytest.mark.parametrize("event", ["auvy:job_1:77-0", "auvy:job_9:watch.1", "other:job_1:1000-0"])
def test_an_event_that_nobody_emitted_is_invented(event: str) -> None:
    job = event.split(":")[1]
    more = [*faithful()[:-1], Arrival(event, job, "job.output", 7), faithful()[-1]]
    assert proof_of(more, more).counts()["invented"] == 1


def swapped(arrivals_in_order: list[Arrival]) -> list[Arrival]:
    """Two neighbours of job_1 in the wrong order, each with its own sequence."""
    arrivals_in_order[4], arrivals_in_order[5] = arrivals_in_order[5], arrivals_in_order[4]
    return arrivals_in_order


def resequenced(arrivals_in_order: list[Arrival]) -> list[Arrival]:
    """Swapped before the sequence was given: only the stream id can tell."""
    right, wrong = arrivals_in_order, swapped(list(arrivals_in_order))
    return [late._replace(sequence=at.sequence) for late, at in zip(wrong, right, strict=True)]


def misnumbered(arrivals_in_order: list[Arrival]) -> list[Arrival]:
    """The right order of stream ids with two sequences exchanged."""
    right, wrong = arrivals_in_order, swapped(list(arrivals_in_order))
    return [at._replace(sequence=late.sequence) for late, at in zip(wrong, right, strict=True)]


@pytest.mark.parametrize("disorder", [swapped, resequenced, misnumbered])
def test_a_late_event_is_out_of_order(disorder: Callable[[list[Arrival]], list[Arrival]]) -> None:
    assert verdict(proof_of(topic=disorder(faithful()))) == {"out_of_order": 1}
    assert verdict(proof_of(accepted=disorder(faithful()))) == {"out_of_order": 1}


def test_stream_ids_are_compared_as_numbers() -> None:
    """As text `10000-0` comes before `9000-0`, which are the last two of job_1."""
    nine, ten = faithful()[7:]
    exchanged = [*faithful()[:7], ten._replace(sequence=nine.sequence), nine._replace(sequence=ten.sequence)]
    assert verdict(proof_of()) == {}
    assert verdict(proof_of(topic=exchanged)) == {"out_of_order": 1}


def test_only_the_first_arrival_at_the_receiver_counts_for_order() -> None:
    again_early = faithful()
    again_early.insert(5, again_early[0])
    assert verdict(proof_of(accepted=again_early)) == {}


def test_a_job_in_two_partitions_has_no_order() -> None:
    scattered = faithful()
    scattered[2] = scattered[2]._replace(partition=3)
    assert verdict(proof_of(topic=scattered)) == {"out_of_order": 1}


def test_a_job_that_ended_otherwise_than_told_is_invented() -> None:
    otherwise = EMITTED | {"job_2": Emitted(OTHER_KEYS, "cancelled")}
    assert verdict(proof_of(emitted=otherwise)) == {"invented": 1}
    assert proof_of(emitted=otherwise).flaws == [
        "job_2 ended as cancelled, yet there is auvy:job_2:1500-0 (job.failed)",
    ]


def test_the_total_of_several_sources_is_the_sum_of_each() -> None:
    other = [arrival._replace(id=arrival.id.replace("auvy:", "other:")) for arrival in faithful()]
    sides = by_source({"auvy": EMITTED, "other": EMITTED}, [*faithful(), *other], [*other[1:], *faithful()])
    proofs = [prove(each, verified=9, reconnects=3) for each in sides]
    assert [verdict(each) for each in proofs] == [{}, {"lost": 1}]
    total = Proof.total(proofs, refused=0)
    assert total.flaws == ["other:job_1:watch.1 is not at the receiver"]
    assert (total.jobs, total.events_emitted, total.kafka_records, total.webhook_events) == (4, 14, 18, 17)


def test_what_comes_from_a_source_that_is_not_there_is_invented() -> None:
    [auvy, ghost] = by_source(
        {"auvy": EMITTED}, [*faithful(), Arrival("ghost:job_1:1-0", "job_1", "job.output", 1)], []
    )
    assert (auvy.source, ghost.source) == ("auvy", "ghost")
    assert verdict(prove(ghost, verified=0, reconnects=0)) == {"lost": 1, "invented": 1}


def test_a_refused_signature_is_a_flaw() -> None:
    assert Proof.total([proof_of()], refused=2).flaws == ["2 signatures were refused"]
