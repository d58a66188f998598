"""The options of a webhook sink, which is one receiver."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bridge.delivery.dialling import DiallingSettings
from bridge.delivery.patterns import Pattern, any_of
from bridge.delivery.signing_settings import SigningSettings
from bridge.delivery.sink import Patience
from bridge.delivery.sinks.webhook.filters import TypePattern
from bridge.delivery.sinks.webhook.forms import FormName
from bridge.delivery.sinks.webhook.headers import CustomHeaders
from bridge.event import EventType
from bridge.expression import JmesPath
from bridge.secret import Secret
from bridge.tls import Tls

_WEEK_S = 604_800.0


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if not (16 <= len(text) <= 1_024 and text.isascii() and text.isprintable() and " " not in text):
        raise ValueError("a pull token is of 16 to 1024 visible ASCII characters")
    return token


class WebhookSettings(DiallingSettings, SigningSettings):
    """One receiver of webhooks."""

    description: str = Field("", max_length=500, description="For people: whose receiver it is, and what for.")
    types: list[TypePattern] = Field(
        ["*"], min_length=1, description="Event types to send, as patterns such as `job.*`."
    )
    sources: list[Pattern] = Field(["*"], min_length=1, description="Sources whose events to send, as patterns.")
    jobs: list[Pattern] = Field(["*"], min_length=1, description="Ids of the jobs whose events to send, as patterns.")
    when: JmesPath | None = Field(
        None,
        description="JMESPath over the event in CloudEvents form, `data` included: it is sent where that finds neither "
        "null, false nor anything empty, and where it cannot be applied, such as a function to a missing member, or "
        "would take more than 10,000 steps.",
    )
    body: FormName = Field(
        "standard",
        description="`standard`: type, timestamp, data. `cloudevents`: the structured JSON form. `cloudevents_binary`: "
        "data alone, and attributes as `ce-` headers, which no signature covers. `thin`: `standard` with the job's id "
        "and status as its only data.",
    )
    body_bytes_max: int = Field(
        1 << 20,
        ge=4 << 10,
        description="A larger body is sent with the job's id and status as its only data, and `data.truncated`.",
    )
    headers: CustomHeaders = Field(
        default_factory=dict, description="Headers of every request; values by reference: `Bearer ${KEY}`."
    )
    pull_token: Annotated[Secret, AfterValidator(_fit_for_a_header)] | None = Field(
        None,
        description="What the receiver shows to fetch its events from `/v1/endpoints/<name>/events`: at least 16 "
        "characters. Nobody but the operator can when absent.",
    )
    retry_schedule_s: list[Annotated[float, Field(ge=0, le=_WEEK_S)]] = Field(
        [5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0],
        min_length=1,
        max_length=100,
        description="Waits before the second, third ... attempt: 1 to 100, each of a week at most. After the last one "
        "an event is a dead letter.",
    )
    retry_after_max_s: float = Field(3_600.0, ge=0, description="The receiver's `Retry-After` is obeyed up to this.")
    retry_age_max_s: float = Field(
        259_200.0,
        gt=0,
        description="429 and 503 do not use up the schedule: so long after its first attempt, such an event is a dead "
        "letter.",
    )
    reject_4xx: bool = Field(
        False, description="Make an event a dead letter at once on a 4xx other than 408, 410, 425 and 429."
    )
    ttl_s: dict[TypePattern, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="By type pattern, the first that fits: an event journalled longer ago than this is not sent.",
    )
    ordered: bool = Field(True, description="Let a refused event hold back those of its job that follow.")
    coalesce: list[Literal["job.progress", "job.output"]] = Field(
        default_factory=list,
        description="Types of which the latest of a job is enough while the receiver is behind: `job.progress`, "
        "`job.output`.",
    )
    requests_per_second: float | None = Field(
        None, gt=0, le=100_000, description="Requests started in a second, at most and evenly spaced; any when absent."
    )
    concurrency: int = Field(
        16, ge=1, le=1_000, description="Requests under way at once, at most, each for another job."
    )
    circuit_jobs: int = Field(
        5, ge=1, description="So many jobs refused in a row, and the receiver is left alone before one event is tried."
    )
    probe_wait_s: float = Field(
        5.0, gt=0, description="How long it is left alone then; doubled whenever the one event is refused, too."
    )
    probe_wait_max_s: float = Field(300.0, gt=0, description="Limit of that.")
    failing_after_s: float = Field(
        60.0, ge=0, description="After so long with nothing but failure, operators are told `endpoint.failing`."
    )
    disable_after_s: float | None = Field(
        432_000.0,
        gt=0,
        description="After so long with nothing but failure the endpoint is disabled until a person resumes it; null: "
        "never.",
    )
    connect_timeout_s: float = Field(5.0, gt=0, description="Deadline of dialling alone, look-up and TLS included.")
    timeout_s: float = Field(
        15.0, gt=0, description="Deadline of one attempt, from dialling to the answer's last byte."
    )
    answer_bytes_max: int = Field(64 << 10, ge=1, description="Of the receiver's answer, no more than this is read.")
    tls: Tls | None = Field(None, description="Own authorities and a client certificate; the system's when absent.")

    @model_validator(mode="after")
    def _tls_is_used(self) -> WebhookSettings:
        if self.tls is not None and urlsplit(self.url).scheme != "https":
            raise ValueError("tls needs a url that begins with https://")
        return self

    @model_validator(mode="after")
    def _waits_agree(self) -> WebhookSettings:
        if self.probe_wait_s > self.probe_wait_max_s:
            raise ValueError("probe_wait_s must not be longer than probe_wait_max_s")
        return self

    @property
    def patience(self) -> Patience:
        """What the lanes need to know of these."""
        lives_s = {pattern: any_of([pattern]) for pattern in self.ttl_s}
        ttl_s = {
            type_.value: next((self.ttl_s[text] for text, pattern in lives_s.items() if pattern.match(type_)), None)
            for type_ in EventType
        }
        return Patience(
            tuple(self.retry_schedule_s),
            self.retry_after_max_s,
            self.concurrency,
            age_max_s=self.retry_age_max_s,
            ttl_s=ttl_s.get,
            ordered=self.ordered,
            coalesce=frozenset(self.coalesce),
            circuit_jobs=self.circuit_jobs,
            probe_wait_s=self.probe_wait_s,
            probe_wait_max_s=self.probe_wait_max_s,
            failing_after_s=self.failing_after_s,
            disable_after_s=self.disable_after_s,
        )
